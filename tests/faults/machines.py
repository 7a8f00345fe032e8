"""Machines in trouble: full disks, folders that cannot be written, too little memory.

Each is a context that a process enters for the rest of its life; nothing of it is seen by others.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

NEW_MOUNTS, NEW_USER = 0x20000, 0x10000000  # of unshare(2)
READ_ONLY, REMOUNT, BIND, PRIVATE = 0x1, 0x20, 0x1000, 0x44000  # of mount(2), PRIVATE for all below
ANY_ACCESS = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, of capabilities(7)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    yield


@contextmanager
def more_memory(size: int) -> Iterator[None]:
    """The process may have so many bytes more than it has already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + size
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    yield


@contextmanager
def small_disk(folder: Path, size: int, kept: Path) -> Iterator[None]:
    """A folder is an empty disk of this size; in the end its content is copied to `kept`."""
    _own_mounts()
    _mount("tmpfs", folder, "tmpfs", 0, f"size={size}")
    try:
        yield
    finally:
        shutil.copytree(folder, kept)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder is on a disk that is mounted read-only."""
    _own_mounts()
    _mount(str(folder), folder, None, BIND)
    _mount(None, folder, None, REMOUNT | BIND | READ_ONLY)
    yield


@contextmanager
def not_allowed(folder: Path) -> Iterator[None]:
    """Nobody is allowed to write in a folder, root included."""
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    _call("capget", header, data)
    data[0] &= ~ANY_ACCESS
    _call("capset", header, data)
    folder.chmod(0o555)
    try:
        yield
    finally:
        folder.chmod(0o755)


@cache
def can_mount() -> bool:
    """Whether a process of this user may have mounts of its own."""
    child = os.fork()
    if child == 0:
        try:
            _own_mounts()
            os._exit(0)
        except OSError:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def _own_mounts() -> None:
    """Let what is mounted from here on be seen by this process alone."""
    try:
        _call("unshare", NEW_MOUNTS)
    except PermissionError:  # be root of what is one's own
        user, group = os.geteuid(), os.getegid()
        _call("unshare", NEW_MOUNTS | NEW_USER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount(None, Path("/"), None, PRIVATE)


def _mount(source: str | None, target: Path, kind: str | None, flags: int, data: str = "") -> None:
    texts = (text and text.encode() for text in (source, str(target), kind))
    _call("mount", *texts, flags, data.encode())


def _call(name: str, *arguments) -> None:
    """Call a function of the C library that returns -1 where it fails."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
