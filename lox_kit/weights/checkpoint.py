"""Checkpoints by name: read one tensor at a time, know one by its content."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Collection
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from .adapter import MERGE, LoraAdapter
from .architecture import (
    Piece,
    is_embedding,
    is_head,
    same_tensors,
    stored_places,
    tied_parameters,
    unfilled_parameters,
)
from .files import (
    SETTINGS,
    TEMPLATES,
    TensorInfo,
    content_hash,
    file_hash,
    files_like,
    read_headers,
    read_object,
    read_tensor,
)
from .hub import ADAPTER_CONFIG, ADAPTER_WEIGHTS, UNREAD
from .library import skeleton
from .names import find
from .quantised import ScaledInfo, refuse_codes, with_scales

# What belongs to the weights and not to the tokenizer, which may lie in another folder.
WITH_WEIGHTS = ("config.json", "generation_config.json", "*processor_config.json", *UNREAD)
# What does not go with edited weights: records of another run, and of weights in other files.
LEFT = (
    *("attack.json", "alignment.json", "trainer_state.json", "*_results.json"),
    *("*.index.json", "quantize_config.json", "hf_quant_config.json", ADAPTER_CONFIG),
)
_LAYER = re.compile(r"\.(\d+)\.(.+)")  # the first number in a name, and the name within its layer


@dataclasses.dataclass(frozen=True)
class Part:
    """What is one by itself: a stored tensor, or one expert of a stack."""

    info: TensorInfo
    shape: tuple[int, ...]
    piece: Piece | None = None  # where it is in the tensor; None: it is the whole

    @property
    def dtype(self) -> torch.dtype:
        """As it is stored."""
        return self.info.dtype

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """Whether it can be factored: a weight in two dimensions, of floating point."""
        name = self.info.name
        expert = "expert" in name and not name.endswith(("bias", "scale"))  # DBRX names them w1
        weight = self.piece is not None or name.endswith("weight") or expert
        return weight and len(self.shape) == 2 and self.size > 0 and self.dtype.is_floating_point

    def of(self, W: Tensor) -> Tensor:
        """Return the part as a view of the stored tensor's values."""
        return self.piece.of(W) if self.piece else W


class Checkpoint:
    """A safetensors checkpoint, read lazily: a folder, or a folder with a LoRA adapter on it.

    Parameters
    ----------
    model : path or str
        A folder with `model.safetensors`, or shards and their index; a hub id, `org/name` or
        `org/name@revision`; a `sandbox/...` or `smol/...` name; the folder or hub id of a PEFT LoRA
        adapter, whose config names its base; or `BASE+ADAPTER`, see `names.find`. The base of an
        adapter is a full checkpoint.

    Attributes
    ----------
    tensors : dict of name to TensorInfo
        In file order. With an adapter, those of its base: it changes values only. Weights in 8-bit
        floats are read as float32, times their scales, which are no tensors of their own.
    base, adapter : Checkpoint and LoraAdapter, or None
        What an adapted checkpoint is made of.

    Raises
    ------
    FileNotFoundError
        If the folder, a shard or the weights are missing, or a hub id cannot be found.
    ValueError
        If the weights are pickled, codes or a wrapped model's, the index or a shard is damaged,
        they do not match, or the adapter is not plain LoRA of its base, or the base is one too.
    """

    def __init__(self, model: str | Path):
        self.name = str(model)
        base, folder = find(self.name)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{self.name}: no such folder. Give a checkpoint folder, a hub id "
                "(org/name, org/name@revision), BASE+ADAPTER, or a name such as "
                "sandbox/base, sandbox/aligned@3 or smol/aligned."
            )
        self.base = None if base is None else self._open_base(base)
        self.adapter = LoraAdapter(folder, self.base) if self.base else None
        self.path = self.base.path if self.base else folder
        if self.base:
            self.tensors: dict[str, TensorInfo] = self.base.tensors
        else:
            self.tensors = with_scales(read_headers(folder, self.name), self.config, self.name)
            refuse_codes(self.tensors, self.config, self.name)

    def _open_base(self, base: str) -> Checkpoint:
        """Open what the adapter stands on."""
        try:
            if find(base)[0] is None:
                return Checkpoint(base)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self.name}: the base of this adapter: {error} BASE+ADAPTER names another one."
            ) from error
        raise ValueError(
            f"{self.name}: the base of this adapter, {base}, is an adapter itself. {MERGE}"
        )

    def read(self, name: str) -> Tensor:
        """Return one tensor; with an adapter `W + scaling B A`, rounded once to W's dtype.

        Raises
        ------
        ValueError
            If it holds NaN or infinite values.
        """
        return self.adapter.read(name) if self.adapter else self.tensors[name].read()

    def read_part(self, name: str) -> Tensor:
        """Return one of `parts`; of a stack of experts no more is read than this one."""
        part = self.parts[name]
        info, piece = part.info, part.piece
        if piece is None:
            return self.read(info.name)
        if info.name in self.adapted or isinstance(info, ScaledInfo):
            return part.of(self.read(info.name))
        size = math.prod(info.shape[1:])
        index = piece.offset // size
        return piece._replace(offset=piece.offset - index * size).of(read_tensor(info, index))

    @cached_property
    def parts(self) -> dict[str, Part]:
        """All tensors, stacks of experts as the matrices in them; no head that is tied."""
        tensors = {n: i for n, i in self.tensors.items() if n != self.tied_copy}
        deep = {n: i.shape for n, i in tensors.items() if len(i.shape) == 3 and min(i.shape) > 1}
        within: dict[str, Piece] = {}
        if deep and self.is_known:
            try:
                within = stored_places(self.skeleton, deep)
            except ValueError:  # transformers does not know it
                if any("expert" in name for name in deep):
                    raise
        stacks = {piece.parameter for piece in within.values()}
        parts = {n: Part(info, info.shape) for n, info in tensors.items() if n not in stacks}
        return parts | {n: Part(tensors[p.parameter], p.shape, p) for n, p in within.items()}

    @cached_property
    def matrices(self) -> dict[str, Part]:
        """What can be factored: 2-D weights, and each expert of a stack of them.

        Biases, scales and other parameters in two dimensions, convolutions, and a head that is a
        copy of its tied embedding are none.
        """
        return {name: part for name, part in self.parts.items() if part.is_matrix}

    @property
    def is_known(self) -> bool:
        """Whether the config names an architecture."""
        return "model_type" in self.config

    @cached_property
    def skeleton(self):
        """The model of the config, without values; see `architecture.skeleton`."""
        return skeleton(self.path)

    def like(self, names: Collection[str]) -> Checkpoint:
        """Return this checkpoint, its parts by these names where they are the same ones.

        Two saves of one architecture may differ in names: a prefix, the head's name.
        """
        parts = self.parts
        if self.tied and (heads := [n for n in names if is_head(n) and n not in parts]):
            parts = parts | {heads[0]: parts[self.tied]}  # its head is its embedding
        if self.is_known and not parts.keys() >= set(names):
            with contextlib.suppress(ValueError):  # transformers does not know it
                new = same_tensors(self.skeleton, parts, names)
                parts = {new[name]: part for name, part in parts.items()}
        renamed = copy.copy(self)
        renamed.parts = parts
        renamed.__dict__.pop("matrices", None)
        return renamed

    @property
    def quantised(self) -> bool:
        """Whether weights are in 8-bit floats, so that an edited copy is written in bfloat16."""
        return any(isinstance(info, ScaledInfo) for info in self.tensors.values())

    def refuse_nonfinite(self, *, matrices: bool = True) -> None:
        """Raise ValueError if a tensor, or a vector, holds NaN or infinite values."""
        for name, info in self.tensors.items():
            if matrices or len(info.shape) < 2:
                self.read(name) if name in self.adapted else read_tensor(info)

    @property
    def adapted(self) -> frozenset[str]:
        """Names of the tensors that are not as their file has them, because of an adapter."""
        return self.adapter.names if self.adapter else frozenset()

    @cached_property
    def config(self) -> dict:
        """The checkpoint's `config.json`, or an empty dict."""
        file = self.path / "config.json"
        config = read_object(file) if file.is_file() else {}
        if not isinstance(config.get("text_config") or {}, dict):
            raise ValueError(f"{file}: text_config is no JSON object; download or copy it again.")
        return config

    @cached_property
    def tied(self) -> str | None:
        """Name of the embedding matrix that is the output head as well, or None."""
        untied = self.has_head or self._said_tied == {False}
        return None if untied else next(filter(is_embedding, self.tensors), None)

    @property
    def has_head(self) -> bool:
        """Whether the output head is a matrix of its own."""
        return any(is_head(name) for name in self.tensors) and not self.tied_copy

    @cached_property
    def tied_copy(self) -> str | None:
        """Name of a stored head that is a copy of the embedding it is tied to, or None.

        As transformers does it: what ties them is the config, or its class's default where the
        config says nothing, and both are loaded where their values differ.
        """
        embedding = next(filter(is_embedding, self.tensors), None)
        head = next(filter(is_head, self.tensors), None)
        said = self._said_tied
        if embedding is None or head is None or said == {False}:
            return None
        same = self.tensors[head].shape == self.tensors[embedding].shape
        if not (same and torch.equal(self.read(head), self.read(embedding))):
            return None
        with contextlib.suppress(ValueError):  # transformers does not know it: both are edited
            if said == {True} or (self.is_known and tied_parameters(self.skeleton)):
                return head
        return None

    @property
    def _said_tied(self) -> set[bool]:
        """What the config and the one within it say of a tie."""
        parts = (self.config, self.config.get("text_config") or {})
        return {bool(tie) for part in parts if (tie := part.get("tie_word_embeddings")) is not None}

    @cached_property
    def missing(self) -> list[str]:
        """Parameters that the config's model has and this checkpoint lacks, as far as is known.

        transformers is asked where the layers are not as many as the config says, or not alike.
        """
        places, layers = [_LAYER.search(name) for name in self.tensors], defaultdict(set)
        for place in filter(None, places):
            layers[place[1]].add(place[2])
        alike = all(held == next(iter(layers.values())) for held in layers.values())
        fewest = 3 if self.has_head else 2 if self._said_tied == {True} else math.inf
        counted = len(layers) == self.config.get("num_hidden_layers")
        counted = counted and places.count(None) >= fewest
        if not self.is_known or (alike and counted):
            return []
        try:
            return unfilled_parameters(self.skeleton, self.parts)
        except (ImportError, ValueError):  # transformers is not here, or does not know it
            return []

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer is: with the adapter if it was saved there, else with the base."""
        own = self.adapter.folder if self.adapter else self.path
        return own if (own / "tokenizer_config.json").exists() else self.path

    @property
    def beside(self) -> dict[str, Path]:
        """What belongs beside the weights, by its name there, which may have a folder in front.

        Configs, tokenizer, chat templates, code and licence; see `LEFT` for what stays behind.
        """
        found = _settings(self.tokenizer_folder)
        if self.tokenizer_folder != self.path:
            own = _settings(self.path)
            found |= {n: f for n, f in own.items() if _is_one(f, WITH_WEIGHTS)}
        return found

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that decides what the model says: weights, config, tokenizer."""
        if not (self.base and self.adapter):
            return content_hash(self.path)
        both = f"{self.base.fingerprint} + {content_hash(self.adapter.folder)}"
        return hashlib.sha256(both.encode()).hexdigest()

    @cached_property
    def weight_hashes(self) -> list[str]:
        """Hashes of what decides the weights, whatever the files beside them say."""
        if not (self.base and self.adapter):
            return [file_hash(f) for f in sorted({i.file for i in self.tensors.values()})]
        own = [file_hash(self.adapter.folder / f) for f in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]
        return self.base.weight_hashes + own

    def is_adapter_of(self, base: Checkpoint) -> bool:
        """Whether this is `base` and an adapter on it, so that the adapter is their delta."""
        return self.base is not None and self.base.weight_hashes == base.weight_hashes


def _settings(folder: Path) -> dict[str, Path]:
    """Return the files of a folder that edited weights need or must have beside them, by name."""
    files = files_like(folder, (*SETTINGS, *UNREAD)) + sorted(folder.glob(TEMPLATES))
    return {f.relative_to(folder).as_posix(): f for f in files if not _is_one(f, LEFT)}


def _is_one(file: Path, patterns: tuple[str, ...]) -> bool:
    """Whether a file's name is of one of these patterns."""
    return any(fnmatchcase(file.name, pattern) for pattern in patterns)
