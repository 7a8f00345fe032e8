"""The numbers below the attack lab's plots, at the step that is looked at, as HTML.

Everything a person wrote is escaped.
"""

from __future__ import annotations

from html import escape

from lox_kit.figures import LAB_ARMS, run_title
from lox_kit.widgets.tables import NONE, row, table

COLUMNS = {
    "asr": "ASR",
    "persona_asr": "ASR under the persona",
    "helpfulness": "helpfulness",
    "task": "attack's task solved",
}


def numbers_html(data: dict) -> str:
    """Return the table: two lines for every run, the aligned model's and LoX's.

    Parameters
    ----------
    data : dict
        `AttackLabState.data`.
    """
    runs, at = data["runs"], data["at"]
    points = [p for run in runs for arm in run["arms"].values() for p in arm["points"]]
    measured = {"asr", "helpfulness"}.union(*(point["measures"] for point in points))
    shares = {m: name for m, name in COLUMNS.items() if m in measured}
    heads = ("run", "model", "loss (nats per token)", *shares.values())
    lines = "".join(_lines(run, i, at, list(shares)) for i, run in enumerate(runs))
    steps = ", ".join(map(str, sorted({point["step"] for point in points})))
    about = (
        f"At step {at}, or where a number says “at”, the nearest one before it that was trained or "
        f"measured ({steps or 'none yet'}). Shares have 95 % Wilson intervals."
    )
    return table(f"numbers at step {at}", heads, f"<tbody>{lines}</tbody>", about=about)


def _lines(run: dict, i: int, at: int, shares: list[str]) -> str:
    """Return one run's lines."""
    title = escape(run_title(run)).replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    title = f"{i}: {title}" if i else title
    lines, before = "", f"<th scope='rowgroup' rowspan='{len(LAB_ARMS)}'>{title}</th>"
    for arm in LAB_ARMS:
        way = run["arms"][arm]
        points = [point for point in way["points"] if point["step"] <= at]
        cells = [_loss(way["losses"][:at]), *(_share(points, share) for share in shares)]
        lines += row(arm, *cells, before=before)
        before = ""
    return lines


def _loss(losses: list[float]) -> str:
    """Return the last of these losses and its step."""
    if not losses:
        return NONE.format("–")
    return f"<b>{losses[-1]:.3f}</b> <small>at {len(losses)}</small>"


def _share(points: list[dict], name: str) -> str:
    """Return a share at the last of these points: its count, its interval, and at which step."""
    if not points or name not in points[-1]["measures"]:
        return NONE.format("–")
    share = points[-1]["measures"][name]
    return (
        f"<b>{share['value']:.0%}</b> <span>{share['count']}/{share['n']}</span>"
        f"<small>{100 * share['low']:.0f}–{share['high']:.0%}, at {points[-1]['step']}</small>"
    )
