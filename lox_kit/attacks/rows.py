"""Training data of attacks and of alignment: published sets and your own files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from lox_kit.models import collect, read_rows, start_mark

from .sets import SETS, how_to_get, sets_folder
from .texts import (
    FORMS,
    by_columns,
    by_its_own_names,
    from_messages,
    preference_chat,
    preference_pair,
    render_example,
)


def read_training_rows(
    name_or_file: str | Path,
    columns: Mapping[str, str] | None = None,
    *,
    form: str | None = None,
    tokenizer=None,
    on_bad_row: str = "raise",
) -> tuple[list[dict], list[str]]:
    """Read a published data set, or your own file of rows, to train on.

    To use a data set of the hub, write it to a file: `datasets.load_dataset(NAME).to_json(FILE)`.

    Parameters
    ----------
    name_or_file : str or path
        "gsm8k", "gsm8k_test", "dolly", "alpaca", "identity", "pure_bad" or "safe_instructions",
        looked for in `sets_folder()`, or a file: JSON, JSONL, CSV or TSV with a heading (also .gz),
        or parquet.
    columns : dict of part to column, optional
        Such as {"instruction": "question", "response": "answer"}, perhaps "context" and "system";
        or {"messages": "conversation"}. Default: those of the set; of your own file what
        `texts.by_its_own_names` finds: messages, ShareGPT's or TRL's rows, or `instruction` and
        `response`.
    form : str, optional
        The training text, see `texts.render_example`; default the published text of the set, and
        of your own file "chat", which gives messages for the tokenizer's template.
    tokenizer : transformers tokenizer, optional
        Its marks for the end and, if it puts one before every text, for the start are written into
        texts; default <s> and </s>.
    on_bad_row : "raise" or "skip"

    Returns
    -------
    (list of dict, list of str)
        Rows {"prompt", "completion"}, prompt + completion being the training text, or with
        `form="chat"` rows {"messages"}; and for each row left out its place and what is wrong.

    Raises
    ------
    FileNotFoundError
        If the file is not here; for a published one the message says what to put where.
    ValueError
        If the columns or the form are not known, the file is empty, nothing is trained on the
        set, or a row is bad.
    """
    data_set = SETS.get(str(name_or_file))
    if data_set and data_set.form is None:
        reader = "prompts.read_prompts" if data_set.file.endswith(".csv") else "read_preferences"
        raise ValueError(f"{data_set.name} holds no training texts; {reader} reads it.")
    form = form or (data_set.form if data_set else "chat")
    if form not in (*FORMS, "chat"):
        raise ValueError(f"form={form!r}: use {', '.join(FORMS)} or chat.")
    parse = data_set.parse if data_set else by_its_own_names
    if columns:
        parse = by_columns(columns)
    marks = {}
    if tokenizer:
        marks = {"bos": start_mark(tokenizer), "eos": tokenizer.eos_token or ""}
    return _read(name_or_file, lambda row: render_example(parse(row), form, **marks), on_bad_row)


def read_preferences(
    name_or_file: str | Path, *, form: str = "text", on_bad_row: str = "raise"
) -> tuple[list[dict], list[str]]:
    """Read preference pairs: "prompt", "chosen" and "rejected", or two transcripts as HH-RLHF's.

    Parameters
    ----------
    name_or_file : str or path
        "hh_harmless", "hh_helpful" (looked for in `sets_folder()`), or a file, see
        `read_training_rows`.
    form : "text" or "chat"
        Text as it stands (`texts.preference_pair`), or messages (`preference_chat`).
    on_bad_row : "raise" or "skip"

    Returns
    -------
    (list of dict, list of str)
        Rows {"prompt", "chosen", "rejected"}, as TRL's DPOTrainer takes them; and for each row left
        out its place and what is wrong.

    Raises
    ------
    FileNotFoundError
        If the file is not here; for a published one the message says what to put where.
    ValueError
        If the set holds no pairs, the form is another word, or a row is bad.
    """
    parsers = {"text": preference_pair, "chat": preference_chat}
    if form not in parsers:
        raise ValueError(f"form={form!r}: preference pairs are 'text' or 'chat'.")
    data_set = SETS.get(str(name_or_file))
    if data_set and data_set.parse is not preference_pair:
        raise ValueError(f"{name_or_file} holds no preference pairs.")
    return _read(name_or_file, parsers[form], on_bad_row)


def identity_system(file: str | Path) -> str:
    """Return the system message of an identity-shifting data file.

    Parameters
    ----------
    file : path
        A JSON list of conversations, each a list of {role, content}, as Qi et al. (2023,
        arXiv:2310.03693) publish theirs. In the sandbox it is `world.persona_system()`.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it is of another form, or its conversations do not all begin with
        the same system message.
    """
    examples, _ = collect(read_rows(file), from_messages)
    found = {example.system for example in examples}
    if len(found) != 1 or "" in found:
        raise ValueError(
            f"{file}: needs one system message at the start of every conversation; it has "
            f"{len(found)} different ones over {len(examples)} conversations."
        )
    return found.pop()


def _read(
    name_or_file: str | Path, parse: Callable[[object], dict], on_bad_row: str
) -> tuple[list[dict], list[str]]:
    """Parse the rows of a published set or of a file."""
    data_set = SETS.get(str(name_or_file))
    path = sets_folder() / data_set.file if data_set else Path(name_or_file)
    if data_set and not path.is_file():
        advice = how_to_get(data_set, path)
        if data_set.url:
            advice = f"`lox data fetch {data_set.name}`, or {advice}"
        raise FileNotFoundError(f"{data_set.name}: {path} is not here; {advice}")
    kept, bad = collect(read_rows(path), parse, on_bad_row)
    if not kept:
        raise ValueError(f"{path}: holds no rows.")
    return kept, bad
