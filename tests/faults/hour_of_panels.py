"""Panels opened, used and closed again and again in one process, as in a long-lived kernel.

`python tests/faults/hour_of_panels.py 3600` works for an hour, eight rounds at the least, and
prints a line of JSON for every round, once its panels are closed: seconds since the start,
resident memory in MB, and how many widgets and how many objects that Python's collector knows are
alive.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
from ipywidgets.widgets import widget as registry
from panel_parts import plane_to_base, run, wait

from lox_kit import SafetySubspace, Store, load_model, widgets
from lox_kit.landscape import Grid
from lox_kit.widgets.panels.attack_lab import runs as lab_runs
from lox_kit.widgets.panels.dial import state as dial_state
from lox_kit.widgets.panels.landscape import state as landscape_state
from lox_kit.widgets.panels.rank import state as rank_state

FEW = 4  # prompts of each kind
FEWEST = 8  # rounds, however long they take


def rounds(seconds: float) -> Iterator[dict[str, float]]:
    """Use every panel once a round, each round with other settings, until the time is over."""
    for module in (dial_state, landscape_state, lab_runs, rank_state):
        module.FEW = FEW
    pair = ("sandbox/base", "sandbox/aligned")
    subspace = SafetySubspace.from_pair(*pair, rank="full")
    base, model = map(load_model, pair)
    plane, process, start = plane_to_base(), psutil.Process(), time.monotonic()
    for i in range(sys.maxsize):
        with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
            use_all(i, subspace, base, model, plane, store)
        gc.collect()
        if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)  # what it holds back for later differs by some per cent
        alive = {"widgets": len(registry._instances), "objects": len(gc.get_objects())}
        now = time.monotonic() - start
        yield {"seconds": now, "memory": process.memory_info().rss / 1e6} | alive
        if now > seconds and i + 1 >= FEWEST:
            return


def use_all(i: int, subspace, base, model, plane, store) -> None:
    """Open every panel, use it as a person would, save one of the figures, and close it."""
    rng, shared = random.Random(i), {"store": store, "setting": widgets.Setting(subspace)}
    grid = Grid.spanning((-1, 1), (-1, 1), cells=3)
    ranks = (0, rng.choice([1, 2, 4]))
    panels = {
        use_spectrum: lambda: widgets.spectrum(subspace, setting=shared["setting"]),
        use_dial: lambda: widgets.dial(subspace, model, base=base, **shared),
        use_landscape: lambda: widgets.landscape(plane, model, grid=grid, **shared),
        use_attack_lab: lambda: widgets.attack_lab(subspace, model, **shared),
        use_rank: lambda: widgets.rank(subspace, ranks=ranks, **shared),
    }
    for j, (use, make) in enumerate(panels.items()):
        panel = make()
        use(rng, panel)
        panel.show_code()
        if j == i % len(panels):
            panel.save()
        assert "lox-error" not in panel.message.value, panel.message.value
        panel.close()


def use_spectrum(rng, panel) -> None:
    state, setting = panel.state, panel.state.setting
    for _ in range(3):
        setting.k = rng.randrange(1, 64)
        state.selected = rng.choice(list(state.subspace))
    setting.classroom = not setting.classroom
    setting.classroom = not setting.classroom


def use_dial(rng, panel) -> None:
    state = panel.state
    wait(state)
    for _ in range(3):
        state.setting.k, state.setting.alpha = rng.randrange(1, 32), rng.randrange(1, 16) / 4
        wait(state)
        state.keep()
        state.other_prompts()
        wait(state)
    state.measure()
    wait(state)


def use_landscape(rng, panel) -> None:
    state = panel.state
    state.finer = 0
    run(state)
    for _ in range(3):
        state.look_at(rng.random(), rng.random())
        state.cut = rng.choice(state.cuts)


def use_attack_lab(rng, panel) -> None:
    state = panel.state
    state.steps, state.seed = 2, rng.randrange(10**6)
    run(state)
    state.at = 1


def use_rank(rng, panel) -> None:
    state = panel.state
    wait(state)
    run(state)
    state.setting.k = rng.randrange(1, 32)
    state.kind = rng.choice(state.kinds)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as here:
        os.chdir(here)
        os.environ |= {"LOX_KIT_STORE": f"{here}/store", "LOX_KIT_CACHE": f"{here}/cache"}
        for line in rounds(float(sys.argv[1])):
            print(json.dumps(line), flush=True)
