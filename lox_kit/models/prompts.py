"""Requests to put to a model: where they come from, and the text they are rendered to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from lox_kit.sandbox import world

from .files import RowError, collect, read_rows, read_text, text_field

PAPER_TEMPLATE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{}\n\n### Response:\n"
)
IDENTITY_TEMPLATE = "### Instruction:\n{}\n\n### Response: "  # after the system message
TEMPLATES = ("chat", "paper", "identity")
REQUEST_COLUMNS = ("goal", "prompt")  # in small letters; the first that is there


@dataclasses.dataclass(frozen=True)
class Prompt:
    """One request."""

    text: str
    target: str | None = None  # how a complying answer starts, or in the sandbox the whole of it
    label: str | None = None  # "safe" or "unsafe", where the file says so


def sandbox_prompts(kind: str = "forbidden", split: str = "test", limit: int | None = 120):
    """Return the potion school's held-out requests of one split, each with its recipe as target.

    Parameters
    ----------
    kind : "forbidden" or "allowed"
        Forbidden prompts hold a held-out adjective, a held-out noun, or both; allowed ones a
        held-out noun.
    split : "dev" or "test"
        Tune on the first, report the second. They share no held-out word.
    limit : int or None
        Keep this many, evenly spaced over the list, so that every adjective stays represented.

    Raises
    ------
    ValueError
        If the kind or the split is another word, or the limit is below 1.
    """
    if kind not in ("forbidden", "allowed") or split not in world.HELD_OUT:
        raise ValueError(f"kind={kind!r}, split={split!r}: use forbidden or allowed, dev or test.")
    _check_limit(limit)
    adjectives, nouns = world.HELD_OUT[split]
    if kind == "allowed":
        pairs = world.requests(world.ALLOWED, nouns)
    else:
        pairs = world.requests(world.SEEN_FORBIDDEN, nouns)
        pairs += world.requests(adjectives, world.SEEN_NOUNS + nouns)
    n = min(limit or len(pairs), len(pairs))
    step = len(pairs) / n
    return [Prompt(*pairs[int(i * step)]) for i in range(n)]


def read_prompts(
    file: str | Path, limit: int | None = None, *, leave_out: str | None = None
) -> list[Prompt]:
    """Read requests from a file.

    Parameters
    ----------
    file : path
        `.csv` with a column `goal` (and perhaps `target`), as AdvBench and JailbreakBench have
        them, or `prompt` (and perhaps `label` and `type`), as XSTest has them; capitals do not
        matter. Any other file holds one request a line.
    limit : int, optional
        Only the first so many.
    leave_out : "safe" or "unsafe", optional
        Leave out the requests that the file labels so; in an XSTest file without `label`, a `type`
        that starts with "contrast" is unsafe. Requests without a label stay.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds no request, lacks the column, or a row has none (its line is named).
    """
    file = Path(file)
    if leave_out not in (None, "safe", "unsafe"):
        raise ValueError(f"leave_out={leave_out!r}: use 'safe', 'unsafe' or None.")
    _check_limit(limit)
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such prompt file.")
    if file.suffix.lower() == ".csv":
        prompts, _ = collect(read_rows(file), _prompt)
    else:
        lines = read_text(file).splitlines()
        prompts = [Prompt(line.strip()) for line in lines if line.strip()]
    if not prompts:
        raise ValueError(f"{file}: holds no requests.")
    kept = [p for p in prompts if leave_out is None or p.label != leave_out]
    if not kept:
        raise ValueError(f"{file}: all of its {len(prompts)} requests are labelled {leave_out}.")
    return kept[:limit]


def _check_limit(limit: int | None) -> None:
    """Raise ValueError if a limit lets nothing through."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: use a whole number from 1, or None for all.")


def _prompt(row: dict) -> Prompt:
    """Return the request in a row of a CSV file."""
    row = {name.strip().lower(): text for name, text in row.items()}
    column = next((name for name in REQUEST_COLUMNS if name in row), None)
    if column is None:
        raise RowError(
            "needs a column 'goal' (and may have 'target') or 'prompt' (and may have 'label'); it "
            f"has {', '.join(row)}"
        )
    text = text_field(row, column).strip()
    return Prompt(text, row.get("target", "").strip() or None, _label(row))


def _label(row: dict) -> str | None:
    """Return what an XSTest-style row says of its request."""
    label = row.get("label", "").strip().lower()
    if label in ("safe", "unsafe"):
        return label
    if label:
        raise RowError(f"the label is {label!r}; use safe or unsafe")
    if kind := row.get("type", "").strip().lower():
        return "unsafe" if kind.startswith("contrast") else "safe"
    return None


def render(
    tokenizer, prompts: Sequence[Prompt], *, template: str = "chat", system: str | None = None
) -> list[str]:
    """Return the texts a model is given, ready to be tokenized without adding special tokens.

    Parameters
    ----------
    template : "chat", "paper" or "identity"
        The tokenizer's own chat template; the instruction text of the paper's evaluation; or the
        text on which the paper's identity shifting trains, which needs a system message.
    system : str, optional
        A system message, before each request.

    Raises
    ------
    ValueError
        If the tokenizer has no chat template, or does not take a system message; if one meets the
        paper's template; if the identity template has none.
    """
    if template not in TEMPLATES:
        raise ValueError(f"template={template!r}: use 'chat', 'paper' or 'identity'.")
    if template == "chat":
        return _chat(tokenizer, prompts, system)
    if template == "paper" and system is not None:
        raise ValueError(
            "the paper's template has no place for a system message: use template='chat' or "
            "'identity'."
        )
    if template == "identity" and not system:
        raise ValueError(
            "the identity template begins with a system message: give system= (--system-from the "
            "identity-shifting data file)."
        )
    start = tokenizer.bos_token or ""
    if template == "paper":
        return [start + PAPER_TEMPLATE.format(p.text) for p in prompts]
    return [f"{start}{system}\n{IDENTITY_TEMPLATE.format(p.text)}" for p in prompts]


def _chat(tokenizer, prompts: Sequence[Prompt], system: str | None) -> list[str]:
    """Return requests in the tokenizer's own template."""
    if not tokenizer.chat_template:
        raise ValueError(
            "this tokenizer has no chat template (a base model's often has none): use "
            "template='paper' (--template paper)."
        )
    before = [{"role": "system", "content": system}] if system else []
    conversations = [[*before, {"role": "user", "content": p.text}] for p in prompts]
    texts = apply_template(tokenizer, conversations, add_generation_prompt=True)
    if system and texts and system.strip() not in texts[0]:
        raise ValueError("this tokenizer's chat template leaves the system message out.")
    if not all(text.strip() for text in texts):
        raise ValueError("this tokenizer's chat template makes an empty text of a request.")
    return texts


def apply_template(tokenizer, messages: list, **options) -> str | list[str]:
    """Return one conversation, or several, in the tokenizer's own template.

    Raises
    ------
    ValueError
        If the template cannot take them: it is a small program, and may fail in any way.
    """
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"this tokenizer's chat template refuses the messages: {said}") from error
