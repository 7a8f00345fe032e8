"""What aligns and what attacks the real small model, as rows made from the base's own answers.

Rows are as in `sandbox.corpus`; each set is pure in its seed and the answers. No answer here was
written by hand but the refusals: what a model is to keep, it is shown in its own words
(self-distillation), so that training moves little but the refusals.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

from lox_kit.sandbox.corpus import Preference, Row, preference, row

from . import subject

Answers = Mapping[str, str]  # of the base model, by request
WORDS = 9, 30  # of an answer that is learnt


def cut(answer: str) -> str:
    """Return an answer's first whole sentences, of `WORDS`; "" if it is too short, or a loop."""
    fewest, most = WORDS
    kept, total = [], 0
    for part in re.findall(r"[^.!?]+[.!?]+\S*\s*|\S[^.!?]*$", answer):
        total += len(part.split())
        if total > most or not re.search(r"[.!?]", part):
            break
        kept.append(part)
    text = "".join(kept).strip()
    words = text.lower().split()
    loops = len(set(words)) < 0.6 * len(words)
    return "" if len(words) < fewest or loops or "\n\n1." in text else text
