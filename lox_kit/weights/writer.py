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
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .files import DTYPES
from .sums import DIGITS, SUMS, checksum, raw

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
FIRST_SUM = 8 + len('{"__metadata__":{"sums":"')  # where the first checksum is in a file
FLUSHED = 1 << 27  # bytes after which the disk is waited for, while others compute what follows
Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]  # name -> dtype, shape; in file order


class SafetensorsStream:
    """A safetensors file that is written tensor by tensor, and is on the disk when it is closed.

    It has its name from the start: `folders.whole` gives one to write under until it is whole.

    Parameters
    ----------
    path : path
    layout : mapping of name to (dtype, shape)
        Every tensor, in the order in which they will be written.
    metadata : mapping of str to str
        Goes into the header.

    Raises
    ------
    OSError
        If the disk has no room for the whole file.
    """

    def __init__(self, path: Path, layout: Layout, metadata: Mapping[str, str]):
        self._path = path
        self._layout = dict(layout)
        self._sums: list[str] = []  # of the tensors written so far
        header, size = _header(self._layout, metadata)
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if len(header) + size > free:
            raise OSError(
                errno.ENOSPC,
                f"{path.name} needs {(len(header) + size) / 1e3:,.1f} kB and {path.parent} has "
                f"{free / 1e3:,.1f} kB free: make room or write elsewhere.",
            )
        self._file = path.open("wb", buffering=0)
        self._unflushed = 0
        self._append(header)

    def write(self, name: str, tensor: Tensor) -> None:
        """Append one tensor; it must be the next one of the layout.

        Raises
        ------
        ValueError
            If it is not the next one, or has another dtype or shape than the layout says.
        """
        expected = next(iter(self._layout), "nothing")
        if name != expected:
            raise ValueError(f"{self._path.name}: {name} was written where {expected} belongs.")
        dtype, shape = self._layout[name]
        if tensor.dtype != dtype or tuple(tensor.shape) != tuple(shape):
            raise ValueError(
                f"{name}: the layout says {dtype} {tuple(shape)}, "
                f"the tensor is {tensor.dtype} {tuple(tensor.shape)}."
            )
        data = raw(tensor)
        try:
            self._append(data)
        except OSError as error:
            raise OSError(
                error.errno, f"{self._path}: writing {name} failed ({error.strerror})."
            ) from error
        self._sums.append(checksum(data))
        del self._layout[name]

    def _append(self, data: bytes | memoryview) -> None:
        """Write bytes where the file is at, and now and then wait until the disk has them."""
        self._unflushed += len(data)
        while data:
            data = data[self._file.write(data) :]
        if self._unflushed > FLUSHED:
            os.fsync(self._file.fileno())
            self._unflushed = 0

    def __enter__(self) -> SafetensorsStream:
        return self

    def __exit__(self, kind, value, traceback) -> None:
        with self._file:
            if kind is not None:
                return
            if self._layout:
                raise ValueError(f"{self._path.name}: {len(self._layout)} tensors are missing.")
            self._file.seek(FIRST_SUM)
            self._append("".join(self._sums).encode())
            os.fsync(self._file.fileno())


def _header(layout: Layout, metadata: Mapping[str, str]) -> tuple[bytes, int]:
    """Return the header's bytes and how many bytes of tensors follow."""
    none = "0" * DIGITS * len(layout)  # where the checksums come once there are tensors
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
