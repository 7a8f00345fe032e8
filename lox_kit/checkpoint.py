"""Checkpoints by name: read one tensor at a time, compare two, know one by its content."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from .hub import ADAPTER_CONFIG
from .lora import LoraAdapter, find
from .weight_files import (
    BESIDE,
    INDEX,
    TensorInfo,
    content_hash,
    file_hash,
    is_embedding,
    is_head,
    read_headers,
    read_object,
    read_tensor,
)

ROWS = 128  # of a matrix that are converted at a time: they stay in the processor's cache
CONFIGS = ("config.json", "generation_config.json", INDEX)  # beside these: tokenizer files


class Checkpoint:
    """A safetensors checkpoint, read lazily: a folder, or a folder with a LoRA adapter on it.

    Parameters
    ----------
    model : path or str
        A folder with `model.safetensors`, or shards and their index; a hub id, `org/name` or
        `org/name@revision`; a `sandbox/...` name; the folder or hub id of a PEFT LoRA adapter,
        whose config names its base; or `BASE+ADAPTER`. What exists as a folder is that folder.

    Attributes
    ----------
    tensors : dict of name to TensorInfo
        In file order. With an adapter, those of its base: it changes values only.
    base, adapter : Checkpoint and LoraAdapter, or None
        What an adapted checkpoint is made of.

    Raises
    ------
    FileNotFoundError
        If the folder, a shard or the weights are missing, or a hub id is not to be had.
    ValueError
        If the weights are pickled, the index or a shard is damaged, they do not match, or the
        adapter is no plain LoRA of its base.
    """

    def __init__(self, model: str | Path):
        self.name = str(model)
        base, folder = find(self.name)
        self.base: Checkpoint | None = None
        self.adapter: LoraAdapter | None = None
        if base is None:
            self.path = folder
            if not self.path.is_dir():
                raise FileNotFoundError(
                    f"{self.name}: no such folder. Give a checkpoint folder, a hub id "
                    "(org/name, org/name@revision), BASE+ADAPTER, or a sandbox name such as "
                    "sandbox/base, sandbox/aligned or sandbox/aligned@3."
                )
            self.tensors: dict[str, TensorInfo] = read_headers(folder, self.name)
            return
        self.base = self._open_base(base)
        self.path, self.tensors = self.base.path, self.base.tensors
        self.adapter = LoraAdapter(folder, self.base)

    def _open_base(self, base: str) -> Checkpoint:
        """Open what the adapter stands on."""
        if base == self.name:
            raise ValueError(f"{self.name}: this adapter names itself as its base.")
        try:
            return Checkpoint(base)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self.name}: the base of this adapter: {error} BASE+ADAPTER names another one."
            ) from error

    def read(self, name: str) -> Tensor:
        """Return one tensor; with an adapter `W + scaling B A`, rounded once to W's dtype."""
        if self.adapter is None:
            return read_tensor(self.tensors[name])
        W = self.base.read(name)
        return self.adapter.add(name, W) if name in self.adapter.names else W

    @property
    def adapted(self) -> frozenset[str]:
        """Names of the tensors that are not as their file has them, because of an adapter."""
        return self.base.adapted | self.adapter.names if self.adapter else frozenset()

    @cached_property
    def config(self) -> dict:
        """The checkpoint's `config.json`, or an empty dict."""
        file = self.path / "config.json"
        return read_object(file) if file.exists() else {}

    @cached_property
    def tied(self) -> str | None:
        """Name of the embedding matrix that is the output head as well, or None."""
        embeddings = [n for n in self.tensors if is_embedding(n)]
        has_head = any(is_head(n) for n in self.tensors)
        if embeddings and (not has_head or self.config.get("tie_word_embeddings")):
            return embeddings[0]
        return None

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer is: with the adapter if it was saved there, else with the base."""
        if self.adapter is None:
            return self.path
        own = self.adapter.folder
        return own if (own / "tokenizer_config.json").exists() else self.base.tokenizer_folder

    @property
    def beside(self) -> list[Path]:
        """Config and tokenizer files, which belong beside the weights."""
        files = [f for f in sorted(self.path.iterdir()) if f.suffix in BESIDE and f.is_file()]
        if self.tokenizer_folder == self.path:
            return files
        words = sorted(self.tokenizer_folder.iterdir())
        return [f for f in files if f.name in CONFIGS] + [
            f for f in words if f.suffix in BESIDE and f.is_file() and f.name != ADAPTER_CONFIG
        ]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that decides what the model says: weights, config, tokenizer."""
        if self.adapter is None:
            return content_hash(self.path)
        both = f"{self.base.fingerprint} + {self.adapter.fingerprint}"
        return hashlib.sha256(both.encode()).hexdigest()

    @cached_property
    def weight_hashes(self) -> list[str]:
        """Hashes of what decides the weights, whatever the files beside them say."""
        if self.adapter is None:
            return [file_hash(f) for f in sorted({i.file for i in self.tensors.values()})]
        return self.base.weight_hashes + self.adapter.weight_hashes

    def is_adapter_of(self, base: Checkpoint) -> bool:
        """Whether this is `base` and an adapter on it, so that the adapter is their delta."""
        return self.base is not None and self.base.weight_hashes == base.weight_hashes


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
    if base.fingerprint == aligned.fingerprint or base.weight_hashes == aligned.weight_hashes:
        raise ValueError(
            f"{base.name} and {aligned.name} hold the same weights: the delta is zero everywhere. "
            "Give the model from before the alignment as BASE."
        )
    sizes = {n: 4e-6 * aligned.tensors[n].size for n in wanted}
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
        yield name, delta(base, other, name, device)


def delta(
    base: Checkpoint,
    other: Checkpoint,
    name: str,
    device: str,
    room: Callable[..., Tensor] = torch.empty,
) -> Tensor:
    """Return `W_other - W_base` of one tensor in float32, in memory that `room` gives."""
    ours, theirs = other.read(name), base.read(name)
    dW = room(tuple(ours.shape), dtype=torch.float32, device=torch.device(device))
    for new, W, W_base in zip(dW.split(ROWS), ours.split(ROWS), theirs.split(ROWS), strict=True):
        new.copy_(W).sub_(W_base.to(device, torch.float32))
    return dW


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
    if aligned.adapter and aligned.is_adapter_of(base):
        notes.append(
            f"{aligned.name} is a LoRA adapter of {base.name}: the delta is factored from its own "
            f"factors, and is zero in {sum(n not in aligned.adapter.names for n in wanted)} of "
            f"{len(wanted)} matrices."
        )
    elif aligned.adapter:
        notes.append(
            f"{aligned.name} is a LoRA adapter of {aligned.base.name}, whose weights are not those "
            f"of {base.name}: the delta is that of the merged weights."
        )
    return notes
