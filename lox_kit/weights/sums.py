"""A checksum of each tensor of a safetensors file, and of its header, in that header itself.

Against damage, not against forgery: a bad copy, a disk that lost a page, a flipped bit. They are in
file order, 16 hexadecimal digits each, as one string of the header's metadata; the last one is that
of the header with zeros in its place, which older files lack.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

SUMS = "sums"  # their name in the metadata
DIGITS = 16
_PAGE = 4096  # bytes


def raw(tensor: Tensor) -> memoryview:
    """Return a tensor's bytes, in order."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def checksum(data: memoryview | bytes) -> str:
    """Return the checksum of some bytes: a hash of the sums of their pages, taken as integers.

    That takes an eighth of the time of a hash of all bytes, and misses only changes that cancel
    each other within a page.
    """
    end = len(data) // _PAGE * _PAGE
    pages = np.frombuffer(data[:end], np.uint64).reshape(-1, _PAGE // 8)
    rest = pages.sum(axis=1).tobytes() + bytes(data[end:])
    return hashlib.blake2b(rest, digest_size=DIGITS // 2).hexdigest()


def checked_reader(f, file: Path) -> Callable[[str], Tensor]:
    """Return a function that reads a tensor of an open file and holds it against its checksum.

    Older files have no checksums, and are read as they are. The function raises
    ValueError if the tensor is damaged or not there.
    """
    text = (f.metadata() or {}).get(SUMS, "")
    found = (text[i : i + DIGITS] for i in range(0, len(text), DIGITS))
    sums = dict(zip(f.offset_keys(), found, strict=False)) if text else {}

    def read(name: str) -> Tensor:
        try:
            tensor = f.get_tensor(name)
        except SafetensorError as error:
            raise ValueError(f"{file}: {error}; make or copy the file again.") from error
        if text and checksum(raw(tensor)) != sums.get(name):
            raise ValueError(
                f"{file}: {name} is damaged, it does not match its checksum; make or copy the file "
                "again."
            )
        return tensor

    return read


def check_sums(file: Path) -> None:
    """Raise ValueError if a tensor does not match its checksum; files of others have none."""
    with safe_open(file, "pt") as f:
        read = checked_reader(f, file)
        for name in f.offset_keys() if SUMS in (f.metadata() or {}) else ():
            read(name)


def check_header(f, file: Path) -> None:
    """Raise ValueError if the header of an open file does not match its checksum."""
    sums, n = (f.metadata() or {}).get(SUMS, ""), len(f.offset_keys())
    if len(sums) in (0, n * DIGITS):  # files of others, and older ones
        return
    with file.open("rb") as raw_file:
        size = raw_file.read(8)
        header = size + raw_file.read(int.from_bytes(size, "little"))
    whole = header.replace(sums.encode(), b"0" * (n + 1) * DIGITS, 1)
    if checksum(whole) != sums[n * DIGITS :]:
        raise ValueError(
            f"{file}: its header is damaged, it does not match its checksum; make or copy the file "
            "again."
        )


def check_schema(file: Path, found: object, known: int) -> None:
    """Raise ValueError if a file is of a newer layout than is known here."""
    if not str(found).isdecimal() or int(str(found)) > known:
        raise ValueError(
            f"{file}: written by a newer lox_kit (schema {found}, here {known}): update lox_kit."
        )
