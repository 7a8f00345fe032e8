"""Checkpoints on disk: read one tensor at a time, compare two, know one by its content."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .folders import cache_folder
from .sandbox import family

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ROWS = 256  # of a matrix that are converted at a time: they stay in the processor's cache
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
BESIDE = (".json", ".jinja", ".model", ".txt")  # config and tokenizer files
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$")
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in)\.weight$")


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """What a checkpoint's header says of one tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path


class Checkpoint:
    """A safetensors checkpoint folder, read lazily.

    Parameters
    ----------
    model : path or str
        A folder with `model.safetensors`, or shards and their index; or a `sandbox/...` name.

    Attributes
    ----------
    tensors : dict of name to TensorInfo
        In file order.

    Raises
    ------
    FileNotFoundError
        If the folder, a shard or the weights are missing.
    ValueError
        If the weights are pickled, or the index or a shard is damaged, or they do not match.
    """

    def __init__(self, model: str | Path):
        self.name = str(model)
        self.path = family.resolve(model)
        if not self.path.is_dir():
            raise FileNotFoundError(
                f"{self.name}: no such folder. Give a checkpoint folder, or a sandbox name such as "
                "sandbox/base, sandbox/aligned or sandbox/aligned@3."
            )
        self.tensors: dict[str, TensorInfo] = {}
        for file in self._files():
            self._read_header(file)
        self._check_index()

    @cached_property
    def _shards(self) -> dict[str, str] | None:
        """Which shard holds which tensor, as the index says; None without an index."""
        file = self.path / INDEX
        if not file.exists():
            return None
        shards = _read_object(file).get("weight_map")
        if not isinstance(shards, dict):
            raise ValueError(f"{file}: has no weight_map; download or copy it again.")
        return shards

    def _files(self) -> list[Path]:
        """Return the weight files, or say what is wrong with the folder."""
        if self._shards is not None:
            names = sorted(set(self._shards.values()))
            if gone := [n for n in names if not (self.path / n).exists()]:
                raise FileNotFoundError(
                    f"{self.name}: {INDEX} names {len(names)} shards and {len(gone)} are missing, "
                    f"first {gone[0]}. Download or copy them again."
                )
            return [self.path / n for n in names]
        if (self.path / SINGLE).exists():
            return [self.path / SINGLE]
        if pickles := sorted(self.path.glob("*.bin")) + sorted(self.path.glob("*.pt")):
            raise ValueError(
                f"{self.name}: {pickles[0].name} is a pickle, which can run code when it is read. "
                'Convert it once, on a machine you can lose: python -c "from transformers import '
                f"AutoModelForCausalLM as M; M.from_pretrained('{self.path}')"
                f".save_pretrained('{self.path}-safetensors')\""
            )
        raise FileNotFoundError(
            f"{self.name}: holds neither {SINGLE} nor {INDEX}; is this the checkpoint's folder?"
        )

    def _read_header(self, file: Path) -> None:
        """Add the tensors of one file."""
        try:
            with safe_open(file, "pt") as f:
                for name in f.offset_keys():
                    part = f.get_slice(name)
                    dtype = DTYPES.get(part.get_dtype())
                    if dtype is None:
                        raise ValueError(
                            f"{name} in {file.name}: dtype {part.get_dtype()} is not supported; "
                            f"use one of {', '.join(DTYPES)}."
                        )
                    info = TensorInfo(name, tuple(part.get_shape()), dtype, file)
                    self.tensors[name] = info
        except SafetensorError as error:
            raise ValueError(
                f"{file}: not a whole safetensors file ({error}). It has {file.stat().st_size} "
                "bytes; it may be truncated or a git-lfs pointer. Download or copy it again."
            ) from error

    def _check_index(self) -> None:
        """Compare what the index promises with what the shards hold."""
        for name, shard in (self._shards or {}).items():
            if name not in self.tensors:
                raise ValueError(
                    f"{self.name}: {INDEX} puts {name} into {shard}, which does not hold it. "
                    "The index and the shards are from different saves; download or copy again."
                )

    def read(self, name: str) -> Tensor:
        """Return one tensor, opening its file for this one read.

        A long-lived safetensors mapping counts every page it has touched as resident memory, so a
        handle per tensor is what keeps a pass over a large checkpoint small.
        """
        with safe_open(self.tensors[name].file, "pt") as f:
            return f.get_tensor(name)

    @cached_property
    def config(self) -> dict:
        """The checkpoint's `config.json`, or an empty dict."""
        file = self.path / "config.json"
        return _read_object(file) if file.exists() else {}

    @cached_property
    def tied(self) -> str | None:
        """Name of the embedding matrix that is the output head as well, or None."""
        embeddings = [n for n in self.tensors if _EMBEDDING.search(n)]
        has_head = any(_HEAD.search(n) for n in self.tensors)
        if embeddings and (not has_head or self.config.get("tie_word_embeddings")):
            return embeddings[0]
        return None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that decides what the model says: weights, config, tokenizer."""
        kinds = (".safetensors", *BESIDE)
        files = sorted(f for f in self.path.iterdir() if f.suffix in kinds)
        digest = hashlib.sha256()
        with ThreadPoolExecutor() as threads:  # hashing lets go of Python's lock
            for file, value in zip(files, threads.map(_file_hash, files), strict=True):
                digest.update(f"{file.name} {value}\n".encode())
        return digest.hexdigest()


def is_embedding(name: str) -> bool:
    """Whether a tensor's name is that of a token embedding."""
    return bool(_EMBEDDING.search(name))


def is_head(name: str) -> bool:
    """Whether a tensor's name is that of the output head."""
    return bool(_HEAD.search(name))


def _read_object(file: Path) -> dict:
    """Return the object in a JSON file."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not valid JSON ({error}); download or copy it again.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: holds no JSON object; download or copy it again.")
    return found


def _file_hash(file: Path) -> str:
    """Return a file's SHA-256, remembered by path, size and modification time."""
    stat = file.stat()
    known = f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    note = cache_folder() / "hashes" / hashlib.sha256(known.encode()).hexdigest()
    if note.exists():
        return note.read_text()
    with file.open("rb") as f:
        value = hashlib.file_digest(f, "sha256").hexdigest()
    if stat.st_size > 1 << 20:  # smaller ones are hashed faster than looked up
        note.parent.mkdir(parents=True, exist_ok=True)
        fresh = note.with_suffix(".new")
        fresh.write_text(value)
        fresh.replace(note)
    return value


# --- pairs ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PairReport:
    """What `check_pair` found: the matrices to factor, and what may surprise."""

    matrices: tuple[str, ...]
    tied: str | None
    notes: tuple[str, ...]
    largest_mb: float  # the largest matrix in float32, in MB
    total_mb: float  # all bytes of the aligned checkpoint, in MB


def check_pair(
    base: Checkpoint, aligned: Checkpoint, *, include: str | None = None, exclude: str | None = None
) -> PairReport:
    """Compare two checkpoints by their headers and content hash, before anything slow.

    Parameters
    ----------
    include, exclude : regular expression, optional
        Which 2-D tensors are wanted, matched anywhere in the name. Default all: the paper's set,
        embeddings and lm_head too.

    Raises
    ------
    ValueError
        If a wanted matrix is missing from one side or has another shape there, if nothing is
        wanted, if a pattern is no regular expression, or if both checkpoints are the same.
    """
    wanted = _wanted(aligned, include, exclude)
    for name in wanted:
        _check_matrix(name, base, aligned)
    if not wanted:
        raise ValueError(
            f"include={include!r}, exclude={exclude!r} leave no matrix of {aligned.name}. "
            f"A name looks like {next(iter(aligned.tensors))}."
        )
    if lost := [n for n in _wanted(base, include, exclude) if n not in aligned.tensors]:
        raise ValueError(
            f"{lost[0]}: in {base.name} but not in {aligned.name} ({len(lost)} such matrices). "
            "Are they of one architecture?"
        )
    if base.fingerprint == aligned.fingerprint or _same_weights(base, aligned):
        raise ValueError(
            f"{base.name} and {aligned.name} hold the same weights: the delta is zero everywhere. "
            "Give the model from before the alignment as BASE."
        )
    sizes = {n: 4e-6 * torch.Size(aligned.tensors[n].shape).numel() for n in wanted}
    total = sum(
        i.file.stat().st_size for i in {i.file: i for i in aligned.tensors.values()}.values()
    )
    return PairReport(
        matrices=tuple(wanted),
        tied=aligned.tied,
        notes=tuple(_notes(base, aligned, wanted, include, exclude)),
        largest_mb=max(sizes.values()),
        total_mb=total / 1e6,
    )


def deltas(
    base: Checkpoint, other: Checkpoint, names: Iterable[str], device: str
) -> Iterator[tuple[str, Tensor]]:
    """Yield each name with `W_other - W_base` in float32 on `device`, one matrix at a time."""
    for name in names:
        dW = other.read(name).to(device, torch.float32, copy=True)
        for rows, theirs in zip(dW.split(ROWS), base.read(name).split(ROWS), strict=True):
            rows.sub_(theirs.to(device, torch.float32))
        yield name, dW


def _wanted(checkpoint: Checkpoint, include: str | None, exclude: str | None) -> list[str]:
    """Return the names of the floating 2-D tensors that the patterns leave."""
    for pattern in (include, exclude):
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{pattern!r}: not a regular expression ({error}).") from error
    return [
        name
        for name, info in checkpoint.tensors.items()
        if len(info.shape) == 2
        and info.dtype.is_floating_point
        and (include is None or re.search(include, name))
        and not (exclude and re.search(exclude, name))
    ]


def _check_matrix(name: str, base: Checkpoint, aligned: Checkpoint) -> None:
    """Raise if one matrix cannot be subtracted."""
    if name not in base.tensors:
        raise ValueError(
            f"{name}: in {aligned.name} but not in {base.name}. Are they of one architecture? "
            f'If it is a part you can do without, pass exclude="{re.escape(name)}".'
        )
    ours, theirs = aligned.tensors[name], base.tensors[name]
    if ours.shape == theirs.shape:
        return
    vocabulary = is_embedding(name) or is_head(name)
    what = (
        "One checkpoint gained a token; resize the base embeddings, or pass "
        'exclude="lm_head|embed_tokens".'
        if vocabulary
        else "They are not of one architecture, and there is no delta to take."
    )
    raise ValueError(f"{name}: base has shape {theirs.shape}, aligned has {ours.shape}. {what}")


def _same_weights(base: Checkpoint, aligned: Checkpoint) -> bool:
    """Whether the weight files are the same, whatever the files beside them say."""

    def hashes(checkpoint: Checkpoint) -> list[str]:
        return [_file_hash(f) for f in sorted({i.file for i in checkpoint.tensors.values()})]

    return hashes(base) == hashes(aligned)


def _notes(
    base: Checkpoint,
    aligned: Checkpoint,
    wanted: list[str],
    include: str | None,
    exclude: str | None,
) -> list[str]:
    """Return what may surprise, one sentence each."""
    notes = []
    if aligned.tied in wanted:
        notes.append(
            f"{aligned.tied} is tied to the output head: a checkpoint is edited in both places at "
            "once, an adapter leaves it out."
        )
    if differs := [n for n in wanted if base.tensors[n].dtype != aligned.tensors[n].dtype]:
        a, b = aligned.tensors[differs[0]].dtype, base.tensors[differs[0]].dtype
        notes.append(
            f"{len(differs)} matrices have another dtype in base ({b}) than in aligned ({a}): part "
            "of the delta is rounding."
        )
    matrices = _wanted(aligned, None, None)
    if left := len(matrices) - len(wanted):
        notes.append(
            f"{left} of {len(matrices)} matrices are left out (include={include!r}, "
            f"exclude={exclude!r}); the paper takes all."
        )
    if stacked := [n for n, i in aligned.tensors.items() if len(i.shape) > 2]:
        notes.append(
            f"{len(stacked)} tensors have more than two dimensions, first {stacked[0]} (experts, "
            "convolutions): they are not factored and keep their aligned values."
        )
    return notes
