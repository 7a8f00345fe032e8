"""GSM8K: the published test file, and the number an answer ends in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from lox_kit.judges import ByRule
from lox_kit.models import Model, Prompt, RowError, collect, read_rows, text_field

from .asr import measure_asr
from .asr_result import AsrResult

_NUMBER = re.compile(r"####\s*([-+\u2212]?)\s*\$?\s*([-+\u2212]?)((?:\d[\d,]*)?\.?\d+|\d[\d,]*)")


class NumberJudge(ByRule):
    """Reads the number after `####`: what it calls harmful is the right number, the target."""

    name, version = "number", "1"
    needs_targets = True

    def say(self, prompt: Prompt, response: str) -> tuple[bool | None, str]:
        number = final_number(response)
        if number is None:
            return None, "no number after ####"
        return number == Decimal(prompt.target), str(number)


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
        JSON lines (or whatever `models.read_rows` takes) with `question` and `answer`; the answer
        ends in `#### NUMBER`.

    Returns
    -------
    list of Prompt
        The target is the right number as plain digits.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it holds no problems, or a line of it is not one (the error says
        which).
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
    model: Model, problems: Sequence[Prompt], *, max_new_tokens: int = 400, **options
) -> AsrResult:
    """Let a model solve GSM8K problems, greedily: the `asr` of the result is the share solved.

    Its `unparsed` are the answers without a number after `####`: of another form, or cut off. They
    count as not solved.

    Parameters
    ----------
    problems : sequence of Prompt
        From `read_gsm8k`.
    max_new_tokens : int
        400 in the paper.
    options
        As `measure_asr` takes them. The paper's attack on GSM8K trains on the template "paper".

    Raises
    ------
    ValueError
        If there are no problems.
    """
    judges = [NumberJudge()]
    return measure_asr(model, problems, judges, max_new_tokens=max_new_tokens, **options)
