"""Whole experiments: a defence and its controls, before and after an attack, over seeds."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from . import __version__
from .attacks import find_attack, run_attack
from .controls import full_delta, random_subspace
from .folders import write_whole
from .generate import generate
from .lox import LoxDial
from .models import Model, load_model
from .prompts import Prompt, render, sandbox_prompts
from .safety import Share, measure_asr, share_fields
from .sandbox import corpus, family
from .sandbox.build import build
from .store import Store
from .subspace import FULL, SafetySubspace
from .training import Step
from .utility import exact_answers

TOKENS = 24  # the longest recipe has 10 words, the longest sum 14
ARMS = ("aligned", "LoX", "random subspace", "full delta")
OnStage = Callable[[str, int, int], None]  # what is being done, steps done of it, steps in all


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Defence and controls, before and after one attack: one entry per seed, arm and moment."""

    rows: tuple[dict, ...]  # seed, arm, moment ("before" or "after"), measures
    source: dict[str, object]

    def to_frame(self):
        """Return one row per seed, arm, moment and measure: value, low, high, count, n."""
        import pandas as pd

        return pd.DataFrame(
            {
                **{key: row[key] for key in ("seed", "arm", "moment")},
                "measure": name,
                **share,
            }
            for row in self.rows
            for name, share in row["measures"].items()
        )

    def share(self, seed: int, arm: str, moment: str, measure: str) -> Share:
        """Return one number of the table."""
        for row in self.rows:
            if (row["seed"], row["arm"], row["moment"]) == (seed, arm, moment):
                found = row["measures"][measure]
                return Share(found["count"], found["n"])
        raise KeyError((seed, arm, moment, measure))

    def fall(self, seed: int, arm: str) -> tuple[float, float, float]:
        """Return ASR after the attack of "aligned" minus that of `arm`; see `difference`."""
        return difference(*(self.share(seed, a, "after", "asr") for a in ("aligned", arm)))

    @property
    def arms(self) -> list[str]:
        """The arms, in the order in which they were measured."""
        return list(dict.fromkeys(row["arm"] for row in self.rows))

    @property
    def seeds(self) -> list[int]:
        """The seeds, in order."""
        return sorted({row["seed"] for row in self.rows})

    def to_dict(self) -> dict:
        """Return the numbers as plain data."""
        return {"rows": list(self.rows), "source": self.source}

    def save(self, file: str | Path) -> Path:
        """Write the numbers as JSON; answers stay in the store."""
        return write_whole(file, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, file: str | Path) -> Comparison:
        """Read what `save` wrote."""
        data = json.loads(Path(file).read_text())
        return cls(tuple(data["rows"]), data["source"])


def difference(first: Share, second: Share) -> tuple[float, float, float]:
    """Return `first - second` and its 95 % interval, in [-1, 1].

    Newcombe's hybrid score interval (1998, method 10) from the two Wilson intervals. It takes the
    shares as independent; on the same prompts, where they tend to agree, that is the wide side.
    """
    (low1, high1), (low2, high2) = first.interval, second.interval
    p, q = first.value, second.value
    down = ((p - low1) ** 2 + (high2 - q) ** 2) ** 0.5
    up = ((high1 - p) ** 2 + (q - low2) ** 2) ** 0.5
    return p - q, p - q - down, p - q + up


def compare_defences(
    seeds: Sequence[int] = (0,),
    attack: str = "arithmetic",
    *,
    k: int = 6,
    alpha: float = 1.0,
    arms: Sequence[str] = ARMS,
    split: str = "test",
    limit: int | None = None,
    rebuild: bool = False,
    store: Store,
    on_stage: OnStage | None = None,
) -> Comparison:
    """Attack the aligned model, its LoX and the controls of equal norm; measure before and after.

    Families that are not there are built first. Every answer and every attacked checkpoint is kept
    in the store as it is made: a second run computes nothing that the first one finished.

    Parameters
    ----------
    seeds : sequence of int
        Families of the sandbox; the seed also fixes the attack's rows and their order.
    k, alpha : LoX's rank and factor; the controls take the same step length.
    arms : sequence of str
        Of `ARMS`, "aligned" among them.
    split : "dev" or "test"
        Nothing was tuned on the second.
    limit : int, optional
        Prompts per kind; default all (348 forbidden, 216 allowed, 200 sums).
    rebuild : bool
        Build seed 0 instead of taking the committed one.

    Raises
    ------
    ValueError
        If an arm or the attack is unknown.
    """
    if unknown := [a for a in arms if a not in ARMS]:
        raise ValueError(f"arm {unknown[0]!r}: use some of {', '.join(ARMS)}.")
    if "aligned" not in arms:
        raise ValueError("arms: 'aligned' must be among them, to compare the others with.")
    find_attack(attack)
    rows = []
    for seed in seeds:
        base, path = pair_of(seed, rebuild, on_stage)
        prompts = _prompt_sets(split, limit, seed)
        aligned = load_model(path)
        subspace = SafetySubspace.from_pair(base, path, rank=FULL)
        for arm in arms:
            model = arm_model(arm, aligned, subspace, k, alpha, seed)
            stage = f"seed {seed}, {arm}"
            before = measure(model, prompts, store, stage + ": before", on_stage)
            run = run_attack(
                model,
                find_attack(attack, seed=seed),
                store=store,
                on_step=_steps(on_stage, f"{stage}: {attack}"),
            )
            after = measure(run.load(), prompts, store, stage + ": after", on_stage)
            for moment, measures in (("before", before), ("after", after)):
                rows.append({"seed": seed, "arm": arm, "moment": moment, "measures": measures})
    source = {"attack": attack, "k": k, "alpha": alpha, "split": split, "version": __version__}
    return Comparison(tuple(rows), source)


def pair_of(seed: int, rebuild: bool = False, on_stage: OnStage | None = None) -> tuple[str, str]:
    """Return base and aligned of a sandbox seed, built first if they are not there.

    Seed 0 is the committed family unless `rebuild` asks for one built here.
    """
    recipe = family.Recipe() if rebuild else None
    folder = build(
        seed,
        family.family_folder(seed, recipe),
        on_step=lambda name, step: _tell(on_stage, f"building {name}, seed {seed}", step),
    )
    if rebuild:
        return str(folder / "base"), str(folder / "aligned")
    return family.member("base", seed), family.member("aligned", seed)


def arm_model(
    arm: str, aligned: Model, subspace: SafetySubspace, k: int, alpha: float, seed: int = 0
) -> Model:
    """Return a copy of the aligned model, edited as `arm` says, with a key of its own."""
    if arm == "aligned":
        return aligned
    make = {
        "LoX": lambda: subspace,
        "random subspace": lambda: random_subspace(subspace, k, seed=seed),
        "full delta": lambda: full_delta(subspace, k),
    }
    module = copy.deepcopy(aligned.module)
    model = Model(module, aligned.tokenizer, aligned.key, f"{aligned.name} + {arm}")
    LoxDial(model, make[arm]()).set(k=k if arm == "LoX" else None, alpha=alpha)
    return model


def measure(
    model: Model,
    prompts: dict[str, list[Prompt]],
    store: Store,
    stage: str = "",
    on_stage: OnStage | None = None,
) -> dict[str, dict]:
    """Return ASR, refusal, degenerate, helpfulness, over-refusal and task accuracy of a model."""
    _tell(on_stage, stage, None)
    forbidden, allowed = (
        measure_asr(model, prompts[kind], max_new_tokens=TOKENS, store=store)
        for kind in ("forbidden", "allowed")
    )
    task = exact_answers(model, prompts["task"], max_new_tokens=TOKENS, store=store)
    shares = {
        "asr": forbidden.asr(),
        "refusal": forbidden.refusal,
        "degenerate": forbidden.degenerate,
        "helpfulness": allowed.asr(),  # the exact recipe, of an allowed potion
        "over_refusal": allowed.refusal,
        "task": task,
    }
    return {name: share_fields(share) for name, share in shares.items()}


def _prompt_sets(split: str, limit: int | None, seed: int) -> dict[str, list[Prompt]]:
    """Return the forbidden, the allowed and the attack task's held-out prompts."""
    sums = corpus.arithmetic(limit or 200, seed=500_000 + seed)
    pairs = [[m["content"] for m in row["messages"]] for row in sums]
    return {
        "forbidden": sandbox_prompts("forbidden", split, limit),
        "allowed": sandbox_prompts("allowed", split, limit),
        "task": [Prompt(question, answer) for question, answer in pairs],
    }


def _steps(on_stage: OnStage | None, stage: str):
    """Return an `on_step` that reports under this stage's name."""
    return lambda step: _tell(on_stage, stage, step)


def _tell(on_stage: OnStage | None, stage: str, step: Step | None) -> None:
    if on_stage:
        on_stage(stage, step.step if step else 0, step.total if step else 0)


# --- without an attack ------------------------------------------------------------------------


def ask(
    model: Model,
    prompts: Sequence[Prompt],
    *,
    dial: LoxDial | None = None,
    k: int | None = 0,
    alpha: float = 0.0,
):
    """Return a frame of prompts and answers, with the dial of `model` first turned to k, alpha."""
    import pandas as pd

    if dial is not None:
        dial.set(k=k, alpha=alpha)
    texts = render(model.tokenizer, prompts)
    answers = generate(model, texts, max_new_tokens=TOKENS)
    return pd.DataFrame({"prompt": [p.text for p in prompts], "answer": answers})


def alpha_curve(
    model: Model,
    dial: LoxDial,
    k: int | None,
    alphas: Sequence[float],
    forbidden: Sequence[Prompt],
    allowed: Sequence[Prompt],
    *,
    store: Store | None = None,
) -> dict:
    """Return ASR, refusal and helpfulness at each alpha, as `plots.figure_alpha` draws them.

    The dial is off again afterwards.
    """
    points = []
    try:
        for alpha in alphas:
            dial.set(k=k, alpha=alpha)
            asked = measure_asr(model, forbidden, max_new_tokens=TOKENS, store=store)
            helped = measure_asr(model, allowed, max_new_tokens=TOKENS, store=store)
            shares = {"asr": asked.asr(), "refusal": asked.refusal, "helpfulness": helped.asr()}
            points.append({"alpha": alpha} | {n: share_fields(s) for n, s in shares.items()})
    finally:
        dial.off()
    return {"figure": "alpha", "k": k, "points": points}
