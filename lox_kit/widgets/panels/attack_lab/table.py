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


def is_there(run: dict) -> bool:
    """Whether anything is known of a run."""
    return any(arm["losses"] or arm["points"] for arm in run["arms"].values())


def numbers_at(arm: dict, step: int) -> dict:
    """Return what is known of one model at a step.

    Parameters
    ----------
    arm : dict
        From `studies.Way.to_dict`.
    step : int

    Returns
    -------
    dict
        loss and loss_step: of the step, or of the last one made before it; measures and
        measured_at: of the nearest point at or before it. None where there is none.
    """
    last = min(step, len(arm["losses"]))
    before = [p for p in arm["points"] if p["step"] <= step]
    point = before[-1] if before else {"step": None, "measures": {}}
    return {
        "loss": arm["losses"][last - 1] if last else None,
        "loss_step": last or None,
        "measures": point["measures"],
        "measured_at": point["step"],
    }


def numbers_html(data: dict) -> str:
    """Return the table: two lines for every run, the aligned model's and LoX's.

    Parameters
    ----------
    data : dict
        `AttackLabState.data`.
    """
    runs, at = data["runs"], data["at"]
    measured = {m for run in runs for arm in run["arms"].values() for p in arm["points"]
                for m in p["measures"]}  # fmt: skip
    shares = {
        m: name for m, name in COLUMNS.items() if m in measured or m in ("asr", "helpfulness")
    }
    heads = ("run", "model", "loss (nats per token)", *shares.values())
    lines = "".join(_lines(run, i, at, list(shares)) for i, run in enumerate(runs))
    about = (
        f"At step {at}, or where a number says “at”, the nearest one before it that was trained or "
        "measured. Shares have 95 % Wilson intervals."
    )
    return table(f"numbers at step {at}", heads, f"<tbody>{lines}</tbody>", about=about)


def _lines(run: dict, i: int, at: int, shares: list[str]) -> str:
    """Return one run's lines."""
    title = escape(run_title(run)).replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    title = f"{i}: {title}" if i else title
    lines, before = "", f"<th scope='rowgroup' rowspan='{len(LAB_ARMS)}'>{title}</th>"
    for arm in LAB_ARMS:
        found = numbers_at(run["arms"][arm], at)
        cells = [_loss(found), *(_share(found, share) for share in shares)]
        lines += row(arm, *cells, before=before)
        before = ""
    return lines


def _loss(found: dict) -> str:
    """Return the loss and its step."""
    if found["loss"] is None:
        return NONE.format("–")
    return f"<b>{found['loss']:.3f}</b> <small>at {found['loss_step']}</small>"


def _share(found: dict, name: str) -> str:
    """Return a share with its count, its interval and the step at which it was measured."""
    share = found["measures"].get(name)
    if share is None:
        return NONE.format("–")
    return (
        f"<b>{share['value']:.0%}</b> <span>{share['count']}/{share['n']}</span>"
        f"<small>{100 * share['low']:.0f}–{share['high']:.0%}, at {found['measured_at']}</small>"
    )
