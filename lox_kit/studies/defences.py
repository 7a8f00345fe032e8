"""A defence and its controls of equal norm, before and after one attack, over seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lox_kit.measures import sandbox_questions

from .arms import ARMS
from .results import AttackTable
from .table import attack_table


def compare_defences(
    seeds: Sequence[int] = (0,),
    attack: str = "arithmetic",
    *,
    arms: Sequence[str] = ARMS,
    split: str = "test",
    limit: int | None = None,
    **options,
) -> AttackTable:
    """Attack the aligned model, its LoX and the controls of equal norm; measure before and after.

    The table of one attack on the sandbox, with full fine-tuning.

    Parameters
    ----------
    seeds : sequence of int
        Families of the sandbox; the seed also fixes the attack's rows and their order.
    arms : sequence of str
        Of `ARMS`, "aligned" among them.
    split : "dev" or "test"
        Nothing was tuned on the second.
    limit : int, optional
        Prompts per kind; default all (348 forbidden, 216 allowed).
    options
        As `attack_table` takes them: k, alpha, rebuild, store, executor, keep, on_stage.

    Raises
    ------
    ValueError
        If an arm or the attack is unknown, or the attack is not the sandbox's.
    """
    asked = sandbox_questions(split, limit)
    found = attack_table(arms, [attack], seeds, lora=(), questions=asked, **options)
    return dataclasses.replace(found, source={**found.source, "attack": attack, "split": split})
