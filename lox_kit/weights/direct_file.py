"""Append to a file past the page cache, where the system can: Linux, on most file systems.

What is written once and read by another program need not be copied into the page cache first, nor
push out of it what is still being read.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

BLOCK = 4096  # direct writes are aligned to it, in the file and in memory
PIECE = 1 << 23  # bytes written at a time
LEAST = 1 << 20  # bytes; fewer are copied sooner than the disk answers


class DirectFile:
    """A file that is appended to. Whole blocks of large pieces go directly to the disk.

    The blocks at both ends of a piece go through the page cache, as all of it does where the
    system knows no direct writes or refuses one.
    """

    def __init__(self, path: Path, position: int):
        """Open an existing file to go on at `position`; what comes after that is cut off."""
        self._file = path.open("r+b")
        self._file.truncate(position)
        self._file.seek(position)
        self._direct: int | None = None
        with contextlib.suppress(AttributeError, OSError):  # another system, another file system
            self._direct = os.open(path, os.O_WRONLY | os.O_DIRECT)
        self._buffer: mmap.mmap | None = None  # memory aligned to a page

    def write(self, data: memoryview) -> None:
        """Append bytes; they are the file's when this returns, though not yet safe on the disk."""
        position = self._file.tell()
        head = min(-position % BLOCK, len(data))
        self._file.write(data[:head])
        self._file.flush()
        head += self._write_direct(data[head:], position + head)
        self._file.seek(position + head)
        self._file.write(data[head:])
        self._file.flush()

    def _write_direct(self, data: memoryview, position: int) -> int:
        """Write whole blocks at an aligned position, and return how many bytes that were.

        Fewer than there are if the system wrote fewer or refused. The write through the cache goes
        on from there; if nothing more can be written at all, it says so.
        """
        end = len(data) // BLOCK * BLOCK
        if self._direct is None or end < LEAST:
            return 0
        try:  # or a power cut could leave a hole before these blocks
            os.fdatasync(self._file.fileno())
        except OSError:
            return 0
        self._buffer = self._buffer or mmap.mmap(-1, PIECE)
        for begin in range(0, end, PIECE):
            size = min(PIECE, end - begin)
            self._buffer[:size] = data[begin : begin + size]
            with memoryview(self._buffer) as buffer:
                try:
                    written = os.pwrite(self._direct, buffer[:size], position + begin)
                except OSError:
                    return begin
            if written < size:
                return begin + written
        return end

    def patch(self, position: int, data: bytes) -> None:
        """Overwrite bytes that are there already."""
        end = self._file.tell()
        self._file.seek(position)
        self._file.write(data)
        self._file.flush()
        self._file.seek(end)

    def sync(self) -> None:
        """Have the disk hold all of it."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None
        self._file.close()
