"""What stands below the landscape: the cell looked at with its answer, and the cliffs, as HTML.

Everything a model or a person wrote is escaped.
"""

from __future__ import annotations

from html import escape

from lox_kit.figures.plotly import shown_value
from lox_kit.widgets.tables import NONE, folded, row, table


def here_html(data: dict, *, hidden: bool) -> str:
    """Return a line for the cell that is looked at, and what the model says there.

    Parameters
    ----------
    data : dict
        `LandscapeState.data`.
    hidden : bool
        Leave the answer out.
    """
    here = data["here"]
    where = f"At ({here['at'][0]:.2f}, {here['at'][1]:.2f})"
    if here["value"] is None:
        return f"<div>{where}: not measured.</div>"
    numbers = _interval(data, [here[n] for n in ("value", "low", "high")])
    line = f"<div>{where}: {escape(data['metric'])} {numbers}</div>"
    if here["prompt"] is None or hidden:
        return line
    said = folded(here["answer"] or "(nothing)")
    return f"{line}<b>{folded(here['prompt'])}</b><div class='lox-answer'>{said}</div>"


def cliffs_html(data: dict) -> str:
    """Return the table of models: their values, and the cliff on both sides along the cut."""
    lines = "".join(_line(data, found) for found in data["cliffs"])
    measured, total = data["measured"]
    threshold = shown_value(data, data["cut"]["threshold"])
    heads = ("", data["metric"], "off the plane", "from", "cliff ahead", "cliff behind")
    side = "below" if data["limits"] is None else "above"
    about = (
        "Cliff: distance along the cut's direction, in units of the plane's axes, to where the "
        f"metric goes {side} {threshold}: half way between the two places below it, which are the "
        "grid's resolution. In brackets its 95 % interval over the prompts (bootstrap). "
        f"{measured} of {total} cells are measured; where there are gaps, a nearer cliff can hide "
        "in them."
    )
    caption = "cliff distances read from the grid"
    return table(caption, list(map(escape, heads)), f"<tbody>{lines}</tbody>", about=about)


def _line(data: dict, found: dict) -> str:
    """Return one cell's or model's line."""
    value = _interval(data, found["value"]) if found["value"] else NONE.format("not measured")
    off = "" if found["distance"] is None else f"{found['distance']:.2f}"
    a, b = found["at"]
    sides = _cliff(found["ahead"]), _cliff(found["behind"])
    return row(escape(found["name"]), value, off, f"({a:.2f}, {b:.2f})", *sides)


def _cliff(cliff: dict | None) -> str:
    """Return one distance with its interval, and the places around it."""
    if cliff is None:
        return NONE.format("not measured")
    reach = f"none within {cliff['reach']:.2f}"
    if cliff["distance"] == 0:
        return f"over the cliff{_until(cliff['until'], reach)}"
    if cliff["distance"] is None:
        low = "" if cliff["low"] is None else f" [{cliff['low']:.2f}, {reach}]"
        return f"{reach}{low}"
    low, high = (reach if cliff[n] is None else f"{cliff[n]:.2f}" for n in ("low", "high"))
    around = f"<small>between {cliff['before']:.2f} and {cliff['behind']:.2f}</small>"
    return f"{cliff['distance']:.2f} [{low}, {high}]{around}"


def _until(back: dict, reach: str) -> str:
    """Return how far it is back over the cliff, with its interval."""
    if back["value"] is None:
        return "<small>all the way</small>"
    low, high = (reach if back[n] is None else f"{back[n]:.2f}" for n in ("low", "high"))
    return f" until {back['value']:.2f} [{low}, {high}]"


def _interval(data: dict, numbers: list[float]) -> str:
    """Return a value with its 95 % interval."""
    value, low, high = (shown_value(data, v) for v in numbers)
    return f"{value} [{low}, {high}]"
