"""What attacks leave of the safety subspace, beside the ASR they gain: the paper's figures 2 and 3.

R_ft is the share of everything fine-tuning made of a model, alignment and attack together, that
lies in the safety subspace (Perin et al. 2025, arXiv:2506.15606). An attack lowers it by adding to
the weights elsewhere.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

from lox_kit import __version__
from lox_kit.attacks import attack_key, check_language, find_attack, run_attack
from lox_kit.extrapolation import SafetySubspace
from lox_kit.folders import read_once, whole
from lox_kit.measures import Questions, measure, world_questions
from lox_kit.models import load_model
from lox_kit.store import Store, content_key
from lox_kit.threads import OnStage
from lox_kit.weights import Checkpoint, family_folder, has_weights

from .arms import arm_model, steps_of
from .families import Recipe, build, pair_of
from .results import Results

AMOUNTS = (250, 500, 1000, None)  # of the sandbox's alignment rows; None: as many as it has
RANKS = (1, 6, 16, 32)
SHAPE = {"R": dict, "measures": dict}


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
                found = store.get("erosion", key, SHAPE)
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
