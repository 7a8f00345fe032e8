"""The safetensors files of a checkpoint folder: their headers, single tensors, and hashes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import re
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lox_kit.folders import cache_folder, refuse_special, write_whole

from .sums import check_header, check_schema, checked_reader

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
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
DTYPES |= {f"U{bits}": getattr(torch, f"uint{bits}") for bits in (16, 32, 64)}
if hasattr(torch, "float8_e8m0fnu"):  # torch 2.7 and later
    DTYPES["F8_E8M0"] = torch.float8_e8m0fnu
# Config and tokenizer files; those of another kind of tokenizer have a version, tokenizer.model.v3.
SETTINGS = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "tokenizer.model.*")
TEMPLATES = "additional_chat_templates/*.jinja"
_PLAIN_NAME = re.compile(r"[^/\\:\0]+\.safetensors")
# What torch.compile, DDP, FSDP and PEFT put before the names of all weights.
WRAPPED = ("_orig_mod.", "module.", "_fsdp_wrapped_module.", "base_model.model.")


class CacheUnusable(UserWarning):
    """The cache cannot be written; all is the same, but slower."""


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """What a checkpoint's header says of one tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def written(self) -> torch.dtype:
        """The dtype that the tensor has in an edited checkpoint."""
        return self.dtype

    def read(self) -> Tensor:
        """Return the tensor; see `read_tensor`."""
        return read_tensor(self)


def read_headers(folder: Path, name: str) -> dict[str, TensorInfo]:
    """Return what a checkpoint folder holds, in file order; `name` is for the messages.

    Raises
    ------
    FileNotFoundError
        If a shard or the weights are missing.
    ValueError
        If the weights are pickled, the index or a shard is damaged, they do not match, there is no
        tensor, or the names are those of a wrapped model.
    """
    shards = _shards(folder)
    tensors: dict[str, TensorInfo] = {}
    for file in _files(folder, name, shards):
        found = read_header(file)
        if twice := sorted(found.keys() & tensors.keys()):
            raise ValueError(
                f"{name}: {twice[0]} is in {tensors[twice[0]].file.name} and in {file.name}. The "
                "shards are from different saves; download or copy again."
            )
        tensors |= found
    for tensor, shard in (shards or {}).items():
        if tensor not in tensors or tensors[tensor].file.name != shard:
            raise ValueError(
                f"{name}: {INDEX} puts {tensor} into {shard}, which does not hold it. "
                "The index and the shards are from different saves; download or copy again."
            )
    if not tensors:
        raise ValueError(f"{name}: its weight files hold no tensor; download or copy them again.")
    if wrapped := next((n for n in tensors if n.startswith(WRAPPED)), None):
        raise ValueError(
            f"{name}: {wrapped} has the prefix of a model that torch.compile, DDP, FSDP or PEFT "
            "wrapped, and transformers would load none of it. Unwrap the model and save it again."
        )
    return tensors


def has_weights(folder: Path) -> bool:
    """Whether all weight files of a full checkpoint are in a folder."""
    try:
        return bool(_files(folder, str(folder), _shards(folder)))
    except (FileNotFoundError, ValueError):
        return False


def shard_names(folder: Path) -> list[str]:
    """Return the names of the weight files that a folder's index names; none if it needs none."""
    with contextlib.suppress(ValueError):
        return sorted(set((_shards(folder) or {}).values()))
    return []


def _shards(folder: Path) -> dict[str, str] | None:
    """Return which shard holds which tensor, as the index says; None if none is needed.

    As in transformers a single file comes before an index, which is of an older save then.
    """
    file = folder / INDEX
    if (folder / SINGLE).is_file() or not file.is_file():
        return None
    shards = read_object(file).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ValueError(f"{file}: has no weight_map; download or copy it again.")
    for tensor, shard in shards.items():
        if not isinstance(shard, str) or not _PLAIN_NAME.fullmatch(shard):
            raise ValueError(
                f"{file}: puts {tensor} into {shard!r}; a shard is the name of a .safetensors file "
                "in the same folder, and nothing outside of it is read."
            )
    return shards


def _files(folder: Path, name: str, shards: dict[str, str] | None) -> list[Path]:
    """Return the weight files, or say what is wrong with the folder."""
    if shards is not None:
        names = sorted(set(shards.values()))
        if gone := [n for n in names if not (folder / n).is_file()]:
            raise FileNotFoundError(
                f"{name}: {INDEX} names {len(names)} shards and {len(gone)} are missing, "
                f"first {gone[0]}. Download or copy them again."
            )
        return [folder / n for n in names]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if pickles := sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt")):
        raise ValueError(
            f"{name}: {pickles[0].name} is a pickle, which can run code when it is read. "
            'Convert it once, on a machine you can lose: python -c "from transformers import '
            f"AutoModelForCausalLM as M; M.from_pretrained('{folder}')"
            f".save_pretrained('{folder}-safetensors')\""
        )
    others = files_like(folder, ("*.safetensors", "*.gguf", "*.pth", "*.h5", "*.msgpack"))
    unread = f", and {others[0].name} is not read" if others else ""
    raise FileNotFoundError(
        f"{name}: holds neither {SINGLE} nor {INDEX}{unread}; is this the checkpoint's folder?"
    )


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Return what one safetensors file holds, in its order.

    Raises
    ------
    ValueError
        If the file is damaged or holds a dtype that torch does not have.
    """
    tensors = {}
    refuse_special(file)
    try:
        with safe_open(file, "pt") as f:
            check_header(f, file)
            for name in f.offset_keys():
                part = f.get_slice(name)
                dtype = DTYPES.get(part.get_dtype())
                if dtype is None:
                    raise ValueError(
                        f"{name} in {file}: dtype {part.get_dtype()} is not supported; "
                        f"use one of {', '.join(DTYPES)}."
                    )
                tensors[name] = TensorInfo(name, tuple(part.get_shape()), dtype, file)
    except SafetensorError as error:
        raise ValueError(
            f"{file}: not a whole safetensors file ({error}). It has {file.stat().st_size} "
            "bytes; it may be truncated or a git-lfs pointer. Download or copy it again."
        ) from error
    return tensors


def read_made(file: Path, key: str, schema: int, maker: str) -> tuple[dict[str, TensorInfo], dict]:
    """Return the tensors of a file that lox_kit made, and the JSON object in its header.

    Parameters
    ----------
    key : str
        Of the header's metadata: what the object is found under.
    schema : int
        The newest layout that is known here.
    maker : str
        What makes such files, for the message.

    Raises
    ------
    ValueError
        If it is another file, a damaged one, or one of a newer lox_kit.
    """
    tensors = read_header(file)
    with safe_open(file, "pt") as f:
        about = f.metadata() or {}
    if key not in about:
        raise ValueError(f"{file}: not a file that {maker} makes.")
    check_schema(file, about.get("schema", "0"), schema)
    return tensors, _object(about[key], f"{file}: its metadata")


def read_tensor(info: TensorInfo, index: int | None = None) -> Tensor:
    """Return one tensor, or the part of it at an index, opening its file for this one read.

    A long-lived safetensors mapping counts every page it has touched as resident memory, so a
    handle per tensor is what keeps a pass over a large checkpoint small.

    Raises
    ------
    ValueError
        If it holds NaN or infinite values, or does not match its checksum, where it has one.
    """
    with safe_open(info.file, "pt") as f:
        whole = index is None
        W = checked_reader(f, info.file)(info.name) if whole else f.get_slice(info.name)[index]
    refuse_nonfinite(W, f"{info.name} in {info.file}")
    return W


def refuse_nonfinite(W: Tensor, what: str) -> None:
    """Raise ValueError if a tensor holds NaN or infinite values; `what` it is, for the message."""
    if not W.is_floating_point() or W.numel() == 0:
        return
    wide = W if W.dtype.itemsize > 1 else W.to(torch.bfloat16)  # which holds every 8-bit value
    if bool(wide.sum().isfinite()):  # the cheapest pass; a sum of finite values may overflow
        return
    if bad := int((~wide.isfinite()).sum()):
        raise ValueError(
            f"{what}: {bad} of {W.numel()} values are NaN or infinite. Such a model answers "
            "nothing, which looks safe. Download or copy it again, or take an earlier save."
        )


def read_object(file: Path) -> dict:
    """Return the object in a JSON file.

    Raises
    ------
    ValueError
        If the file is not a JSON object.
    """
    refuse_special(file)
    return _object(file.read_bytes(), str(file))


def _object(text: str | bytes, what: str) -> dict:
    """Return the object in a JSON text; `what` it is, for the message."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what}: not valid JSON ({error}); download or copy it again.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{what}: is not a JSON object; download or copy it again.")
    return found


def files_like(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Return the files in a folder, not in those within it, that match one of these patterns."""
    wanted = tuple(patterns)
    found = (f for f in folder.iterdir() if any(fnmatchcase(f.name, p) for p in wanted))
    return sorted(f for f in found if f.is_file())


def content_hash(folder: Path) -> str:
    """Return the hash of all weights, configs and tokenizer files of a folder."""
    files = files_like(folder, ("*.safetensors", *SETTINGS)) + sorted(folder.glob(TEMPLATES))
    digest = hashlib.sha256()
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # hashing lets go of Python's lock
        for file, value in zip(files, threads.map(file_hash, files), strict=True):
            digest.update(f"{file.name} {value}\n".encode())
    return digest.hexdigest()


def file_hash(file: Path) -> str:
    """Return a file's SHA-256, remembered by path, size, inode and times of change."""
    stat = file.stat()
    known = f"{file.resolve()} {stat.st_size} {stat.st_ino} {stat.st_mtime_ns} {stat.st_ctime_ns}"
    folder = cache_folder() / "hashes"
    note = folder / hashlib.sha256(known.encode()).hexdigest()
    with contextlib.suppress(OSError, ValueError):
        text = note.read_text()
        if text == _note(known, value := text[:64]):
            return value
    value = _digest(file)
    if stat.st_size > 1 << 20:  # smaller ones are hashed faster than looked up
        try:
            write_whole(note, _note(known, value))
        except OSError as error:
            _warn_once(folder, os.strerror(error.errno) if error.errno else str(error))
    return value


def _note(known: str, value: str) -> str:
    """Return what is remembered of a file: its hash, and a hash of that, which shows damage."""
    return f"{value} {hashlib.sha256(f'{known} {value}'.encode()).hexdigest()}"


@functools.cache
def _warn_once(folder: Path, reason: str) -> None:
    """Warn that hashes cannot be remembered."""
    warnings.warn(
        f"{folder} cannot be written ({reason}): large files are hashed anew each time. Make room, "
        "or choose another folder with LOX_KIT_CACHE.",
        CacheUnusable,
        stacklevel=3,
    )


def _digest(file: Path) -> str:
    """Return a file's SHA-256."""
    with file.open("rb", buffering=0) as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
