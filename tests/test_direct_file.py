import errno
import os
import random

import pytest

from lox_kit.weights import direct_file
from lox_kit.weights.direct_file import BLOCK, LEAST, PIECE, DirectFile

SIZES = [5, LEAST - 1, 2 * PIECE + 300, 0, LEAST + BLOCK, PIECE, 3 * BLOCK, LEAST + 1]


def pieces():
    """Pieces of bytes, below and above the size from which they are written directly."""
    generator = random.Random(0)
    return [memoryview(generator.randbytes(size)) for size in SIZES]


def append(path, position, data):
    file = DirectFile(path, position)
    for piece in data:
        file.write(piece)
    file.sync()
    file.close()
    return path.read_bytes()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"header" * 2000)
    return path


@pytest.fixture
def writes(monkeypatch):
    """What goes directly to the disk: (bytes, position) of each write."""
    seen, pwrite = [], os.pwrite

    def spy(descriptor, data, position):
        seen.append((len(data), position))
        return pwrite(descriptor, data, position)

    monkeypatch.setattr(os, "pwrite", spy)
    return seen


def has_direct_writes(path):
    """Whether the system and the file system of `path` have them."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_DIRECT))
    except (AttributeError, OSError):
        return False
    return True


@pytest.mark.parametrize("known", [True, False], ids=["direct", "a system without"])
@pytest.mark.parametrize("position", [0, 7, BLOCK, 12_000])
def test_pieces_of_any_size_follow_each_other_and_only_whole_blocks_are_written_directly(
    file, writes, monkeypatch, position, known
):
    if not known:
        monkeypatch.delattr(direct_file.os, "O_DIRECT", raising=False)
    expected = file.read_bytes()[:position] + b"".join(pieces())
    assert append(file, position, pieces()) == expected
    assert bool(writes) == has_direct_writes(file)
    assert all(size % BLOCK == start % BLOCK == 0 for size, start in writes)


def test_what_comes_before_a_direct_write_is_on_the_disk_first(file, monkeypatch, writes):
    """Or the file could be long enough after a power cut, with a hole in it."""
    fdatasync = getattr(os, "fdatasync", None)  # where there is none, nothing is written directly
    monkeypatch.setattr(
        os, "fdatasync", lambda f: writes.append("sync") or fdatasync(f), raising=False
    )
    written = DirectFile(file, 7)
    for piece in pieces():
        del writes[:]
        written.write(piece)
        assert [kind for kind in writes if kind == "sync"] == writes[:1]
    written.close()


@pytest.mark.parametrize(
    "answer",
    [0, BLOCK, PIECE // 2 + 100, OSError(errno.EINVAL, "no direct writes here")],
    ids=["nothing", "a block", "no whole block", "refused"],
)
def test_what_a_direct_write_leaves_out_is_written_through_the_cache(file, monkeypatch, answer):
    def pwrite(descriptor, data, position):
        if isinstance(answer, OSError):
            raise answer
        with open(file, "r+b") as short:
            short.seek(position)
            return short.write(data[:answer])

    monkeypatch.setattr(os, "pwrite", pwrite)
    assert append(file, 7, pieces()) == file.read_bytes()[:7] + b"".join(pieces())


def test_what_is_overwritten_stays_in_its_place_while_more_is_appended(file):
    written = DirectFile(file, 12_000)
    for piece in pieces():
        written.write(piece)
        written.patch(5, b"patch")
    written.close()
    begun = b"heade" + b"patch" + (b"header" * 2000)[10:]
    assert file.read_bytes() == begun + b"".join(pieces())
