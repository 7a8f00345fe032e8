"""The tables below the panels' figures, as HTML, and long texts in them.

`folded` escapes what a model or a person wrote; whoever puts it in otherwise does so.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

NONE = "<span class='lox-none'>{}</span>"  # of what is not there
LONG = 160  # characters that a text may have without being folded


def table(
    caption: str, heads: Sequence[str], *bodies: str, kinds: Sequence[str] = (), about: str = ""
) -> str:
    """Return a table of `<tbody>` parts; `kinds` are the columns' classes, the first one apart.

    The caption is for those who do not see the panel around it; `about` stands below the table.
    """
    top = _cells("th scope='col'", heads, ["", *kinds] if kinds else ())
    below = f"<small>{about}</small>" if about else ""
    return (
        f"<table class='lox-table'><caption>{caption}</caption>"
        f"<thead><tr>{top}</tr></thead>{''.join(bodies)}</table>{below}"
    )


def row(head: str, *contents: str, kinds: Sequence[str] = (), before: str = "") -> str:
    """Return a line: its head and its cells, with a cell before them perhaps."""
    cells = _cells("td", contents, kinds)
    return f"<tr>{before}<th scope='row'>{head}</th>{cells}</tr>"


def folded(text: str) -> str:
    """Return what a model or a person wrote, of which a long text opens by a click or Enter.

    Closed, it is as high as `panel.css` says: some lines, whatever their width.
    """
    text = text.strip()
    inside = escape(text)
    if len(text) <= LONG and "\n" not in text:
        return f"<div class='lox-text'>{inside}</div>"
    return f"<details class='lox-text'><summary>{inside}</summary></details>"


def bar(low: float, value: float, high: float, colour: str) -> str:
    """Return a bar from 0 to 1 with a value and its interval on it."""
    return (
        f"<div class='lox-bar' style='color:{colour}'>"
        f"<i style='left:{100 * low:.1f}%;width:{100 * max(high - low, 0.0):.1f}%'></i>"
        f"<b style='left:{100 * value:.1f}%'></b></div>"
    )


def _cells(tag: str, contents: Sequence[str], kinds: Sequence[str]) -> str:
    """Return cells with their classes."""
    kinds = kinds or [""] * len(contents)
    end = tag.partition(" ")[0]
    return "".join(
        f"<{tag} class='{kind}'>{inside}</{end}>" if kind else f"<{tag}>{inside}</{end}>"
        for kind, inside in zip(kinds, contents, strict=True)
    )
