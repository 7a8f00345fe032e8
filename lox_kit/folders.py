"""Where things are kept, results and rebuildable things, and how one of them is written whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path


def data_folder() -> Path:
    """Return where results are kept: `LOX_KIT_STORE`, or the user's data folder."""
    return _folder("LOX_KIT_STORE", "user_data_path")


def cache_folder() -> Path:
    """Return where rebuildable things are kept: `LOX_KIT_CACHE`, or the user's cache folder."""
    return _folder("LOX_KIT_CACHE", "user_cache_path")


def _folder(variable: str, by_default: str) -> Path:
    """Return the folder that an environment variable names, or the user's own."""
    if named := os.environ.get(variable):
        return Path(named).expanduser()
    import platformdirs

    return getattr(platformdirs, by_default)("lox_kit", appauthor=False)


class BusyError(OSError):
    """Another process is writing the same file or folder."""


@contextlib.contextmanager
def locked(out: Path, *, new: bool = False, wait: float = 0.0) -> Iterator[None]:
    """Be the only one, of all processes and threads, that writes to `out`.

    The lock is the operating system's and ends with the process, however that ends. It lies beside
    `out` in a hidden file that says who has it; one that a killed process left does not count.

    Parameters
    ----------
    new : bool
        `out` must not exist.
    wait : float, seconds
        How long to wait for another writer.

    Raises
    ------
    BusyError
        If another one is writing it; the message says which process, and since when.
    FileExistsError
        If it must not exist and does.
    ValueError
        If `out` is no name, such as "..".
    """
    from filelock import FileLock, Timeout

    if out.name in ("", ".."):
        raise ValueError(f"{str(out)!r}: not a name of a file or folder to write; choose another.")
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.with_name(f".{out.name}.lock")
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(timeout=wait, poll_interval=0.02)
    except Timeout:
        raise BusyError(
            f"{out}: another lox is writing this{_read_note(file)}. Wait for it to end, or choose "
            "another name."
        ) from None
    except (OSError, NotImplementedError) as error:
        if os.path.lexists(file):
            raise BusyError(
                f"{out}: its lock {file} cannot be opened ({error}). Remove it if no other lox is "
                "writing there, or choose another name."
            ) from error
        # else a place where nothing can be written: the write itself says so
    else:
        with contextlib.suppress(OSError):
            file.write_text(f"pid {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
    try:
        if new and os.path.lexists(out):
            raise FileExistsError(f"{out} exists; remove it or choose another name.")
        yield
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):
                file.unlink()  # while it is still held: nobody else can have it by then
            lock.release()


@contextlib.contextmanager
def read_once(folder: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """Give a folder, which `make` writes if it is not there, and remove it once the block is done.

    After a block that fails it stays, for the next call. One at a time makes and reads it.
    """
    with locked(folder.with_name(f"{folder.name} read")):
        if not folder.exists():
            make(folder)
        yield folder
        remove_folder(folder)


def refuse_special(file: Path) -> None:
    """Raise ValueError for a device, pipe or socket: to read or write one may take for ever."""
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise ValueError(f"{file}: a device, pipe or socket, not a file; choose another name.")


@contextlib.contextmanager
def whole(out: str | Path, *, new: bool = False) -> Iterator[Path]:
    """Give a hidden name to write a file or folder under, which is `out` once the block is done.

    What `out` was before stays until then, and stays for good if the block fails. One at a time
    writes it: another waits, or with `new` is refused, see `locked`.

    Raises
    ------
    ValueError
        If `out` is there and is neither a file nor a folder, such as a device or a pipe.
    BusyError, FileExistsError
        As `locked`.
    """
    out = Path(os.path.realpath(out) if os.path.islink(out) else out)  # a link stays one
    refuse_special(out)
    with locked(out, new=new, wait=0.0 if new else 60.0):
        work = out.with_name(f".partial.{out.name}")  # with its ending, which may say how to read
        discard(work)
        try:
            yield work
            if work.is_dir():
                remove_folder(out)
            os.replace(work, out)
        finally:
            discard(work)


def write_whole(file: str | Path, data: str | bytes) -> Path:
    """Write a small file that appears under its name only when it is whole; return its path."""
    with whole(file) as work, naming(file):
        work.write_bytes(data.encode() if isinstance(data, str) else data)
    return Path(file)


@contextlib.contextmanager
def naming(file: str | Path, part: str = "") -> Iterator[None]:
    """Say of an error of writing which file it is about, and which part of it."""
    try:
        yield
    except OSError as error:
        said = f"{file}: writing {part + ' ' if part else ''}failed ({error.strerror})."
        raise OSError(error.errno, said) from error


@contextlib.contextmanager
def reading(file: str | Path, what: str) -> Iterator[None]:
    """Say of an error in what a file holds which file it is; `what` it is then, for the message.

    Raises
    ------
    ValueError
        For any of the errors that data of another form than is expected lead to; if it is no file.
    """
    refuse_special(Path(file))
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        said = str(error) if type(error) is ValueError else repr(error)
        raise ValueError(f"{file}: {what} ({said}).") from error
    except RecursionError as error:
        raise ValueError(f"{file}: {what} (too deep).") from error


def remove_folder(folder: Path) -> None:
    """Remove a folder; cut off in the middle, nothing is left under its name."""
    doomed = folder.with_name(f".{folder.name}.removed")
    discard(doomed)
    with contextlib.suppress(FileNotFoundError):
        os.replace(folder, doomed)
        discard(doomed)


def discard(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _read_note(file: Path) -> str:
    """Return who has a lock, for a message; nothing where that cannot be read."""
    for _ in range(10):  # it may have the lock and be about to write its note
        with contextlib.suppress(OSError):
            if note := file.read_text(errors="replace").strip():
                return f": {note}"
        time.sleep(0.02)
    return ""
