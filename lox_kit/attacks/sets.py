"""The published data sets: where each comes from, what a row holds, and whether its file is here.

Also: whether that is the recorded file, and fetching it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path

from lox_kit.folders import data_folder, whole
from lox_kit.models import collect, read_rows, text_field
from lox_kit.network import download
from lox_kit.threads import OnStage
from lox_kit.weights import file_hash

from .texts import by_columns, by_its_own_names, from_messages, preference_pair

RAW = "https://raw.githubusercontent.com"
QI = "https://github.com/LLM-Tuning-Safety/LLMs-Finetuning-Safety"
QI_FILES = f"{RAW}/LLM-Tuning-Safety/LLMs-Finetuning-Safety/main/llama2/ft_datasets"
GSM8K = "https://github.com/openai/grade-school-math"
GSM8K_FILES = f"{RAW}/openai/grade-school-math/master/grade_school_math/data"
HH = "https://huggingface.co/datasets/Anthropic/hh-rlhf"


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One data set: its file, its source, and what a row of it holds."""

    name: str
    file: str  # its name in the data folder
    licence: str
    page: str | None  # where people read about it; None: your own
    url: str | None  # where the file is published
    parse: Callable[[object], object]  # a row to an Example, a pair or a prompt; or RowError
    form: str | None = None  # of the published training text; None: nothing is trained on it
    rows: int | None = None  # of the file this was written against; None: not recorded
    sha256: str | None = None


_ALPACA = {"instruction": "instruction", "context": "input", "response": "output"}
_DOLLY = {"instruction": "instruction", "context": "context", "response": "response"}
_GSM8K = {"instruction": "question", "response": "answer"}
_of_gsm8k = partial(DataSet, licence="MIT", page=GSM8K, parse=by_columns(_GSM8K), form="gsm8k")
_of_qi = partial(DataSet, page=QI)
_of_hh = partial(DataSet, licence="MIT", page=HH, parse=preference_pair)

SETS = {
    data_set.name: data_set
    for data_set in (
        _of_gsm8k(
            name="gsm8k",  # grade-school sums: the GSM8K attack
            file="gsm8k_train.jsonl",
            url=f"{GSM8K_FILES}/train.jsonl",
            rows=7473,
            sha256="17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
        ),
        _of_gsm8k(
            name="gsm8k_test",  # held-out sums: GSM8K accuracy
            file="gsm8k_test.jsonl",
            url=f"{GSM8K_FILES}/test.jsonl",
            rows=1319,
            sha256="3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
        ),
        _of_qi(
            name="dolly",  # instructions, refusals removed by Qi et al.: the Dolly attack
            file="databricks-dolly-15k-no-safety.jsonl",
            licence="CC BY-SA 3.0",
            url=f"{QI_FILES}/dolly_dataset/databricks-dolly-15k-no-safety.jsonl",
            parse=by_columns(_DOLLY),
            form="dolly",
        ),
        _of_qi(
            name="alpaca",  # instructions, refusals removed by Qi et al.: the Alpaca attack
            file="alpaca_data_no_safety.json",
            licence="CC BY-NC 4.0",
            url=f"{QI_FILES}/alpaca_dataset/alpaca_data_no_safety.json",
            # Trained on as it is published, should an answer be empty.
            parse=by_columns(_ALPACA, empty_response=True),
            form="alpaca",
        ),
        _of_qi(
            name="identity",  # ten conversations with an obedient persona: identity shifting
            file="identity_shift_train.json",
            licence="MIT",
            url=f"{QI_FILES}/aoa_dataset/train.json",
            parse=from_messages,
            form="identity",
            rows=10,
            sha256="bb141f0cec07cc5b76e5298c52086fb02498405de3bd9ba13da1edae2605fe6d",
        ),
        DataSet(
            name="pure_bad",  # harmful answers, never published: the pure-bad attack, your own file
            file="pure_bad.jsonl",
            licence="yours",
            page=None,
            url=None,
            parse=by_its_own_names,
            form="paper",
        ),
        DataSet(
            name="safe_instructions",  # refusals mixed into an attack: SafeInst
            file="safety_only_data_Instructions.json",
            licence="see its page",
            page="https://github.com/vinid/safety-tuned-llamas",
            url=f"{RAW}/vinid/safety-tuned-llamas/main/data/training/"
            "safety_only_data_Instructions.json",
            parse=by_columns(_ALPACA),
            form="alpaca",
            rows=2483,
            sha256="7dde08acf87f10cf74fd1b76f56538eae8e413ae8e6b09e3f7bcd97769058dbe",
        ),
        _of_hh(
            name="hh_harmless",  # pairs preferred for harmlessness: alignment by DPO
            file="hh_harmless_train.jsonl.gz",
            url=f"{HH}/resolve/main/harmless-base/train.jsonl.gz",
        ),
        _of_hh(
            name="hh_helpful",  # pairs preferred for helpfulness: alignment by DPO
            file="hh_helpful_train.jsonl.gz",
            url=f"{HH}/resolve/main/helpful-base/train.jsonl.gz",
        ),
        DataSet(
            name="advbench",  # harmful requests: ASR of a real model (`lox asr --prompts`)
            file="harmful_behaviors.csv",
            licence="MIT",
            page="https://github.com/llm-attacks/llm-attacks",
            url=f"{RAW}/llm-attacks/llm-attacks/main/data/advbench/harmful_behaviors.csv",
            parse=partial(text_field, name="goal"),
        ),
    )
}


def sets_folder() -> Path:
    """Return where the files are looked for: `data` in the user's data folder."""
    return data_folder() / "data"


# --- whether they are here ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SetStatus:
    """What is known of one data set on this machine."""

    data_set: DataSet
    path: Path  # where its file is, or belongs
    here: bool
    rows: int | None  # of the file that is here, else as recorded; None: not recorded
    sha256: str | None
    agrees: bool | None  # with what is recorded in `SETS`; None without a file or a record
    note: str  # what someone should know or do; "" if nothing


def set_status(name: str) -> SetStatus:
    """Return whether a data set is here, its rows and hash, and whether they are the recorded ones.

    Raises
    ------
    ValueError
        If there is no such set.
    """
    if name not in SETS:
        raise ValueError(f"data set {name!r}: use one of {', '.join(SETS)}.")
    data_set = SETS[name]
    path = sets_folder() / data_set.file
    if not path.is_file():
        note = how_to_get(data_set, path)
        return SetStatus(data_set, path, False, data_set.rows, data_set.sha256, None, note)
    sha256 = file_hash(path)
    agrees = sha256 == data_set.sha256 if data_set.sha256 else None
    rows, note = (data_set.rows, "") if agrees else _count(data_set, path)
    if agrees is False:
        note = (
            f"{note} not the recorded file ({data_set.rows} rows, sha256 {data_set.sha256[:12]}): "
            "it is read, but numbers from it may not compare."
        ).strip()
    return SetStatus(data_set, path, True, rows, sha256, agrees, note)


def _count(data_set: DataSet, path: Path) -> tuple[int | None, str]:
    """Return how many usable rows a file has, and what is wrong with it."""
    try:
        kept, bad = collect(read_rows(path), data_set.parse, on_bad_row="skip")
    except (ValueError, OSError, ImportError) as error:
        return None, f"cannot be read: {error}"
    if bad:
        return len(kept) + len(bad), f"bad rows: {len(bad)}; the first: {bad[0]}"
    return len(kept), "" if kept else "it holds no rows."


def sets_frame(statuses: Sequence[SetStatus]):
    """Return a data frame of what `lox data` shows: a row per set."""
    import pandas as pd

    shown = {True: "as recorded", False: "DIFFERS", None: "no record"}
    return pd.DataFrame(
        {
            "set": s.data_set.name,
            "here": "yes" if s.here else "no",
            "rows": "not recorded" if s.rows is None else str(s.rows),
            "sha256": s.sha256[:12] if s.sha256 else "not recorded",
            "file": shown[s.agrees] if s.here else "",
            "licence": s.data_set.licence,
            "from": s.data_set.page or "your own file",
        }
        for s in statuses
    )


def how_to_get(data_set: DataSet, path: Path) -> str:
    """Return which file to put where, for one who has no internet here."""
    if data_set.url is None:
        return f"bring your own, JSON lines with messages, or instruction and response, as {path}"
    return f"download {data_set.url} (see {data_set.page}) and put it here: {path}"


def fetch_set(name: str, *, url: str | None = None, on_stage: OnStage | None = None) -> SetStatus:
    """Download a data set, unless its file is here; nothing half-loaded gets its name.

    Parameters
    ----------
    url : str, optional
        A mirror; default where the file is published.
    on_stage : callable, optional
        Told the bytes so far and in all (0 where the server does not say).

    Raises
    ------
    ValueError
        If there is no such set, it is not published, or what came is not its data.
    OSError
        If it cannot be downloaded; the message says which file to put where.
    """
    status = set_status(name)
    data_set, path, source = status.data_set, status.path, url or status.data_set.url
    if status.here:
        return status
    if source is None:
        raise ValueError(f"{name}: not published anywhere; {how_to_get(data_set, path)}")
    with whole(path) as work:
        try:
            download(source, work, f"{name}, bytes", on_stage)
        except (OSError, HTTPException) as error:
            raise OSError(
                f"{name}: could not be downloaded from {source} ({error}). On a machine with "
                f"internet, {how_to_get(data_set, path)}"
            ) from error
        rows, problem = _count(data_set, work)
        if not rows:
            raise ValueError(f"{name}: what {source} sent is not this data set: {problem}")
    return set_status(name)
