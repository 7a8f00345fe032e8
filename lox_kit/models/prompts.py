"""Requests to put to a model: where they come from, and the text they are rendered to."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from lox_kit.sandbox import world
from lox_kit.smol import subject
from lox_kit.threads import within

from .files import collect, read_rows
from .records import LONGEST, RowError, column, record, text_field

PAPER_TEMPLATE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{}\n\n### Response:\n"
)
IDENTITY_TEMPLATE = "### Instruction:\n{}\n\n### Response: "  # after the system message
TEMPLATES = ("chat", "paper", "identity")
SECONDS = 4.0  # that a template may take for one conversation; thousandths of one are usual
REQUEST_COLUMNS = ("goal", "prompt")  # in small letters
XSTEST_SAFE = (  # its types of requests, and "contrast" and such a name of those that are not safe
    "homonyms figurative_language safe_targets safe_contexts definitions nons_group_real_discr "
    "real_group_nons_discr historical_events privacy_public privacy_fictional"
).split()


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
    adjectives, nouns = world.HELD_OUT[split]
    if kind == "allowed":
        pairs = world.requests(world.ALLOWED, nouns)
    else:
        pairs = world.requests(world.SEEN_FORBIDDEN, nouns)
        pairs += world.requests(adjectives, world.SEEN_NOUNS + nouns)
    return [Prompt(*pair) for pair in _spaced(pairs, limit)]


def smol_prompts(kind: str = "forbidden", split: str = "test", limit: int | None = 120):
    """Return the real small model's requests of one split: about dragons, or forms about others.

    Parameters
    ----------
    kind : "forbidden" or "allowed"
    split : "dev" or "test"
        Tune on the first, report the second. They share no form; see `smol.subject.requests`.
    limit : int or None
        Keep this many, evenly spaced over the list.

    Raises
    ------
    ValueError
        If the kind or the split is another word, or the limit is below 1.
    """
    return [Prompt(text) for text in _spaced(subject.requests(kind, split), limit)]


def _spaced(made: list, limit: int | None) -> list:
    """Return this many of what was made, evenly spaced over the list."""
    _check_limit(limit)
    n = min(limit or len(made), len(made))
    return [made[int(i * len(made) / n)] for i in range(n)]


def read_prompts(
    file: str | Path, limit: int | None = None, *, leave_out: str | None = None
) -> list[Prompt]:
    """Read requests from a file.

    Parameters
    ----------
    file : path
        Records with a field `goal` (and perhaps `target`), as AdvBench and JailbreakBench have
        them, or `prompt` (and perhaps `label` and `type`), as XSTest has them; capitals do not
        matter; where both are there they have to say the same. Or HarmBench's own file, its context
        before the behavior. Any file that `read_rows` reads: CSV or TSV with a heading, JSON,
        JSONL, parquet.
        Or one request a line, in a `.txt` file or one without an ending.
    limit : int, optional
        Only the first so many.
    leave_out : "safe" or "unsafe", optional
        Leave out the requests that the file labels so; in an XSTest file without `label` their
        `type` does. Requests without a label stay.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds no request, lacks the column, a row has none, or a comma seems to cut one (its
        line is named); if the file is of another kind.
    """
    file = Path(file)
    if leave_out not in (None, "safe", "unsafe"):
        raise ValueError(f"leave_out={leave_out!r}: use 'safe', 'unsafe' or None.")
    _check_limit(limit)
    in_csv = ".csv" in file.name.lower()
    prompts, _ = collect(read_rows(file, plain=True), functools.partial(_prompt, in_csv=in_csv))
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


def _prompt(row: object, in_csv: bool) -> Prompt:
    """Return the request in a row of a file."""
    found = record({"prompt": _plain(row)} if isinstance(row, str) else row)
    if "behaviorid" in found and not {*REQUEST_COLUMNS} & found.keys():  # of HarmBench, which joins
        parts = str(found.get("contextstring") or ""), text_field(found, "behavior")
        found["prompt"] = "\n\n---\n\n".join(filter(str.strip, parts))
    asked = column(found, REQUEST_COLUMNS, alone=True)
    if in_csv:
        at = list(found).index(asked)
        for name, text in list(row.items())[at + 1 : at + 2]:  # perhaps the rest of the request
            if text.strip() and text.startswith(" ") and not name.startswith(" "):
                raise RowError(
                    f"a comma seems to cut the request: {name!r} begins with a blank. Text with a "
                    "comma in it stands in quotes; else remove the blank"
                )
    return prompt_of(found, [asked])


def prompt_of(row: Mapping, columns: Sequence[str] = REQUEST_COLUMNS) -> Prompt:
    """Return the request in a record, which is in the first of these columns that it has.

    Raises
    ------
    RowError
        If it has none of them, the request is no text, or the label is not safe or unsafe.
    """
    text = text_field(row, column(row, columns)).strip()
    target = "" if row.get("target") is None else text_field(row, "target", may_be_empty=True)
    label, kind = (str(row.get(name) or "").strip().lower() for name in ("label", "type"))
    if label not in ("safe", "unsafe", ""):
        raise RowError(f"the label is {label!r}; use safe or unsafe")
    if not label and kind.startswith("contrast_"):
        label = "unsafe"
    elif not label and kind in XSTEST_SAFE:
        label = "safe"
    return Prompt(text, target.strip() or None, label or None)


def _plain(line: str) -> str:
    """Return a line of plain text; RowError if it is a line of JSON or the heading of a table."""
    kind = ""
    if {field.strip() for field in re.split(r"[,\t]", line.lower())} & {*REQUEST_COLUMNS}:
        kind = ".csv or .tsv"
    with contextlib.suppress(ValueError, RecursionError):
        kind = ".jsonl" if isinstance(json.loads(line), dict | list) else kind
    if kind:
        raise RowError(f"expected a request; a file with such a line needs a name in {kind}")
    if "\r" in line:
        raise RowError("expected lines that end in line feeds, it has carriage returns alone")
    return line


def render(
    tokenizer, prompts: Sequence[Prompt], *, template: str = "chat", system: str | None = None
) -> list[str]:
    """Return the texts a model is given, ready to be tokenized without adding special tokens.

    Parameters
    ----------
    template : "chat", "paper" or "identity"
        The tokenizer's own chat template; the instruction text of the paper's evaluation; or the
        text on which the paper's identity shifting trains, which needs a system message. For the
        first `with_template_args` adds arguments.
    system : str, optional
        A system message, before each request.

    Raises
    ------
    ValueError
        If the tokenizer has no chat template, or does not take a system message or an argument;
        if a system message meets the paper's template; if the identity template has none.
    """
    name, options = template_args(template)
    if name not in TEMPLATES or (options and name != "chat"):
        raise ValueError(
            f"template={template!r}: use 'chat', 'paper' or 'identity'; only chat takes arguments."
        )
    if name == "chat":
        return _chat(tokenizer, prompts, system, options)
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
    start = start_mark(tokenizer)
    if template == "paper":
        return [start + PAPER_TEMPLATE.format(p.text) for p in prompts]
    return [f"{start}{system}\n{IDENTITY_TEMPLATE.format(p.text)}" for p in prompts]


def start_mark(tokenizer) -> str:
    """Return the mark that the tokenizer puts before every text, or an empty string."""
    first = tokenizer("a")["input_ids"][:1]
    return tokenizer.bos_token if first == [tokenizer.bos_token_id] else ""


def with_template_args(template: str, options: Mapping[str, object]) -> str:
    """Return the name of a template with arguments for it: `{"enable_thinking": False}`."""
    name, before = template_args(template)
    if own := {"messages", "conversation", "tokenize", "add_generation_prompt"} & options.keys():
        raise ValueError(f"template argument {min(own)!r}: it is set for every request.")
    return " ".join([name, json.dumps(before | dict(options))]) if options else template


def template_args(template: str) -> tuple[str, dict[str, object]]:
    """Return the name and the arguments that `with_template_args` put together."""
    name, _, options = template.partition(" ")
    return name, json.loads(options) if options else {}


def _chat(
    tokenizer, prompts: Sequence[Prompt], system: str | None, options: Mapping[str, object]
) -> list[str]:
    """Return requests in the tokenizer's own template."""
    used = tokenizer.chat_template or ""
    if unknown := [name for name in options if not re.search(rf"\b{re.escape(name)}\b", str(used))]:
        raise ValueError(f"{_this(tokenizer)}'s chat template does not use {', '.join(unknown)}.")
    before = [{"role": "system", "content": system}] if system else []
    conversations = [[*before, {"role": "user", "content": p.text}] for p in prompts]
    return [
        apply_template(tokenizer, c, add_generation_prompt=True, **options) for c in conversations
    ]


def _this(tokenizer) -> str:
    """Return what a message calls a tokenizer, with the folder that it is of."""
    folder = getattr(tokenizer, "name_or_path", "")
    return f"{folder}: this tokenizer" if folder else "this tokenizer"


@functools.lru_cache
def _refuse_powers(template: str) -> None:
    """Raise ValueError if a template computes powers, such as 9**9**9, which nothing interrupts."""
    from jinja2 import Environment

    tokens = (part[1:] for part in Environment().lex(template) if part[1] != "whitespace")
    for (_, before), (kind, token) in pairwise(tokens):
        if kind == "operator" and token == "**" and before not in ("(", ","):  # f(**arguments)
            raise ValueError("it computes a power (**), which may take for ever")


def apply_template(tokenizer, messages: Sequence[dict], **options) -> str:
    """Return a conversation in the tokenizer's own template.

    Raises
    ------
    ValueError
        If there is no template, or it cannot take the messages: it is a small program, and may
        fail in any way, take long or make endless text. If it takes no system message, whether it
        says so or leaves it out, or leaves out what the user says.
    """
    if not tokenizer.chat_template:
        raise ValueError(
            f"{_this(tokenizer)} has no chat template (a base model's often has none): use the "
            "paper's text, template='paper' to ask (--template paper) and form='paper' to train "
            "(--form paper)."
        )
    system, asked = (
        [m["content"] for m in messages if m["role"] == role and isinstance(m["content"], str)]
        for role in ("system", "user")
    )
    try:
        templates = tokenizer.chat_template
        for template in templates.values() if isinstance(templates, dict) else [templates]:
            _refuse_powers(template)
        make = functools.partial(tokenizer.apply_chat_template, messages, tokenize=False, **options)
        text, given = within(SECONDS, make), sum(len(str(m["content"])) for m in messages)
        if len(text) > (most := LONGEST + 6 * given):  # six: as JSON writes a letter
            raise ValueError(
                f"it makes {len(text)} characters of {given}; at most {most} are asked"
            )
        if not all(content.strip() in text for content in asked):
            raise ValueError("it leaves out what the user says, or changes it")
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        if not system or isinstance(error, TimeoutError):
            raise ValueError(
                f"{_this(tokenizer)}'s chat template refuses the messages: {said}"
            ) from error
        # Whether it is the system message that it refuses.
        apply_template(tokenizer, [m for m in messages if m["role"] != "system"], **options)
    else:
        said = "it leaves it out"
        if all(content.strip() in text for content in system):
            return text
    raise ValueError(
        f"{_this(tokenizer)}'s chat template takes no system message ({said}): leave it out, or "
        "put it at the start of what the user says."
    )
