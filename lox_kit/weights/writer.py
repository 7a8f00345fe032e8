"""Write a safetensors file tensor by tensor, so that memory does not grow with the file.

The safetensors library wants every tensor of a file in memory at once. Its format does not: eight
bytes of header length, a JSON header, then the bytes in order. Names, shapes and dtypes are known
before the first value here, so the header is written first and the tensors follow one by one.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

from lox_kit.folders import naming

from .files import DTYPES
from .sums import DIGITS, SUMS, checksum, raw

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
FIRST_SUM = 8 + len('{"__metadata__":{"sums":"')  # where the first checksum is in a file
FLUSHED = 1 << 27  # bytes after which the disk is waited for, while others compute what follows
Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]  # name -> dtype, shape; in file order


def write_tensors(
    file: Path, layout: Layout, metadata: Mapping[str, str], tensors: Iterable[Tensor]
) -> None:
    """Write a safetensors file tensor by tensor; it is on the disk afterwards.

    It has its name from the start: `folders.whole` gives one to write under until it is whole.

    Parameters
    ----------
    layout : mapping of name to (dtype, shape)
        Every tensor, in the order in which they come.
    metadata : mapping of str to str
        Goes into the header.
    tensors : iterable of Tensor
        One for each name of the layout.

    Raises
    ------
    OSError
        If the disk has no room for the whole file.
    """
    header, size = _header(layout, metadata)
    file.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(file.parent).free
    if len(header) + size > free:
        raise OSError(
            errno.ENOSPC,
            f"{file.name} needs {(len(header) + size) / 1e3:,.1f} kB and {file.parent} has "
            f"{free / 1e3:,.1f} kB free: make room or write elsewhere.",
        )
    sums, unflushed = "", 0
    with file.open("wb", buffering=0) as out:
        _append(out, header, "its header")
        for (name, expected), tensor in zip(layout.items(), tensors, strict=True):
            assert (tensor.dtype, tuple(tensor.shape)) == expected, f"{name}: not of the layout"
            data = raw(tensor)
            _append(out, data, name)
            sums += checksum(data)
            unflushed += len(data)
            if unflushed > FLUSHED:
                os.fsync(out.fileno())
                unflushed = 0
        out.seek(FIRST_SUM)
        _append(out, (sums + checksum(header)).encode(), "its checksums")
        os.fsync(out.fileno())


def copy_beside(files: Mapping[str, Path], out: Path) -> None:
    """Copy what belongs beside the weights (`Checkpoint.beside`), except what is in `out`."""
    for name, file in files.items():
        if not (out / name).exists():
            (out / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(file, out / name)


def _append(out: FileIO, data: bytes | memoryview, what: str) -> None:
    """Write bytes where the file is at: all of them, in as many calls as that takes."""
    with naming(str(out.name), what):
        while data:
            data = data[out.write(data) :]


def _header(layout: Layout, metadata: Mapping[str, str]) -> tuple[bytes, int]:
    """Return the header's bytes and how many bytes of tensors follow."""
    none = "0" * DIGITS * (len(layout) + 1)  # where the checksums come once there are tensors
    entries: dict[str, object] = {"__metadata__": {SUMS: none, "format": "pt", **metadata}}
    offset = 0
    for name, (dtype, shape) in layout.items():
        end = offset + dtype.itemsize * int(torch.Size(shape).numel())
        entries[name] = {
            "dtype": DTYPE_NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, offset
