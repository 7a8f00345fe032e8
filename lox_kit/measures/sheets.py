"""Answers in files: made elsewhere, labelled by people, or written out to be labelled."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from lox_kit import __version__
from lox_kit.folders import refuse_special, write_whole
from lox_kit.judges import Verdict
from lox_kit.models import (
    RowError,
    collect,
    column,
    prompt_of,
    read_rows,
    read_text,
    record,
    text_field,
)
from lox_kit.store import content_key

from .asr_result import AsrResult

REQUEST = ("goal", "prompt", "instruction")  # columns, in small letters; the first that is there
RESPONSE = ("response", "completion", "answer", "output")  # one of them, where several differ
LABEL = ("harmful", "final_label", "label")
YES = "yes y 1 1.0 true harmful answers 1_full_compliance".split()
NO = "no n 0 0.0 false harmless refuses 2_full_refusal 3_partial_refusal".split()
PEOPLE = "people"  # the judge whose verdicts are labels


def read_result(file: str | Path, *, model: str | None = None) -> AsrResult:
    """Read a result that was saved, or answers made elsewhere, which no judge has read yet.

    Parameters
    ----------
    file : path
        What `AsrResult.save` wrote; or any file that `models.read_rows` reads (a .json that begins
        with a bracket) with goal, prompt or instruction and response, completion, answer or output
        in each row (of several that differ none is taken), and perhaps target, model, and label or
        type as XSTest has them; an input or a context is part of an instruction. The source of the
        result then says so; template and token limit are unknown.
    model : str, optional
        Who answered; default what the file says, or its name.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it holds no answers or those of several models, or a row of it is
        none (the error says which).
    """
    file = Path(file)
    refuse_special(file)
    of_rows = re.search(r"\.(?:jsonl|csv|tsv|parquet|gz)(?=\.|$)", file.name, re.IGNORECASE)
    if not of_rows and read_text(file).lstrip("\ufeff \n\r\t")[:1] != "[":
        result = AsrResult.load(file)
        source = result.source | ({"model": model} if model else {})
        return dataclasses.replace(result, source=source)
    rows = _read(file)
    names = {row["model"] for row in rows}
    if model is None and len(names) > 1:
        raise ValueError(f"{file}: answers of {len(names)} models; make a file of each.")
    return _result(file, rows, model or names.pop() or file.stem)


def read_labelled(file: str | Path, *, model: str | None = None) -> AsrResult:
    """Read answers that people labelled, as a result that `PEOPLE` have judged.

    Rows whose label is empty are left out, and counted in the source as `unlabelled`. Of several
    models and kinds of request the source has those of each row, and a hash of all of it as `data`.

    Parameters
    ----------
    file : path
        Rows as of `read_result`, with a label in harmful, final_label or label: yes, 1, true,
        harmful or answers; or no, 0, false, harmless or refuses; or XSTest's 1_full_compliance,
        2_full_refusal and 3_partial_refusal. A kind (or type) of request may stand beside it.
    model : str, optional
        Who answered, where the file does not say.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_result`; if a label is another word, or all are empty.
    """
    every = _read(file, labelled=True)
    rows = [row | {"model": row["model"] or model or ""} for row in every if row["label"]]
    if not rows:
        raise ValueError(f"{file}: none of its {len(every)} answers has a label; write yes or no.")
    said = [row["label"] in YES for row in rows]
    about = {name: [row[name] for row in rows] for name in ("model", "kind")}
    result = _result(file, rows, ", ".join(sorted({*about["model"]})) or "not said")
    texts = {"prompts": [prompt.text for prompt in result.prompts], "responses": result.responses}
    data = content_key(**texts, **about, harmful=said)
    source = result.source | {"judges": {PEOPLE: "1"}, "labelled": about, "data": data}
    source["unlabelled"] = len(every) - len(rows)
    labels = tuple(Verdict(float(yes), yes, "label", judge=PEOPLE, version="1") for yes in said)
    return dataclasses.replace(result, verdicts={PEOPLE: labels}, source=source)


def write_sheet(result: AsrResult, file: str | Path, n: int = 50, *, seed: int = 0) -> Path:
    """Write `n` answers of a result, or all, as a CSV file to label; `read_labelled` reads it.

    They are drawn simply at random, so that what is counted on them holds for the run, and without
    the verdicts, by which one would label.

    Raises
    ------
    FileExistsError
        If there is such a file: it may be half filled.
    """
    if Path(file).exists():
        raise FileExistsError(f"{file}: exists, perhaps with labels in it; choose another name.")
    rows = result.to_frame()[["prompt", "response"]]
    rows.insert(0, "harmful", "")
    rows["target"] = [prompt.target for prompt in result.prompts]
    rows["kind"] = [prompt.label for prompt in result.prompts]
    rows["model"] = result.source["model"]
    return write_whole(file, rows.sample(min(n, len(rows)), random_state=seed).to_csv(index=False))


def _read(file: str | Path, labelled: bool = False) -> list[dict]:
    """Return the answers of a file, with what the file says of each; nothing said is empty."""
    rows, _ = collect(read_rows(file), partial(_answered, labelled=labelled))
    if not rows:
        raise ValueError(f"{file}: holds no answers.")
    return rows


def _result(file: str | Path, rows: Sequence[dict], model: str) -> AsrResult:
    """Return the answers of a file as a result that nobody has judged."""
    source = {
        **dict.fromkeys(("key", "dtype", "template", "system", "max_new_tokens")),
        "model": model,
        "sandbox": False,
        "batch_sizes": [],
        "judges": {},
        "answers": f"made elsewhere, read from {Path(file).name}",
        "version": __version__,
    }
    prompts, responses = (tuple(row[name] for row in rows) for name in ("prompt", "response"))
    return AsrResult(prompts, responses, {}, source)


def _answered(row: object, labelled: bool) -> dict[str, object]:
    """Return the answer in a row of a file: prompt, response, model, kind, and people's label."""
    row = record(row)
    people = _word(row, column(row, LABEL)).lower() if labelled else ""
    if people not in (*YES, *NO, ""):
        raise RowError(f"the label is {people!r}; use one of {', '.join((*YES, *NO))}")
    kind = _word(row, "kind") or _word(row, "type")
    labels = [word for word in (_word(row, "label"), kind) if word in ("safe", "unsafe")]
    asked, more = column(row, REQUEST), _word(row, "input") or _word(row, "context")
    if asked == "instruction" and more:
        row[asked] = f"{text_field(row, asked)}\n\n{more}"
    prompt = prompt_of(row | {"label": next(iter(labels), None)}, [asked])
    return {
        "prompt": prompt,
        "response": text_field(row, column(row, RESPONSE, alone=True), may_be_empty=True),
        "model": _word(row, "model"),
        "kind": kind,
        "label": people,
    }


def _word(row: Mapping, name: str) -> str:
    """Return a field as text without blanks around it; empty where there is none."""
    value = row.get(name)
    return "" if value is None or value != value else str(value).strip()  # NaN is not itself
