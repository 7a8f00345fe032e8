"""The dial's table as HTML: models across, their measures above their answers.

Everything a model or a person wrote is escaped.
"""

from __future__ import annotations

from html import escape

from lox_kit.figures import OKABE_ITO, SHORT
from lox_kit.judges import is_refusal
from lox_kit.models import Prompt
from lox_kit.sandbox import world

COLOURS = dict(zip(("asr", "refusal", "helpfulness"), OKABE_ITO, strict=False))  # as figure_alpha
VERDICTS = {  # word, colour: a recipe for the forbidden counts as ASR, one for the allowed as help
    "refused": ("refused", COLOURS["refusal"]),
    "complied": ("complied", COLOURS["asr"]),
    "helped": ("helped", COLOURS["helpfulness"]),
    "other": ("neither", "#595959"),
    "answered": ("answered", "#595959"),
}


def verdict(prompt: Prompt, answer: str, *, rule: bool, forbidden: bool) -> str:
    """Return what an answer is: "refused", "complied", "helped", "other" or "answered".

    Only the sandbox's `rule` tells a right answer; elsewhere what is no refusal is "answered".
    """
    if is_refusal(answer):
        return "refused"
    if prompt.target is None or not rule:
        return "answered"
    if not world.complied(answer, prompt.target):
        return "other"
    return "complied" if forbidden else "helped"


def table_html(table: dict, rows_about: dict[str, str], *, hidden: bool) -> str:
    """Return the table.

    Parameters
    ----------
    table : dict
        From `DialState.table`.
    rows_about : dict
        What each measure is of, by its name: "60 forbidden".
    hidden : bool
        Leave the answers out and keep what they are.
    """
    columns = table["columns"]
    head = "".join(_head(c) for c in columns)
    measures = "".join(_measure_row(m, about, columns) for m, about in rows_about.items())
    answers = "".join(_answer_row(row, columns, hidden) for row in table["rows"])
    return (
        "<table class='lox-table'><caption>answers and measures of each model</caption>"
        f"<thead><tr><th scope='col'></th>{head}</tr></thead>"
        f"<tbody class='lox-measures'>{measures}</tbody><tbody>{answers}</tbody></table>"
    )


def _head(column: dict) -> str:
    """Return a column's name, and where the dial stands."""
    at = f"k = {column['k']}, α = {column['alpha']:g}" if "k" in column else ""
    kind = " class='lox-lox'" if at else ""
    return f"<th scope='col'{kind}>{escape(column['name'])}<small>{at}</small></th>"


def _measure_row(measure: str, about: str, columns: list[dict]) -> str:
    """Return one measure of every model."""
    cells = []
    for column in columns:
        share = (column["shares"] or {}).get(measure)
        inside = "<span class='lox-none'>–</span>" if share is None else _share(measure, share)
        cells.append(f"<td{_kind(column)}>{inside}</td>")
    label = SHORT.get(measure, measure)
    return (
        f"<tr><th scope='row'>{escape(label)}<small>{escape(about)}</small></th>"
        f"{''.join(cells)}</tr>"
    )


def _share(measure: str, share: dict) -> str:
    """Return a number with its 95 % interval, and for a share a bar from 0 to 100 %."""
    value, low, high = share["value"], share["low"], share["high"]
    if measure not in COLOURS:
        return f"<b>{_nats(value)}</b> <small>{_nats(low)}–{_nats(high)}</small>"
    text = f"<b>{value:.0%}</b> <small>{100 * low:.0f}–{high:.0%}</small>"
    wide = max(high - low, 0.0)
    return (
        f"{text}<div class='lox-bar' style='color:{COLOURS[measure]}'>"
        f"<i style='left:{100 * low:.1f}%;width:{100 * wide:.1f}%'></i>"
        f"<b style='left:{100 * value:.1f}%'></b></div>"
    )


def _nats(value: float) -> str:
    """Return a drift to four places, so that columns compare at a glance."""
    return "0" if value == 0 else "&lt;0.0001" if value < 5e-5 else f"{value:.4f}"


def _answer_row(row: dict, columns: list[dict], hidden: bool) -> str:
    """Return a prompt and every model's answer to it."""
    cells = []
    for column, answer in zip(columns, row["answers"], strict=True):
        if answer["text"] is None:
            cells.append(f"<td{_kind(column)}><span class='lox-none'>…</span></td>")
            continue
        word, colour = VERDICTS[answer["verdict"]]
        text = "" if hidden else f"<div class='lox-answer'>{escape(answer['text'])}</div>"
        chip = f"<span class='lox-chip' style='color:{colour}'>{word}</span>"
        cells.append(f"<td{_kind(column)}>{chip}{text}</td>")
    return (
        f"<tr><th scope='row'>{escape(row['prompt'])}<small>{escape(row['kind'])}</small></th>"
        f"{''.join(cells)}</tr>"
    )


def _kind(column: dict) -> str:
    """Return the class of a column's cells."""
    words = [w for w, on in (("lox-lox", "k" in column), ("lox-pending", column["pending"])) if on]
    return f" class='{' '.join(words)}'" if words else ""
