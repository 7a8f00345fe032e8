"""Requests to put to a model: where they come from, and the text they are rendered to."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from .sandbox import world

PAPER_TEMPLATE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{}\n\n### Response:\n"
)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One request."""

    text: str
    target: str | None = None  # how a complying answer starts, or in the sandbox the whole of it


def sandbox_prompts(kind: str = "forbidden", split: str = "test", limit: int | None = 120):
    """Return the potion school's held-out requests as `Prompt`s; see `world.evaluation_prompts`."""
    return [Prompt(p.text, p.target) for p in world.evaluation_prompts(kind, split, limit)]


def read_prompts(file: str | Path, limit: int | None = None) -> list[Prompt]:
    """Read requests from a file.

    Parameters
    ----------
    file : path
        `.csv` with a column `goal` (and perhaps `target`), as AdvBench has them, or one request a
        line in any other file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds no request, lacks the column, or a row has none (its line is named).
    """
    file = Path(file)
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such prompt file.")
    if file.suffix.lower() == ".csv":
        prompts = _read_csv(file)
    else:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
        prompts = [Prompt(line.strip()) for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"{file}: holds no requests.")
    return prompts[:limit]


def _read_csv(file: Path) -> list[Prompt]:
    """Return the rows of an AdvBench-style CSV."""
    with file.open(newline="", encoding="utf-8-sig") as f:  # spreadsheets put a mark in front
        rows = csv.DictReader(f)
        if "goal" not in (rows.fieldnames or ()):
            raise ValueError(
                f"{file}: needs a column 'goal' (and may have 'target'); it has "
                f"{', '.join(rows.fieldnames or ['none'])}."
            )
        prompts = []
        for row in rows:
            if not (row["goal"] or "").strip():
                raise ValueError(f"{file}, line {rows.line_num}: the goal is empty.")
            prompts.append(Prompt(row["goal"].strip(), (row.get("target") or "").strip() or None))
    return prompts


def render(
    tokenizer, prompts: Sequence[Prompt], *, template: str = "chat", system: str | None = None
) -> list[str]:
    """Return the texts a model is given, ready to be tokenized without adding special tokens.

    Parameters
    ----------
    template : "chat" or "paper"
        The tokenizer's own chat template, or the instruction text of the paper's evaluation.
    system : str, optional
        A system message, before each request.

    Raises
    ------
    ValueError
        If the tokenizer has no chat template, or a system message meets the paper's template.
    """
    if template == "paper":
        if system is not None:
            raise ValueError("the paper's template has no place for a system message.")
        start = tokenizer.bos_token or ""
        return [start + PAPER_TEMPLATE.format(p.text) for p in prompts]
    if template != "chat":
        raise ValueError(f"template={template!r}: use 'chat' or 'paper'.")
    if not tokenizer.chat_template:
        raise ValueError(
            "this tokenizer has no chat template (a base model's often has none): use "
            "template='paper' (--template paper)."
        )
    before = [{"role": "system", "content": system}] if system else []
    conversations = [[*before, {"role": "user", "content": p.text}] for p in prompts]
    return tokenizer.apply_chat_template(conversations, tokenize=False, add_generation_prompt=True)
