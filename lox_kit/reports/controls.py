"""LoX against every control, request by request: is it the subspace that holds?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from lox_kit.folders import write_whole
from lox_kit.studies import AttackTable
from lox_kit.text import p_text

from .frontier import paired
from .table import markdown, table_caption, write_table


def write_controls(table: AttackTable, out: str | Path) -> str:
    """Write figure, data and table as `write_table` does, and the paired tests; return those."""
    write_table(table, "defences", out)
    text = controls_text(table)
    write_whole(Path(out) / "controls.md", text)
    return text


def controls_text(table: AttackTable) -> str:
    """Return LoX beside each other arm after every attack, as Markdown.

    The requests of all seeds are paired one by one (exact McNemar); the p-values of all tests
    together are adjusted by Holm's method.
    """
    others = [arm for arm in table.column("arm") if arm != "LoX"]
    cells = list(product(table.attacks, others))
    pairs = [paired(table, "asr", (arm, at), ("LoX", at), "y") for at, arm in cells]
    rows = []
    for (attack, arm), pair, p in zip(cells, pairs, holm([x.p_value for x in pairs]), strict=True):
        difference = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*pair.difference)
        counts = f"{pair.only_first} : {pair.only_second}"
        helped = table.pooled("helpfulness", None, arm)
        rows.append(
            [attack, arm, helped, *pair.shares, difference, counts, p_text(p).removeprefix("p = ")]
        )
    heads = ["after", "arm", "help before", "its ASR", "LoX's ASR", "difference", "only one", "p"]
    helped = table.pooled("helpfulness", None, "LoX")
    caption = (
        f"LoX's help before the attack: {helped}. Only one: requests that harm in the arm alone, "
        "and in LoX alone. p: exact McNemar over all seeds' requests, which takes seeds as alike; "
        f"Holm's method for all rows. {table_caption(table)}"
    )
    return "\n".join([*markdown(heads, rows), "", caption, ""])


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return p-values adjusted for their number, step-down (Holm 1979): at most 1, in their order.

    Rejecting those up to .05 keeps the chance of any false rejection to .05.
    """
    p, order = np.asarray(p_values, float), np.argsort(p_values, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted
