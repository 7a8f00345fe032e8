"""Time and memory of a class: kernels that run one notebook at once, with and without its store.

    python benchmarks/classroom.py NOTEBOOK [--kernels 5] [--one-after-another 25] [--json FILE]

The class's store is filled by `lox warm`, which is timed. Then so many kernels run the notebook
at once, each with a store of its own, first without the class's and then above it; and so many
more one after another, each shut down when its notebook ends. Memory is what the kernels hold
together, pages that they share counted once (PSS), at its highest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient

EVERY = 0.5  # seconds between looks at memory


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--kernels", type=int, default=5)
    parser.add_argument("--one-after-another", type=int, default=25)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="classroom-") as work:
        rows = list(measure(given.notebook, given.kernels, given.one_after_another, Path(work)))
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(notebook: Path, kernels: int, one_after_another: int, work: Path):
    """Yield a row for each way of running the class."""
    start = time.monotonic()
    lox = Path(sys.executable).with_name("lox")
    subprocess.run([lox, "warm", notebook, "-o", work / "class"], check=True)
    yield {"what": "lox warm", "seconds": round(time.monotonic() - start)}
    for name, below, at_once, n in (
        ("alone", None, kernels, kernels),
        ("above the class's store", work / "class", kernels, kernels),
        ("one after another", work / "class", 1, one_after_another),
    ):
        start = time.monotonic()
        with Memory() as memory, ThreadPoolExecutor(at_once) as pool:
            stores = [work / name / str(i) for i in range(n)]
            seconds = list(pool.map(partial(run, notebook, below), stores))
        yield {
            "what": name,
            "kernels": f"{n}, {at_once} at once",
            "seconds": round(time.monotonic() - start),
            "longest": round(max(seconds)),
            "memory": f"{memory.peak / 2**20:.0f} MB",
            "stores": f"{sum(size(store) for store in stores) / 2**20:.0f} MB",
        }


def run(notebook: Path, below: Path | None, store: Path) -> float:
    """Run a notebook in a kernel of its own, which ends with it; return the seconds."""
    start = time.monotonic()
    own = {name: value for name, value in os.environ.items() if name != "LOX_KIT_CLASS"}
    own["LOX_KIT_STORE"] = str(store)
    if below:
        own["LOX_KIT_CLASS"] = str(below)
    place = {"metadata": {"path": str(notebook.resolve().parent)}}
    client = NotebookClient(
        nbformat.read(notebook, as_version=4), timeout=None, kernel_name="python3", resources=place
    )
    client.execute(env=own)
    return time.monotonic() - start


def size(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


class Memory:
    """The most that the kernels below this process held together, in bytes."""

    def __enter__(self) -> Memory:
        self.peak, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(EVERY):
            now = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    now += process.memory_full_info().pss
                except psutil.Error:  # it has ended
                    continue
            self.peak = max(self.peak, now)


if __name__ == "__main__":
    main()
