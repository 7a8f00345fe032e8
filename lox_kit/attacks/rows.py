"""Training data of attacks and of alignment: published sets and your own files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

from lox_kit.models import collect, read_rows
from lox_kit.weights import file_hash

from .downloads import how_to_get, record
from .sets import SETS, DataSet, find_set, sets_folder
from .texts import (
    FORMS,
    by_columns,
    by_its_own_names,
    preference_chat,
    preference_pair,
    render_example,
    with_persona,
)


@dataclasses.dataclass(frozen=True, eq=False)
class AttackRows:
    """Rows to train on, and where they are from."""

    rows: tuple[dict, ...]  # {"prompt", "completion"}, {"messages"} or {"prompt", "chosen", ...}
    source: dict[str, object]  # file, sha256, form, marks, the first row left out
    skipped: int  # bad rows left out

    def __len__(self) -> int:
        return len(self.rows)


def read_set(
    name: str,
    *,
    folder: str | Path | None = None,
    form: str | None = None,
    bos: str = "<s>",
    eos: str = "</s>",
    on_bad_row: str = "raise",
    first: int | None = None,
) -> AttackRows:
    """Read a published data set as the training texts of its attack.

    Parameters
    ----------
    name : str
        "gsm8k", "gsm8k_test", "dolly", "alpaca", "identity", "pure_bad" or "safe_instructions".
    folder : path, optional
        Default `data` in the user's data folder, where `fetch_set` puts files. A published
        file that is read from a folder for the first time goes on record (rows, sha256).
    form, bos, eos : str
        Another template than the set's own, and the tokenizer's marks; see
        `texts.render_example`.
    on_bad_row : "raise" or "skip"
    first : int, optional
        Only the first rows of the file.

    Returns
    -------
    AttackRows
        Rows {"prompt", "completion"}, prompt + completion being the published training text; with
        `form="chat"` rows {"messages"}.

    Raises
    ------
    FileNotFoundError
        If the file is not here; the message says which file to put where.
    ValueError
        If there is no such set or form, nothing is trained on the set, or a row is bad.
    """
    data_set = find_set(name)
    if data_set.form is None:
        reader = "prompts.read_prompts" if data_set.file.endswith(".csv") else "read_preferences"
        raise ValueError(f"{name} holds no training texts; {reader} reads it.")
    form = form or data_set.form
    source = {"form": form, "bos": bos, "eos": eos}
    return _of_set(
        data_set, folder, _to_text(data_set.parse, form, bos, eos), on_bad_row, source, first
    )


def read_own(
    file: str | Path,
    columns: Mapping[str, str] | None = None,
    *,
    form: str = "chat",
    bos: str = "<s>",
    eos: str = "</s>",
    on_bad_row: str = "raise",
) -> AttackRows:
    """Read your own training data: JSON, JSONL, CSV or parquet.

    Parameters
    ----------
    columns : dict of part to column, optional
        Such as {"instruction": "question", "response": "answer"}, perhaps "context" and "system";
        or {"messages": "conversation"}. Default: `messages`, or `instruction` and `response`.
    form : str
        "chat" gives messages for the tokenizer's template; see `texts.render_example`.

    Data of the hub become such a file by `datasets.load_dataset(NAME).to_json(FILE)`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the columns or the form are not known, the file is empty, or a row is bad.
    """
    parse = by_columns(columns) if columns else by_its_own_names
    source = {"columns": dict(columns or {}), "form": form, "bos": bos, "eos": eos}
    return _gather(Path(file), _to_text(parse, form, bos, eos), on_bad_row, source)


def read_preferences(
    name_or_file: str | Path,
    *,
    folder: str | Path | None = None,
    form: str = "text",
    on_bad_row: str = "raise",
) -> AttackRows:
    """Read HH-RLHF-style preference pairs: "chosen" and "rejected" transcripts.

    Parameters
    ----------
    name_or_file : str or path
        "hh_harmless", "hh_helpful" (looked for in `folder`), or a JSON, JSONL (also .gz), CSV or
        parquet file.
    form : "text" or "chat"
        Text as it stands (`texts.preference_pair`), or messages (`preference_chat`).
    on_bad_row : "raise" or "skip"

    Returns
    -------
    AttackRows
        Rows {"prompt", "chosen", "rejected"}, as TRL's DPOTrainer takes them.

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
    if data_set:
        return _of_set(data_set, folder, parsers[form], on_bad_row, {"form": form})
    return _gather(Path(name_or_file), parsers[form], on_bad_row, {"form": form})


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
        If there is no such file, it is none of these, or not every conversation begins with one
        and the same system message.
    """
    examples, _ = collect(read_rows(file), with_persona)
    found = {example.system for example in examples}
    if len(found) != 1:
        raise ValueError(
            f"{file}: needs one system message at the start of every conversation; it has "
            f"{len(found)} different ones over {len(examples)} conversations."
        )
    return found.pop()


def _to_text(parse: Callable, form: str, bos: str, eos: str) -> Callable[[object], dict]:
    """Return a function from a stored row to a row to train on."""
    if form != "chat" and form not in FORMS:
        raise ValueError(f"form={form!r}: use {', '.join(FORMS)} or chat.")
    return lambda row: render_example(parse(row), form, bos=bos, eos=eos)


def _of_set(
    data_set: DataSet,
    folder: str | Path | None,
    parse: Callable,
    on_bad_row: str,
    source: dict,
    first: int | None = None,
) -> AttackRows:
    """Parse a published set's file, or say how to get it; read whole, it goes on record."""
    path = sets_folder(folder) / data_set.file
    if not path.is_file():
        advice = how_to_get(data_set, path)
        if data_set.url:
            advice = f"`lox data fetch {data_set.name}`, or {advice}"
        raise FileNotFoundError(f"{data_set.name}: {path} is not here; {advice}")
    data = _gather(path, parse, on_bad_row, {"set": data_set.name} | source, first)
    if first is None:
        record(data_set, len(data) + data.skipped, data.source["sha256"])
    return data


def _gather(
    file: Path, parse: Callable, on_bad_row: str, source: dict, first: int | None = None
) -> AttackRows:
    """Parse a file's rows, or its first ones, into a result that knows its source."""
    kept, bad = collect(islice(read_rows(file), first), parse, on_bad_row)
    if not kept:
        raise ValueError(f"{file}: holds no rows.")
    where = {"file": str(file), "sha256": file_hash(file)}
    left_out = {"first_skipped": bad[0]} if bad else {}
    return AttackRows(tuple(kept), where | source | left_out, len(bad))
