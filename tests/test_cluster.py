"""Cells of a landscape shared out by Dask: the same as alone, also when a worker is killed."""

import collections
import json
import os
import signal
import subprocess
import sys
import time

import click
import pytest

from lox_kit import Store, sandbox_prompts
from lox_kit.cli.progress import Workers, worker_pool
from lox_kit.landscape import Asr, Grid, Plane, evaluate
from lox_kit.studies import arm_model

METRIC = Asr(sandbox_prompts("forbidden", "dev", limit=12), "rule", max_new_tokens=12)
COUNTING = """
import os
from lox_kit.landscape import survey

def counted(what, function):
    def call(*arguments, **options):
        with open({log!r}, "a") as log:
            log.write(f"{{what}} {{os.getpid()}}\\n")
        return function(*arguments, **options)
    return call

if survey.work.__name__ == "work":  # a worker may read this twice
    survey.load_model = counted("load", survey.load_model)
    survey.work = counted("cell", survey.work)
"""


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """What workers did, by process: a function that reads it."""
    log = tmp_path / "log"
    (tmp_path / "counting.py").write_text(COUNTING.format(log=str(log)))
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", str(tmp_path / "counting.py"))
    return lambda: collections.Counter(log.read_text().splitlines())


@pytest.fixture
def cluster(counted, tmp_path):
    """A scheduler and two workers that find each other over TCP: its address, and the workers."""
    file, started = tmp_path / "scheduler.json", []

    def start(name, *options):
        call = [sys.executable, "-m", f"distributed.cli.dask_{name}", *options]
        out = (tmp_path / f"{name}.log").open("a")
        started.append(subprocess.Popen(call, stdout=out, stderr=out, cwd=tmp_path))

    quiet = ("--scheduler-file", str(file), "--no-dashboard")
    start("scheduler", *quiet, "--host", "127.0.0.1", "--port", "0")
    for _ in range(2):
        start("worker", *quiet, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny")
    while not file.exists():
        assert started[0].poll() is None, (tmp_path / "scheduler.log").read_text()
        time.sleep(0.1)
    yield json.loads(file.read_text())["address"].removeprefix("tcp://"), started[1:]
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def alone(aligned, factored):
    """A plane, its origin, a grid, and what one process measures there."""
    lox = arm_model("LoX", aligned, factored, 6, 1.0)
    plane = Plane.through(lox, "sandbox/aligned", "sandbox/base")
    grid = Grid.around(plane, 4)
    return plane, lox, grid, readings(evaluate(plane, grid, METRIC, lox))


def readings(landscape):
    """Values and answers of every cell."""
    return {i: (cell.value, cell.answers) for i, cell in landscape.cells.items()}


@pytest.mark.slow
def test_a_new_cluster_measures_what_one_process_does(alone, counted, tmp_path):
    plane, lox, grid, expected = alone
    with Store(tmp_path / "store") as store, worker_pool("") as pool:
        found = evaluate(plane, grid, METRIC, lox, store=store, executor=pool)
        n = store.count("cell")
    assert readings(found) == expected
    loads = {line: n for line, n in counted().items() if line.startswith("load")}
    assert set(loads.values()) == {1}  # once in each worker
    assert counted().total() - len(loads) == n >= 16


@pytest.mark.slow
def test_a_killed_worker_costs_only_its_cells(alone, cluster, counted, tmp_path):
    plane, lox, grid, expected = alone
    address, (victim, _) = cluster
    seen = []

    def on_cell(*_):
        seen.append(time.monotonic())
        if len(seen) == 6:
            os.kill(victim.pid, signal.SIGKILL)

    with Store(tmp_path / "store") as store, worker_pool(address) as pool:
        how = {"store": store, "executor": pool, "on_cell": on_cell}
        found = evaluate(plane, grid, METRIC, lox, **how)
        n = store.count("cell")
    assert readings(found) == expected
    cells = {line: n for line, n in counted().items() if line.startswith("cell")}
    assert len(cells) == 2  # both worked
    assert n <= sum(cells.values()) <= n + 2  # what it held, and what it had begun


def test_workers_are_a_number_or_a_scheduler():
    convert = Workers().convert
    assert convert("4", None, None) == 4
    assert convert("dask://head:8786", None, None) == "head:8786"
    assert convert("dask://", None, None) == ""
    for wrong in ("0", "slurm://head", "a dask://head"):
        with pytest.raises(click.BadParameter):
            convert(wrong, None, None)
