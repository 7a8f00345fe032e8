"""Texts from outside as they may be shown to people - names, prompts, errors - and numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

# What moves the cursor, colours, hides, or turns the order of letters around: control characters,
# bidirectional marks, invisible tags, halves of characters. Newline and tab stay.
_UNSEEN = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def clean(text: object) -> str:
    """Return a text with everything that would act on a terminal written out, such as `\\x1b`."""
    return _UNSEEN.sub(lambda c: c[0].encode("unicode_escape").decode(), str(text))


def one_line(text: object) -> str:
    """Return a cleaned text on one line."""
    return clean(re.sub(r"(?<![ \t\r])[ \t\r]*\n[ \t]*", " ", str(text).strip("\r\n")))


def map_texts(function: Callable[[str], str], data):
    """Return plain data with the function applied to every text in it, keys as well."""
    if isinstance(data, str):
        return function(data)
    if isinstance(data, Mapping):
        return {map_texts(function, k): map_texts(function, v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [map_texts(function, x) for x in data]
    return data


def plain_numbers(values):
    """Return a number, or an array's as nested lists, as plain data: six digits, None for NaN."""
    if isinstance(values, (list, tuple)) or getattr(values, "ndim", 0):
        return [plain_numbers(v) for v in values]
    return None if math.isnan(values) else float(f"{values:.6g}")


def whole_sentences(answer: str, fewest: int, most: int) -> str:
    """Return an answer's first whole sentences, `fewest` to `most` words of its first paragraph.

    "" if there are none, or the same few words come again and again.
    """
    text = answer.strip().partition("\n\n")[0]
    while len(text.split()) > most or not text.endswith((".", "!", "?")):
        text = text.rstrip(".!? ")
        text = text[: max(text.rfind(mark) for mark in ".!?") + 1]
        if not text:
            return ""
    words = text.lower().split()
    loops = len(set(words)) < 0.6 * len(words)
    return "" if len(words) < fewest or loops else text


def p_text(p: float) -> str:
    """Return a p-value in words; one of 0 is below what a number of 64 bits holds."""
    return f"p = {p:.2g}" if p else "p < 1e-300"
