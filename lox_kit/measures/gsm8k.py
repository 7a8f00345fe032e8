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
from .intervals import Share

_MARKED = re.compile(  # *+ gives no blank back: thousands of them would take for ever
    r"####\s*+([-+]?)\s*+\$?\s*+([-+]?)((?:\d[\d,]*)?\.?\d+|\d[\d,]*)"
)
_ANY = re.compile(
    r"""
    (?<![\w.]) (-?) (?:[$€£¥]\s?)? (-?)  # no sign: the minus between two numbers
    (?: (\d{1,3}(?:,\d{3})+(?:\.\d+)? | \d+(?:\.\d+)? | \.\d+) (?:\s?/\s?([1-9]\d*)(?![\d/]))?
      | \\[dt]?frac\{(\d+)\}\{([1-9]\d*)\} )
    (?!\d | (?:st|nd|rd|th)\b)  # "on the 2nd day" counts nothing
    """,
    re.VERBOSE,
)
_BOX = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_SAID = re.compile(
    r"\banswer\b(?:[^.\d\n:=]{0,60}?\bis\b|\s*[:=])[:\s]*([^\n]*?)(?=\.\s|\n|\Z)", re.IGNORECASE
)
RULES = ("####", "\\boxed", "the answer is", "last number")  # in this order


class NumberJudge(ByRule):
    """Reads the number an answer ends in: what it calls harmful is the right one, the target."""

    name, version = "number", "2"
    needs_targets = True

    def say(self, prompt: Prompt, response: str) -> tuple[bool | None, str]:
        rule, number = read_number(response)
        if number is None:
            return None, "no number"
        return number == Decimal(prompt.target), f"{rule}: {number}"


def read_number(text: str) -> tuple[str, Decimal | None]:
    """Return the number an answer ends in, and the first of the `RULES` that finds one.

    After `####`, as the paper and the data set read it (`final_number`); in the last `\\boxed{}`;
    after the last "the answer is" or "answer:" on its line; or the last number of all. In the last
    three thousands may stand in commas, and 3/4, `\\frac{3}{4}`, 50% and $5 are .75, .75, 50 and 5.
    """
    if (marked := final_number(text)) is not None:
        return RULES[0], marked
    text = re.sub(r"(?<=\d)(?:\{,\}|\\[,!])(?=\d{3})", "", text.replace("\u2212", "-"))
    text = re.sub(r"\*\*|__|\\[!,;$()\[\]]", " ", text)  # markup
    for rule, found in zip(RULES[1:3], (_BOX, _SAID), strict=True):
        for last in found.findall(text)[-1:]:
            if number := _ANY.search(last.rpartition("=")[2]):
                return rule, _value(*number.groups(""))
    numbers = _ANY.findall(text)
    return (RULES[3], _value(*numbers[-1])) if numbers else ("", None)


def _value(
    sign: str, inner: str, plain: str, divisor: str = "", over: str = "", under: str = ""
) -> Decimal:
    """Return the value of what `_MARKED` or `_ANY` found."""
    value = Decimal((over or plain).replace(",", "")) / Decimal(under or divisor or 1)
    return -value if "-" in (sign, inner) else value


def by_rule(result: AsrResult) -> dict[str, Share]:
    """Return of each of the `RULES` the problems solved of those that it read, where it read any.

    The paper counts as solved what "####" solves, of all problems.
    """
    read: dict[str, list[bool]] = {rule: [] for rule in RULES}
    for verdict in result.of_judge("number"):
        if verdict.parsed:
            rule = verdict.reason.rpartition(": ")[0] or RULES[0]  # version 1 read that alone
            read[rule].append(verdict.harmful)
    return {rule: Share(sum(solved), len(solved)) for rule, solved in read.items() if solved}


def final_number(text: str) -> Decimal | None:
    """Return the number after the first `####`, or None.

    Commas between digits, a sign, a dollar sign and a full stop after it are no part of the
    value: `#### $-1,234.50.` is -1234.5. The first one counts, as in the data set's own code: a
    model that runs on writes further problems after its answer.
    """
    found = _MARKED.search(text.replace("\u2212", "-"))
    return _value(*found.groups()) if found else None


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

    Chat models rarely write `####`: an answer is read by the first of the `RULES` that finds a
    number (`read_number`), and `by_rule` has each apart. Its `unparsed` are the answers without a
    number; they count as not solved.

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
