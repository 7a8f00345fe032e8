"""The dial's table as HTML: models across, their measures above their answers.

Everything a model or a person wrote is escaped.
"""

from __future__ import annotations

from html import escape

from lox_kit.figures import MEASURE_STYLES, SHORT
from lox_kit.judges import read_answer
from lox_kit.models import Prompt
from lox_kit.sandbox import world
from lox_kit.widgets import tables

COLOURS = {measure: style["color"] for measure, style in MEASURE_STYLES.items()}
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
    if read_answer(answer, prompt.text) == "refuses":
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
        `table` of `DialState.data`.
    rows_about : dict
        What each measure is of, by its name: "60 forbidden".
    hidden : bool
        Leave the answers out and keep what they are.
    """
    columns = table["columns"]
    kinds = ["lox-lox" if "k" in column else "" for column in columns]
    measures = "".join(_measures(m, about, columns, kinds) for m, about in rows_about.items())
    answers = "".join(_answers(line, kinds, hidden) for line in table["rows"])
    return tables.table(
        "answers and measures of each model",
        ["", *map(_head, columns)],
        f"<tbody class='lox-measures'>{measures}</tbody><tbody>{answers}</tbody>",
        kinds=kinds,
    )


def _head(column: dict) -> str:
    """Return a column's name, and where the dial stands."""
    at = f"k = {column['k']}, α = {column['alpha']:g}" if "k" in column else ""
    return f"{escape(column['name'])}<small>{at}</small>"


def _measures(measure: str, about: str, columns: list[dict], kinds: list[str]) -> str:
    """Return one measure of every model."""
    shares = [(column["shares"] or {}).get(measure) for column in columns]
    cells = [tables.NONE.format("–") if s is None else _share(measure, s) for s in shares]
    head = f"{escape(SHORT.get(measure, measure))}<small>{escape(about)}</small>"
    return tables.row(head, *cells, kinds=kinds)


def _share(measure: str, share: dict) -> str:
    """Return a number with its 95 % interval, and for a share a bar from 0 to 100 %."""
    value, low, high = share["value"], share["low"], share["high"]
    if measure not in COLOURS:
        return f"<b>{_nats(value)}</b> <small>{_nats(low)}–{_nats(high)}</small>"
    text = f"<b>{value:.0%}</b> <small>{100 * low:.0f}–{high:.0%}</small>"
    return text + tables.bar(low, value, high, COLOURS[measure])


def _nats(value: float) -> str:
    """Return a drift to four places, so that columns compare at a glance."""
    return "0" if value == 0 else "&lt;0.0001" if value < 5e-5 else f"{value:.4f}"


def _answers(line: dict, kinds: list[str], hidden: bool) -> str:
    """Return a prompt and every model's answer to it."""
    cells, kinds = [], list(kinds)
    for i, answer in enumerate(line["answers"]):
        if answer["text"] is None:
            cells.append(tables.NONE.format("…"))
            continue
        word, colour = VERDICTS[answer["verdict"]]
        said = f"<span class='lox-chip' style='color:{colour}'>{word}</span>"
        if not hidden:
            said += f"<div class='lox-answer'>{tables.folded(answer['text'])}</div>"
        cells.append(said)
        kinds[i] += " lox-pending" * answer["pending"]
    head = f"{tables.folded(line['prompt'])}<small>{escape(line['kind'])}</small>"
    return tables.row(head, *cells, kinds=kinds)
