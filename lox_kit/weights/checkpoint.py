"""Checkpoints by name: read one tensor at a time, know one by its content."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from torch import Tensor

from .adapter import MERGE, LoraAdapter
from .files import (
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
from .hub import ADAPTER_CONFIG
from .names import find

CONFIGS = ("config.json", "generation_config.json")  # beside these: tokenizer files


class Checkpoint:
    """A safetensors checkpoint, read lazily: a folder, or a folder with a LoRA adapter on it.

    Parameters
    ----------
    model : path or str
        A folder with `model.safetensors`, or shards and their index; a hub id, `org/name` or
        `org/name@revision`; a `sandbox/...` name; the folder or hub id of a PEFT LoRA adapter,
        whose config names its base; or `BASE+ADAPTER`, see `names.find`. The base of an adapter
        is a full checkpoint.

    Attributes
    ----------
    tensors : dict of name to TensorInfo
        In file order. With an adapter, those of its base: it changes values only.
    base, adapter : Checkpoint and LoraAdapter, or None
        What an adapted checkpoint is made of.

    Raises
    ------
    FileNotFoundError
        If the folder, a shard or the weights are missing, or a hub id cannot be found.
    ValueError
        If the weights are pickled, the index or a shard is damaged, they do not match, or the
        adapter is not plain LoRA of its base, or the base is an adapter too.
    """

    def __init__(self, model: str | Path):
        self.name = str(model)
        base, folder = find(self.name)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{self.name}: no such folder. Give a checkpoint folder, a hub id "
                "(org/name, org/name@revision), BASE+ADAPTER, or a sandbox name such as "
                "sandbox/base, sandbox/aligned or sandbox/aligned@3."
            )
        self.base = None if base is None else self._open_base(base)
        self.adapter = LoraAdapter(folder, self.base) if self.base else None
        self.path = self.base.path if self.base else folder
        self.tensors: dict[str, TensorInfo] = (
            self.base.tensors if self.base else read_headers(folder, self.name)
        )

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
        return self.adapter.read(name) if self.adapter else read_tensor(self.tensors[name])

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
        return read_object(file) if file.is_file() else {}

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
        return own if (own / "tokenizer_config.json").exists() else self.path

    @property
    def beside(self) -> list[Path]:
        """Config and tokenizer files, which belong beside the weights; not their index."""
        there = sorted(self.path.iterdir())
        files = [f for f in there if f.suffix in BESIDE and f.is_file() and f.name != INDEX]
        if self.tokenizer_folder == self.path:
            return files
        words = sorted(self.tokenizer_folder.iterdir())
        return [f for f in files if f.name in CONFIGS] + [
            f for f in words if f.suffix in BESIDE and f.is_file() and f.name != ADAPTER_CONFIG
        ]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that decides what the model says: weights, config, tokenizer."""
        return self.adapter.fingerprint if self.adapter else content_hash(self.path)

    @cached_property
    def weight_hashes(self) -> list[str]:
        """Hashes of what decides the weights, whatever the files beside them say."""
        if self.adapter:
            return self.adapter.weight_hashes
        return [file_hash(f) for f in sorted({i.file for i in self.tensors.values()})]

    def is_adapter_of(self, base: Checkpoint) -> bool:
        """Whether this is `base` and an adapter on it, so that the adapter is their delta."""
        return self.base is not None and self.base.weight_hashes == base.weight_hashes
