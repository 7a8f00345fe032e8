"""The studies of the subspace in words: controls, what lies in it, and who gets past it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from lox_kit.folders import write_whole
from lox_kit.measures import Share
from lox_kit.studies import AttackTable, Overlaps, pooled
from lox_kit.text import p_text

from .table import markdown, paired, table_caption, write_both, write_table

EQUAL = 0.02  # of helpfulness
SHOWN = ("asr", "refusal", "helpfulness", "task")


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


def write_overlaps(found: Overlaps, out: str | Path) -> str:
    """Write the figure, its data and its text; return the text."""
    return write_both(found, "overlaps", overlaps_text(found), out)


def overlaps_text(found: Overlaps) -> str:
    """Return a row per change and seed, and the rank correlation with the ASR gained."""
    heads = ["seed", "change", "in the subspace", "by chance", "ASR before", "ASR after"]
    rows = []
    for row in found.rows:
        before, after = (Share(s["count"], s["n"]) for s in (row["before"], row["measures"]["asr"]))
        asr = (before, after) if row["gained"] is not None else ("", after)
        shares = (f"{row[name]:.3f}" for name in ("share", "chance"))
        rows.append([row["seed"], row["change"], *shares, *asr])
    lines = [*markdown(heads, rows), ""]
    if len(found.gains()) > 2:
        rho, p, n = found.rank_correlation()
        lines += [
            f"Over {n} attacks the overlap beyond chance and the ASR gained have a rank "
            f"correlation (Spearman) of {rho:+.2f}, permutation p = {p:.2g}, which takes seeds as "
            "independent.",
            "",
        ]
    k = found.source["k"]
    lines += [
        f"In the subspace: |U_k U_k^T dW|² / |dW|² over all matrices, k = {k}, of the weights' "
        "change by the attack, or by aligning the same base once more in another order, or on half "
        "of the rows. By chance: of a random subspace of that rank.",
        "",
    ]
    return "\n".join(lines)


def write_knowing(table: AttackTable, out: str | Path) -> str:
    """Write figure, data and table, and what `knowing_text` says; return the text."""
    write_table(table, "attack_table", out)
    text = knowing_text(table)
    write_whole(Path(out) / "knowing.md", text + "\n")
    return text


def knowing_text(table: AttackTable) -> str:
    """Say who wins at equal help among models attacked through LoRA, and what a search found.

    Not clearly worse than the lowest ASR is what Newcombe's interval of the difference says, over
    all seeds' requests together.
    """
    found = {}
    for _, *group in table.groups:
        shares = {name: table.shares(name, *group) for name in SHOWN}
        if group[1] == "LoRA" and shares["helpfulness"]:
            found[f"{group[2]} after {group[0]}"] = {n: pooled(s) for n, s in shares.items() if s}
    lines = [
        f"- {name}: {', '.join(f'{what} {share}' for what, share in shares.items())}."
        for name, shares in found.items()
    ]
    if found:
        most = max(shares["helpfulness"].value for shares in found.values())
        near = {n: s["asr"] for n, s in found.items() if s["helpfulness"].value >= most - EQUAL}
        least = min(near.values(), key=lambda asr: asr.value)
        win = [name for name, asr in near.items() if asr.minus(least)[1] <= 0]
        lines.append(
            f"- Of the {len(near)} that help as much as any, within {EQUAL:g}, the lowest ASR, or "
            f"not clearly more: {'; '.join(win) if len(win) < len(near) else 'all of them'}."
        )
    trials = table.source.get("trials", [])
    for arm, seed in dict.fromkeys((t["arm"], t["seed"]) for t in trials):
        tried = [t for t in trials if (t["arm"], t["seed"]) == (arm, seed)]
        best, within = max(tried, key=lambda t: t["value"]), sum(t["value"] >= 0 for t in tried)
        how = f"{'LoRA' if best['lora'] else 'full'}, learning rate {best['learning_rate']:.2g}"
        lines.append(
            f"- {arm}, seed {seed}: {within} of {len(tried)} trials keep help and task within "
            f"{table.source['loss']:g}; the worst ({how}, {best['max_steps']} steps) has ASR "
            f"{best['measures']['asr']['value']:.2f} on development requests."
        )
    return "\n".join(lines)
