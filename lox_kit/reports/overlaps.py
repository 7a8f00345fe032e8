"""What lies in the safety subspace, in words: each change beside chance, and what it predicts."""

from __future__ import annotations

from pathlib import Path

from lox_kit.measures import Share
from lox_kit.studies import Overlaps

from .table import markdown, write_both


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
