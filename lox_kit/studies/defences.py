"""A defence and its controls of equal norm, before and after one attack, over seeds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from lox_kit import __version__
from lox_kit.attacks import PUBLISHED, find_attack, run_attack
from lox_kit.extrapolation import FULL, SafetySubspace
from lox_kit.folders import write_whole
from lox_kit.measures import Share, measure, sandbox_questions, task_prompts
from lox_kit.models import load_model
from lox_kit.store import Store

from .arms import ARMS, OnStage, arm_model, check_arms, steps_of, tell
from .families import pair_of


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
    check_arms(arms)
    if not find_attack(attack).sandbox:
        raise ValueError(
            f"attack {attack!r}: this comparison is the sandbox's; use its counterpart "
            f"{PUBLISHED[attack]}, or attack_table for a pair of your own."
        )
    questions = sandbox_questions(split, limit)
    rows = []
    for seed in seeds:
        base, path = pair_of(seed, rebuild, on_stage)
        aligned = load_model(path)
        subspace = SafetySubspace.from_pair(base, path, rank=FULL)
        chosen = find_attack(attack, seed=seed)
        task = task_prompts(chosen.held_out(limit or 200))
        for arm in arms:
            model = arm_model(arm, aligned, subspace, k, alpha, seed)
            stage = f"seed {seed}, {arm}"
            tell(on_stage, stage + ": before")
            before = measure(model, questions, task, store=store)
            on_step = steps_of(on_stage, f"{stage}: {attack}")
            run = run_attack(model, chosen, store=store, on_step=on_step)
            tell(on_stage, stage + ": after")
            after = measure(run.load(), questions, task, store=store)
            for moment, measures in (("before", before), ("after", after)):
                rows.append({"seed": seed, "arm": arm, "moment": moment, "measures": measures})
    source = {"attack": attack, "k": k, "alpha": alpha, "split": split, "version": __version__}
    return Comparison(tuple(rows), source)
