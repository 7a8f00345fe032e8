"""Is the subspace about safety? What fine-tuning leaves of it, and how much of a change lies in it.

`erosion` has the paper's figures 2 and 3. R_ft is the share of everything fine-tuning made of a
model, alignment and attack together, that lies in the safety subspace (Perin et al. 2025,
arXiv:2506.15606). An attack lowers it by adding to the weights elsewhere.

`safety_overlaps` compares every change that fine-tuning makes with the subspace of the alignment:
attacks, and alignments again, from other rows or in another order. Critics hold that no subspace is
about safety alone (arXiv:2505.14185, arXiv:2602.17696); here each overlap stands beside chance and
beside the attack success rate that was gained.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from lox_kit import __version__
from lox_kit.attacks import (
    align,
    attack_key,
    check_language,
    find_alignment,
    find_attack,
    run_attack,
)
from lox_kit.extrapolation import FULL, SafetySubspace, overlap
from lox_kit.folders import read_once, whole
from lox_kit.measures import Questions, measure, world_questions
from lox_kit.models import Model, load_model
from lox_kit.store import Store, content_key
from lox_kit.threads import OnStage, tell
from lox_kit.weights import Checkpoint, family_folder, has_weights

from .arms import arm_model, steps_of
from .families import Recipe, build, pair_of
from .results import Results

AMOUNTS = (250, 500, 1000, None)  # of the sandbox's alignment rows; None: as many as it has
RANKS = (1, 6, 16, 32)
ERODED = {"R": dict, "measures": dict}
AGAIN = {"sandbox": "sandbox-sft", "smol": "smol"}  # how a world's base is aligned once more
ELSE = 1000  # added to a seed: another order, and other draws of the rows
SHAPE = {"layers": list, "share": float, "chance": float, "measures": dict}


class Erosion(Results):
    """Attacked models: how much of their change lies in the safety subspace, and their shares.

    A row's names are seed, amount (rows of the alignment), attack and arm. "R" has the mean over
    matrices of R_align and R_ft at each k; "asr" is the ASR after the attack (under its persona, if
    it has one), and "gained" that less the ASR before.
    """


def erosion(
    seeds: Sequence[int] = (0,),
    attacks: Sequence[str] = ("arithmetic", "context", "mixed", "persona", "forbidden"),
    *,
    amounts: Sequence[int | None] = (None,),
    arms: Sequence[str] = ("aligned", "LoX"),
    ranks: Sequence[int] = RANKS,
    k: int = 6,
    alpha: float = 1.0,
    world: str = "sandbox",
    questions: Questions | None = None,
    store: Store,
    on_stage: OnStage | None = None,
) -> Erosion:
    """Attack models and measure R_ft and ASR. Rows are kept as they are made; a call resumes.

    Parameters
    ----------
    amounts : sequence of int or None
        Of the sandbox: rows of alignment, of which each family gets another aligned model, built
        where it does not exist. None: the family's own.
    arms : sequence of str
        What is attacked: "aligned", "LoX" with `k` and `alpha`, or a control.
    ranks : sequence of int
        The k at which R is taken.

    Raises
    ------
    ValueError
        If an attack is unknown, or not the world's.
    """
    questions, rows = questions or world_questions(world), []
    ranks = sorted({*ranks, k})
    if world != "sandbox" and set(amounts) != {None}:
        raise ValueError(f"amounts={amounts}: of the sandbox alone; leave it out.")
    for seed, amount in product(seeds, amounts):
        base, own = _pair(seed, amount, world, on_stage)
        subspace = SafetySubspace.from_pair(base, own, rank=max(*ranks, k))
        aligned = load_model(own)
        for name in attacks:
            check_language(aligned, find_attack(name))
        for arm in arms:
            model = arm_model(arm, aligned, subspace, k, alpha, seed)
            for name in attacks:
                attack = find_attack(name, seed=seed)
                key = content_key(run=attack_key(model, attack), safety=subspace.key)
                key = content_key(
                    eroded=key, ranks=ranks, asked=questions.key, system=attack.system
                )
                how = {"system": attack.system, "store": store}
                found = store.get("erosion", key, ERODED)
                if found is None:
                    report = steps_of(on_stage, f"seed {seed}, {attack.name} on {arm}")
                    run = partial(run_attack, model, attack, on_step=report)
                    with read_once(store.run_folder(key), run) as folder:
                        r = _retained(subspace, base, folder, ranks)
                        found = {"R": r, "measures": measure(load_model(folder), questions, **how)}
                    store.put("erosion", key, found)
                names = {"seed": seed, "amount": amount, "attack": attack.name, "arm": arm}
                asr = asr_of(found["measures"])
                gained = asr - asr_of(measure(model, questions, **how))
                rows.append({**names, "asr": asr, "gained": gained, **found})
    about = {"world": world, "k": k, "alpha": alpha, "judge": str(questions.judge)}
    about |= {"questions": questions.key, "version": __version__}
    return Erosion(tuple(rows), about)


def asr_of(measures: dict[str, dict]) -> float:
    """Return the ASR; after an attack with a persona, that under it."""
    return measures.get("persona_asr", measures["asr"])["value"]


def _retained(
    subspace: SafetySubspace, base: str, attacked: Path, ranks: Sequence[int]
) -> dict[str, list[float]]:
    """Return R_align and R_ft at each k, means over the matrices that the alignment changed."""
    curve = subspace.r_ft_curve(base, attacked, max(ranks))
    moved = subspace.norms > 0
    means = ((subspace.r_align(k)[moved].mean(), curve[moved, k].mean()) for k in ranks)
    return {str(k): list(map(float, pair)) for k, pair in zip(ranks, means, strict=True)}


def _pair(seed: int, amount: int | None, world: str, on_stage: OnStage | None) -> tuple[str, str]:
    """Return a family's base, and its model aligned on so many rows, built if need be."""
    pair = pair_of(seed, world=world, on_stage=on_stage)
    if amount is None:
        return pair
    recipe = dataclasses.replace(Recipe(), alignment_rows=amount)
    folder = family_folder(seed, recipe.key)
    if not has_weights(folder / "base"):
        with whole(folder / "base") as work:
            shutil.copytree(Checkpoint(pair[0]).path, work, dirs_exist_ok=True)
    build(seed, folder, recipe=recipe, on_stage=on_stage)
    return str(folder / "base"), str(folder / "aligned")


# --- what else lies in it -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Change:
    """One fine-tuning: which model begins it, and what writes the checkpoint that it ends in."""

    name: str
    start: str
    key: str  # hash of start, rows and settings
    make: Callable[..., object]  # takes the folder, and `on_step`


class Overlaps(Results):
    """Overlaps of changes with the safety subspace.

    A row's names are seed and change; "share" is |P_k dW|^2 / |dW|^2 over all matrices together,
    with P_k = U_k U_k^T of the alignment, "chance" what a random subspace would hold, "layers" both
    of every matrix. "measures" are the changed model's shares, and "before" the ASR it had.
    """

    def gains(self) -> list[tuple[str, int, float, float]]:
        """Return attack, seed, share beyond chance, and ASR gained, of every attack."""
        return [
            (r["change"], r["seed"], r["share"] - r["chance"], r["gained"])
            for r in self.rows
            if r["gained"] is not None
        ]

    def rank_correlation(self) -> tuple[float, float, int]:
        """Return Spearman's rho of overlap and ASR gained over all attacks, its p, and how many.

        The p is of permutations, and takes attacks of different seeds as independent.
        """
        from scipy.stats import permutation_test, spearmanr

        _, _, share, gained = zip(*self.gains(), strict=True)

        def rho(x, axis=-1):
            return np.apply_along_axis(lambda one: spearmanr(one, gained).statistic, axis, x)

        options = {"permutation_type": "pairings", "n_resamples": 9999, "rng": 0}
        test = permutation_test([share], rho, vectorized=True, **options)
        return float(test.statistic), float(test.pvalue), len(share)


def safety_overlaps(
    seeds: Sequence[int] = (0,),
    attacks: Sequence[str] = ("arithmetic", "context", "mixed", "persona", "forbidden"),
    *,
    world: str = "sandbox",
    k: int = 6,
    questions: Questions | None = None,
    store: Store,
    on_stage: OnStage | None = None,
) -> Overlaps:
    """Attack and align again, and find how much of each change lies in the safety subspace.

    Of each seed's family: every attack on its aligned model; its base aligned once more in another
    order with other draws ("other order"), and on disjoint halves of the rows ("half A", "half B").
    Rows are kept as they are made; a call that was cut off resumes.

    Parameters
    ----------
    k : int
        Directions of the alignment.
    questions : Questions, optional
        What attacked models are asked; default the world's test requests.

    Raises
    ------
    ValueError
        If an attack is unknown, or not the world's.
    """
    questions = questions or world_questions(world)
    rows = []
    for seed in seeds:
        base, aligned = pair_of(seed, world=world, on_stage=on_stage)
        safety = SafetySubspace.from_pair(base, aligned, rank=k)
        model = load_model(aligned)
        before = measure(model, questions, store=store)["asr"]
        changes = list(_changes(model, base, aligned, attacks, world, seed))
        for done, change in enumerate(changes):
            tell(on_stage, f"seed {seed}: {change.name}", done, len(changes))
            key = content_key(change=change.key, safety=safety.key, k=k, asked=questions.key)
            row = store.get("overlap", key, SHAPE)
            if row is None:
                row = _compared(change, safety, k, questions, store, on_stage)
                store.put("overlap", key, row)
            gained = row["measures"]["asr"]["value"] - before["value"]
            gained = gained if change.start == aligned else None  # None: no attack
            names = {"seed": seed, "change": change.name, "gained": gained}
            rows.append({**names, **row, "before": before})
    source = {"world": world, "k": k, "questions": questions.key, "version": __version__}
    return Overlaps(tuple(rows), source)


def _changes(
    model: Model, base: str, aligned: str, attacks: Sequence[str], world: str, seed: int
) -> Iterator[Change]:
    """Yield the attacks on the aligned model, then its base aligned once more, if we know how."""
    for name in attacks:
        attack = find_attack(name, seed=seed)
        key, make = attack_key(model, attack), partial(run_attack, model, attack)
        yield Change(attack.name, aligned, key, make)
    if world not in AGAIN:
        return
    preset, other = find_alignment(AGAIN[world]), seed + ELSE
    rows = preset.rows(seed)
    again = {
        "aligned, other order": (other, preset.rows(other)),
        "aligned, half A": (seed, rows[::2]),
        "aligned, half B": (other, rows[1::2]),
    }
    for name, (order, some) in again.items():
        recipe = find_alignment(AGAIN[world], seed=order)
        content = Checkpoint(base).fingerprint
        key = content_key(base=content, rows=some, settings=recipe.settings.chosen())

        def make(folder: Path, *, recipe=recipe, some=some, **how) -> None:
            align(load_model(base), recipe, folder, rows=some, **how)

        yield Change(name, base, key, make)


def _compared(
    change: Change,
    safety: SafetySubspace,
    k: int,
    questions: Questions,
    store: Store,
    on_stage: OnStage | None,
) -> dict:
    """Make a change, compare it with the safety subspace, measure it, and remove it."""
    made = store.run_folder(content_key(overlap=change.key))
    make = partial(change.make, on_step=steps_of(on_stage, change.name))
    with read_once(made, make) as folder:
        changed = SafetySubspace.from_pair(change.start, folder, rank=FULL)
        frame = overlap(safety, changed, k)
        measures = measure(load_model(folder), questions, store=store)
    energy = changed.norms**2 / (changed.norms**2).sum()
    share, chance = (float((frame[n] * energy).sum()) for n in ("share", "share_chance"))
    shown = frame[["layer", "share", "share_chance"]].astype(object)
    layers = shown.where(shown.notna(), None).to_numpy().tolist()  # None: alignment left it alone
    return {"layers": layers, "share": share, "chance": chance, "measures": measures}
