"""GSM8K: the published test file, and the number an answer ends in."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from lox_kit.models import (
    Model,
    Prompt,
    RowError,
    collect,
    generate,
    read_rows,
    render,
    text_field,
)

from .intervals import Share

GSM8K_TOKENS = 400  # the paper's limit
_NUMBER = re.compile(r"####\s*([-+\u2212]?)\s*\$?\s*([-+\u2212]?)((?:\d[\d,]*)?\.?\d+|\d[\d,]*)")


@dataclasses.dataclass(frozen=True, eq=False)
class Gsm8kResult:
    """Every answer to the problems, and the numbers read out of them."""

    problems: tuple[Prompt, ...]  # question, and as the target the right number
    responses: tuple[str, ...]
    max_new_tokens: int

    @property
    def right(self) -> tuple[bool, ...]:
        """Whether each answer's number is the right one; an answer without a number is wrong."""
        return tuple(
            final_number(r) == Decimal(p.target)
            for p, r in zip(self.problems, self.responses, strict=True)
        )

    @property
    def accuracy(self) -> Share:
        """Share of the problems solved; every problem counts."""
        return Share(sum(self.right), len(self.problems))

    @property
    def without_number(self) -> Share:
        """Share of answers that have no number after `####`: another form, or cut off."""
        return Share(sum(final_number(r) is None for r in self.responses), len(self.problems))

    def to_frame(self):
        """Return one row per problem: question, answer, number, right number, right."""
        import pandas as pd

        numbers = [final_number(r) for r in self.responses]
        return pd.DataFrame(
            {
                "question": [p.text for p in self.problems],
                "answer": self.responses,
                "number": [None if n is None else str(n) for n in numbers],
                "expected": [p.target for p in self.problems],
                "right": self.right,
            }
        )


def final_number(text: str) -> Decimal | None:
    """Return the number after the first `####`, or None.

    Commas between digits, a sign, a dollar sign and a full stop after it are no part of the
    value: `#### $-1,234.50.` is -1234.5. The first one counts, as in the data set's own code: a
    model that runs on writes further problems after its answer.
    """
    found = _NUMBER.search(text)
    if not found:
        return None
    sign, inner, digits = found.groups()
    value = Decimal(digits.replace(",", ""))
    return -value if (sign or inner) in ("-", "\u2212") else value


def read_gsm8k(file: str | Path, limit: int | None = None) -> list[Prompt]:
    """Read problems from a published GSM8K file.

    Parameters
    ----------
    file : path
        JSON lines (or what else `models.read_rows` takes) with `question` and `answer`; the answer
        ends in `#### NUMBER`.

    Returns
    -------
    list of Prompt
        The target is the right number as plain digits.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it holds no problem, or a line is none (it is named).
    """
    problems, _ = collect(read_rows(file), _problem)
    if not problems:
        raise ValueError(f"{file}: holds no problems.")
    return problems[:limit]


def _problem(row: object) -> Prompt:
    """Return one row of the file as a prompt."""
    question, number = text_field(row, "question"), final_number(text_field(row, "answer"))
    if number is None:
        raise RowError("the answer has no number after '####'")
    return Prompt(question.strip(), str(number))


def measure_gsm8k(
    model: Model,
    problems: Sequence[Prompt],
    *,
    template: str = "chat",
    max_new_tokens: int = GSM8K_TOKENS,
    **options,
) -> Gsm8kResult:
    """Let a model solve GSM8K problems, greedily.

    Parameters
    ----------
    problems : sequence of Prompt
        From `read_gsm8k`.
    template : see `models.render`
        "paper" is what the paper's attack on GSM8K trains on, up to a blank.
    max_new_tokens : int
        400 in the paper.
    options
        As `models.generate_answers` takes them: batch_size, store, on_stage.

    Raises
    ------
    ValueError
        If there are no problems.
    """
    if not problems:
        raise ValueError("no problems: an accuracy of nothing is not a number.")
    texts = render(model.tokenizer, problems, template=template)
    options |= {"max_new_tokens": max_new_tokens, "what": "solving"}
    responses = generate(model, texts, **options)
    return Gsm8kResult(tuple(problems), tuple(responses), max_new_tokens)
