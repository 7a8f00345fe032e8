"""`lox` in processes of its own, each with a fault set up in it; one starts in milliseconds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([
    *("lox_kit.cli.main", "lox_kit.attacks", "lox_kit.studies.table", "trl.trainer.sft_trainer"),
    *("transformers.models.llama.modeling_llama", "peft", "datasets", "scipy.stats"),
    *("matplotlib.pyplot", "mpl_toolkits.mplot3d", "openai"),
])  # fmt: skip
Fault = Callable[[], AbstractContextManager]


class Done(NamedTuple):
    """How a process ended, and the lines that it said on stderr."""

    status: int  # below 0: by a signal
    said: list[str]


class Lox:
    """`lox` with these arguments, running in `folder/here`, with its store in `folder/store`."""

    def __init__(
        self,
        folder: Path,
        cache: Path,
        call: list[object],
        *,
        fault: Fault = nullcontext,
        environment: Mapping[str, str] | None = None,
    ):
        self.reading, writing = SERVER.Pipe(duplex=False)
        places = {"LOX_KIT_STORE": str(folder / "store"), "LOX_KIT_CACHE": str(cache)}
        self.begun = SERVER.Event()
        arguments = (self.begun, writing, folder, ["lox", *map(str, call)], fault)
        arguments += (places | dict(environment or {}),)
        self.process: BaseProcess = SERVER.Process(target=_run, args=arguments)
        self.process.start()
        writing.close()

    def wait(self) -> Done:
        """Wait for its end."""
        with self.reading, open(os.dup(self.reading.fileno()), errors="replace") as text:
            said = text.read().splitlines()
        self.process.join()
        return Done(self.process.exitcode or 0, said)


def _run(
    begun: Event,
    writing: Connection,
    folder: Path,
    call: list[str],
    fault: Fault,
    environment: dict[str, str],
) -> None:
    """Be `lox`."""
    from lox_kit.cli.main import main

    os.dup2(writing.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.environ |= environment
    sys.argv = call
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job of a shell may ignore it
    with fault():
        (folder / "here").mkdir(exist_ok=True)
        os.chdir(folder / "here")
        begun.set()
        main()
