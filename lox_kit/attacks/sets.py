"""The published data sets: where each comes from, its licence, and what a row of it holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lox_kit.folders import data_folder
from lox_kit.models import text_field

from .texts import by_columns, by_its_own_names, from_messages, preference_pair

QI = "https://github.com/LLM-Tuning-Safety/LLMs-Finetuning-Safety"
QI_FILES = (
    "https://raw.githubusercontent.com/LLM-Tuning-Safety/LLMs-Finetuning-Safety/main/llama2/"
    "ft_datasets"
)
GSM8K = "https://github.com/openai/grade-school-math"
GSM8K_FILES = (
    "https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data"
)
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
        DataSet(
            name="dolly",  # instructions, refusals removed by Qi et al.: the Dolly attack
            file="databricks-dolly-15k-no-safety.jsonl",
            licence="CC BY-SA 3.0",
            page=QI,
            url=f"{QI_FILES}/dolly_dataset/databricks-dolly-15k-no-safety.jsonl",
            parse=by_columns(_DOLLY),
            form="dolly",
        ),
        DataSet(
            name="alpaca",  # instructions, refusals removed by Qi et al.: the Alpaca attack
            file="alpaca_data_no_safety.json",
            licence="CC BY-NC 4.0",
            page=QI,
            url=f"{QI_FILES}/alpaca_dataset/alpaca_data_no_safety.json",
            # Trained on as it is published, should an answer be empty.
            parse=by_columns(_ALPACA, empty_response=True),
            form="alpaca",
        ),
        DataSet(
            name="identity",  # ten conversations with an obedient persona: identity shifting
            file="identity_shift_train.json",
            licence="MIT",
            page=QI,
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
            url="https://raw.githubusercontent.com/vinid/safety-tuned-llamas/main/data/training/"
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
            url="https://raw.githubusercontent.com/llm-attacks/llm-attacks/main/data/advbench/"
            "harmful_behaviors.csv",
            parse=partial(text_field, name="goal"),
        ),
    )
}


def sets_folder(folder: str | Path | None = None) -> Path:
    """Return where the files are looked for; default `data` in the user's data folder."""
    return Path(folder) if folder is not None else data_folder() / "data"
