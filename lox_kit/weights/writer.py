"""Write a safetensors file tensor by tensor, so that memory does not grow with the file.

The safetensors library wants every tensor of a file in memory at once. Its format does not: eight
bytes of header length, a JSON header, then the bytes in order. Names, shapes and dtypes are known
before the first value here, so the header is written first and the tensors follow one by one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from .direct_file import DirectFile
from .files import DTYPES
from .sums import DIGITS, SUMS, checksum, raw

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
FIRST_SUM = 8 + len('{"__metadata__":{"sums":"')  # where the first checksum is in a file
Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]  # name -> dtype, shape; in file order


class SafetensorsStream:
    """A safetensors file that is written tensor by tensor and appears only when it is whole.

    Until then it is `.NAME.partial`. A partial file with the same header, left by a run that was
    killed, is resumed after its last tensor that is whole, which its checksum (`sums`) tells:
    `missing` lists what is still to be written. Only one stream at a time may write a file; who
    opens it sees to that (`folders.locked`).

    Parameters
    ----------
    path : path
        The final name.
    layout : mapping of name to (dtype, shape)
        Every tensor, in the order in which they will be written.
    metadata : mapping of str to str
        Goes into the header. It must say what determines the values (sources, options): a partial
        file is resumed only if its header is the same to the byte.
    group : int
        Tensors that belong together: of a partial file whole groups are kept.

    Raises
    ------
    OSError
        If the disk has not room for the whole file.
    """

    def __init__(
        self, path: str | Path, layout: Layout, metadata: Mapping[str, str], *, group: int = 1
    ):
        self.path = Path(path)
        self.partial = partial_name(self.path)
        self._sums = self.path.with_name(f".{self.path.name}.sums")  # of the tensors written so far
        self._layout = dict(layout)
        header, self._ends = _header(self._layout, metadata)
        size = len(header) + (list(self._ends.values())[-1] if self._ends else 0)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = _whole_tensors(self.partial, self._sums, header, self._ends)
        whole = dict(list(whole.items())[: len(whole) // group * group])
        position = len(header) + max((self._ends[name] for name in whole), default=0)
        kept = position if whole else 0
        free = shutil.disk_usage(self.path.parent).free
        if size - kept > free:
            raise OSError(
                errno.ENOSPC,
                f"{self.path} needs {(size - kept) / 1e3:,.1f} kB and {self.path.parent} has "
                f"{free / 1e3:,.1f} kB free: make room or write elsewhere.",
            )
        self.missing = list(self._layout)[len(whole) :]
        if not whole:
            self.partial.write_bytes(header)
        self._sums.write_text("".join(whole.values()))
        self._file = DirectFile(self.partial, position)

    def write(self, name: str, tensor: Tensor) -> None:
        """Append one tensor; it must be the next one `missing`.

        Raises
        ------
        ValueError
            If it is not the next one, or has another dtype or shape than the layout says.
        """
        expected = self.missing[0] if self.missing else "nothing"
        if name != expected:
            raise ValueError(f"{self.path.name}: {name} was written where {expected} belongs.")
        dtype, shape = self._layout[name]
        if tensor.dtype != dtype or tuple(tensor.shape) != tuple(shape):
            raise ValueError(
                f"{name}: the layout says {dtype} {tuple(shape)}, "
                f"the tensor is {tensor.dtype} {tuple(tensor.shape)}."
            )
        data = raw(tensor)
        try:
            self._file.write(data)  # at once: a killed run loses no whole tensor
            with self._sums.open("a") as sums:  # in the header it would be one more write to disk
                sums.write(checksum(data))
        except OSError as error:
            raise OSError(
                error.errno,
                f"{self.partial}: writing {name} failed ({error.strerror}). What was written is "
                "kept; run the same call again to go on from there.",
            ) from error
        self.missing.pop(0)

    def close(self) -> Path:
        """Give the finished file its name.

        Raises
        ------
        ValueError
            If tensors are still missing.
        """
        if self.missing:
            raise ValueError(f"{self.path.name}: {len(self.missing)} tensors were not written.")
        self._file.patch(FIRST_SUM, self._sums.read_bytes())
        self._file.sync()
        self._file.close()
        os.replace(self.partial, self.path)
        self._sums.unlink()
        return self.path

    def __enter__(self) -> SafetensorsStream:
        return self

    def __exit__(self, kind, value, traceback) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(OSError):  # of a full disk, which `write` has reported
            self._file.close()  # the partial file stays, to be resumed


class ShardedStream:
    """The shards of a checkpoint as one stream: what is whole is there, `missing` is the rest.

    A shard is flushed to the disk and given its name by a thread, while the next one is written.

    Parameters
    ----------
    folder : path
    layouts : mapping of file name to Layout
        The shards, in the order in which they will be written.
    metadata : mapping of str to str
        Of every shard; see `SafetensorsStream`.
    """

    def __init__(self, folder: Path, layouts: Mapping[str, Layout], metadata: Mapping[str, str]):
        for name in layouts:
            if (folder / name).exists():  # its checksums are looked at like those of the others
                os.replace(folder / name, partial_name(folder / name))
        self._open = [SafetensorsStream(folder / n, x, metadata) for n, x in layouts.items()]
        self.missing = [name for shard in self._open for name in shard.missing]
        self._thread = ThreadPoolExecutor(1)
        self._closing: list[Future] = []

    def write(self, name: str, tensor: Tensor) -> None:
        """Append one tensor; it must be the next one `missing`."""
        while self._open and not self._open[0].missing:  # left whole, without its name
            self._finish()
        if not self._open:
            raise ValueError(f"{name} was written where nothing belongs.")
        self._open[0].write(name, tensor)
        self.missing.pop(0)
        if not self._open[0].missing:
            self._finish()

    def _finish(self) -> None:
        self._closing.append(self._thread.submit(self._open.pop(0).close))

    def __enter__(self) -> ShardedStream:
        return self

    def __exit__(self, kind, value, traceback) -> None:
        with self._thread:  # waits for what is being closed
            if kind is None:
                while self._open:
                    self._finish()
        for shard in self._open:
            shard.__exit__(kind, value, traceback)
        if kind is None:
            for closed in self._closing:
                closed.result()


def _header(layout: Layout, metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """Return the header's bytes and where each tensor ends, counted from the header's end."""
    none = "0" * DIGITS * len(layout)  # where the checksums come once there are tensors
    entries: dict[str, object] = {"__metadata__": {SUMS: none, "format": "pt", **metadata}}
    ends: dict[str, int] = {}
    offset = 0
    for name, (dtype, shape) in layout.items():
        end = offset + dtype.itemsize * int(torch.Size(shape).numel())
        entries[name] = {
            "dtype": DTYPE_NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        ends[name] = offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, ends


def partial_name(path: Path) -> Path:
    """Return the hidden name of a file until it is whole."""
    return path.with_name(f".{path.name}.partial")


def _whole_tensors(
    partial: Path, sums: Path, header: bytes, ends: Mapping[str, int]
) -> dict[str, str]:
    """Return the tensors that a partial file of this very header begins with and that are whole.

    Each with its checksum: from the file beside it, or of a finished file from its own header.
    """
    found: dict[str, str] = {}
    if not partial.exists():
        return found
    with partial.open("rb") as f:
        begun, after = f.read(len(header)), FIRST_SUM + DIGITS * len(ends)
        if begun[:FIRST_SUM] + begun[after:] != header[:FIRST_SUM] + header[after:]:
            return found
        known = sums.read_bytes() if sums.exists() else begun[FIRST_SUM:after]
        for i, (name, end) in enumerate(ends.items()):
            value = checksum(f.read(len(header) + end - f.tell()))
            if value.encode() != known[DIGITS * i : DIGITS * (i + 1)]:
                break
            found[name] = value
    return found
