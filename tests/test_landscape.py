"""The landscape: what is measured, what is kept, and what is left when it is stopped."""

import copy
import json
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from speakers import same_weights, watch
from two_numbers import Formula, two_numbers

from lox_kit import sandbox_prompts
from lox_kit.judges.protocol import Judge, Verdict
from lox_kit.landscape.directions import lox_direction
from lox_kit.landscape.grid import Grid
from lox_kit.landscape.landscape import Landscape, evaluate
from lox_kit.landscape.metrics import Answers, Asr, RefusalMargin
from lox_kit.landscape.plane import Plane
from lox_kit.studies import arm_model

PAIR = ("sandbox/base", "sandbox/aligned")
PROMPTS = sandbox_prompts("forbidden", "dev", limit=12)
ASR = Asr(PROMPTS, "rule", max_new_tokens=12)


@pytest.fixture(scope="module")
def lox(aligned, factored):
    """The extrapolated model."""
    return arm_model("LoX", aligned, factored, 6, 1.0)


@pytest.fixture(scope="module")
def plane(aligned, factored):
    """Aligned, LoX, and the base in place of an attacked model."""
    return Plane.through(aligned, lox_direction(factored, 6), "sandbox/base")


def bowl(x, y):
    return x**2 + 0.5 * np.sin(y)


# --- what is measured -----------------------------------------------------------------------------


def test_a_known_surface_is_reproduced_from_an_origin_away_from_zero():
    origin = two_numbers(1, 5)
    plane = Plane.through(origin, two_numbers(3, 5), two_numbers(2, 8))
    grid = Grid.spanning((-1, 2), (-2, 2), cells=11)
    found = evaluate(plane, grid, Formula((bowl,)), origin)
    a, b = (axis.values for axis in grid.axes)
    np.testing.assert_allclose(found.values, bowl(1 + a[:, None], 5 + b), atol=1e-12)
    assert found.complete
    assert found.marks["LoX"].cell.value == pytest.approx(bowl(3, 5))
    assert found.marks["attacked"].cell.value == pytest.approx(bowl(2, 8))


@pytest.mark.parametrize("metric", [ASR, RefusalMargin(PROMPTS)], ids=["asr", "margin"])
def test_models_on_the_plane_say_the_same_as_cells_and_as_checkpoints(plane, aligned, lox, metric):
    before, models = copy.deepcopy(aligned.module), {"aligned": aligned, "LoX": lox}
    models |= {"attacked": "sandbox/base"}
    found = evaluate(plane, Grid.around(plane, 3), metric, aligned, checkpoints=models)
    assert same_weights(aligned.module, before)
    assert list(found.marks) == ["aligned", "LoX", "attacked"]
    for mark in found.marks.values():
        assert mark.distance == 0
        assert mark.cell.answers == mark.own.answers
        assert mark.cell.value == pytest.approx(mark.own.value, abs=1e-5)
    assert found.marks["attacked"].own.value != found.marks["aligned"].own.value


def test_what_cannot_be_measured_is_refused_before_the_first_cell(plane, aligned, lox):
    with pytest.raises(ValueError, match="the grid has 1 axes and the plane or line 2"):
        evaluate(plane, Grid.spanning((0, 1), cells=3), ASR, aligned)
    with pytest.raises(ValueError, match="LoX is not the origin of this plane"):
        evaluate(plane, Grid.around(plane, 3), ASR, lox)
    with pytest.raises(ValueError, match="checkpoint 'attaked': the plane has aligned, LoX"):
        evaluate(plane, Grid.around(plane, 3), ASR, aligned, checkpoints={"attaked": lox})


# --- what is kept ---------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """A list that grows with every cell that is really measured."""
    return watch(monkeypatch, Answers, "run")


def test_the_same_and_a_finer_grid_reuse_every_cell(plane, aligned, asked, store):
    grid = Grid.spanning((-1, 1), (-1, 2), cells=4)
    first = evaluate(plane, grid, ASR, aligned, store=store)
    assert len(asked) == 16 + 2  # and the models: one is a cell, the origin
    again = evaluate(plane, grid, ASR, aligned, store=store)
    assert len(asked) == 18
    np.testing.assert_array_equal(first.values, again.values)
    fine = evaluate(plane, grid.finer(), ASR, aligned, store=store)
    assert len(asked) == 18 + 49 - 16
    np.testing.assert_array_equal(fine.values[::2, ::2], first.values)


class RememberingJudge(Judge):
    """A judge that looks into the store first, as one that costs money does."""

    name, version = "remembering", "1"

    def __init__(self):
        self.asked = []

    def _ask(self, todo):
        self.asked += todo
        yield {key: Verdict(1.0, len(answer) > 30, "") for key, (_, answer) in todo.items()}


def test_another_judge_asks_no_cell_again_and_its_verdicts_are_kept(plane, aligned, asked, store):
    judge, grid = RememberingJudge(), Grid.around(plane, 3)
    by_rule = evaluate(plane, grid, ASR, aligned, store=store)
    n, other = len(asked), Asr(PROMPTS, judge, max_new_tokens=12)
    first, again = (evaluate(plane, grid, other, aligned, store=store) for _ in range(2))
    assert len(asked) == n
    assert len(judge.asked) == len(set(judge.asked)) == store.count("verdict") > 0
    for index, cell in by_rule.cells.items():
        assert first.cells[index].answers == cell.answers
        assert first.cells[index].per_prompt == tuple(float(len(a) > 30) for a in cell.answers)
    assert again.cells == first.cells


def test_other_prompts_limits_or_weights_never_meet_a_stored_cell(
    plane, aligned, lox, asked, store
):
    grid = Grid.spanning((0, 1), (0, 1), cells=2)
    evaluate(plane, grid, ASR, aligned, store=store)
    n = len(asked)
    other_plane = Plane.through(aligned, "sandbox/base", lox)
    few, short = Asr(PROMPTS[:6], max_new_tokens=12), Asr(PROMPTS, max_new_tokens=11)
    for flat, metric in ((plane, few), (plane, short), (other_plane, ASR)):
        evaluate(flat, grid, metric, aligned, store=store)
        assert len(asked) > n + 3
        n = len(asked)


def test_coarse_to_fine_measures_as_many_cells_as_asked(plane, aligned, asked, store):
    grid = Grid.around(plane, 7)
    part = evaluate(plane, grid, ASR, aligned, budget=30, store=store)
    assert part.complete
    assert np.isfinite(part.values).sum() == len(part.cells) == 30
    data = part.to_dict()
    assert sum(v is not None for row in data["values"] for v in row) == 30
    i = part.prompts.index(data["example"]["prompt"])
    for (a, b), cell in part.cells.items():
        assert data["example"]["answers"][a][b] == cell.answers[i]
    spread = np.var([c.per_prompt for c in part.cells.values()], axis=0)
    assert spread[i] == spread.max() > 0
    n = len(asked)
    full = evaluate(plane, grid, ASR, aligned, store=store)
    assert len(asked) == n + 49 - 30
    assert part.cells.items() <= full.cells.items()


# --- stopping, failing, sharing -------------------------------------------------------------------


def test_a_stopped_landscape_goes_on_where_it_was(plane, aligned, asked, store):
    grid, seen = Grid.around(plane, 4), []
    before = copy.deepcopy(aligned.module)
    options = {"store": store, "on_cell": lambda *what: seen.append(what)}
    part = evaluate(plane, grid, ASR, aligned, stop=lambda: len(seen) >= 5, **options)
    assert same_weights(aligned.module, before)
    assert not part.complete
    assert len(part.cells) == len(seen) == 5
    assert [counts for _, _, *counts in seen] == [[i + 1, 16] for i in range(5)]
    stored = [at for at, *_ in seen]
    seen.clear()
    done = evaluate(plane, grid, ASR, aligned, **options)
    assert done.complete
    assert [at for at, *_ in seen][:5] == stored
    assert len(asked) == 16 + 2
    assert {at for at, *_ in seen} == {grid.at(i) for i in grid.indices}


def test_an_error_keeps_what_was_finished_and_gives_the_origin_back(plane, aligned, store):
    before = copy.deepcopy(aligned.module)

    def fail(at, cell, done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(plane, Grid.around(plane, 4), ASR, aligned, store=store, on_cell=fail)
    assert same_weights(aligned.module, before)
    assert aligned.key == plane.origin_key
    assert store.count("cell") == 4


def answers_of(landscape):
    return {index: cell.answers for index, cell in landscape.cells.items()}


def processes():
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


@pytest.mark.parametrize(
    ("workers", "in_memory"),
    [
        pytest.param(lambda: ThreadPoolExecutor(3), False, id="threads"),
        pytest.param(processes, False, id="processes", marks=pytest.mark.slow),
        pytest.param(processes, True, id="a model nowhere on disk", marks=pytest.mark.slow),
    ],
)
def test_workers_have_a_model_each_and_measure_the_same_landscape(
    plane, aligned, lox, store, workers, in_memory
):
    origin, flat = aligned, plane
    if in_memory:
        origin, flat = lox, Plane.through(lox, "sandbox/aligned", "sandbox/base")
    grid = Grid.around(flat, 4)
    alone = evaluate(flat, grid, ASR, origin)
    with workers() as pool:
        shared = evaluate(flat, grid, ASR, origin, store=store, executor=pool)
    assert store.count("cell") >= 16
    assert not list(store.folder.glob("landscape-*"))  # what the workers read is gone
    assert shared.complete
    assert answers_of(shared) == answers_of(alone)


def test_a_worker_that_fails_is_heard_and_the_rest_is_kept(plane, aligned, store, monkeypatch):
    real, calls = Answers.run, []

    def fail_once(self, model):
        calls.append(model)
        if len(calls) == 6:
            raise RuntimeError("out of cells")
        return real(self, model)

    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(Answers, "run", fail_once)
        with pytest.raises(RuntimeError, match="out of cells"):
            evaluate(plane, Grid.around(plane, 4), ASR, aligned, store=store, executor=pool)
        assert store.count("cell") == 5


def test_stopping_takes_back_what_no_worker_has_begun(plane, aligned, asked):
    seen, grid = [], Grid.around(plane, 5)
    options = {"on_cell": lambda *cell: seen.append(cell), "stop": lambda: len(seen) >= 3}
    with ThreadPoolExecutor(1) as pool:
        part = evaluate(plane, grid, ASR, aligned, executor=pool, **options)
    assert not part.complete
    assert 3 <= len(part.cells) == len(seen) <= 5
    assert len(asked) <= 6


# --- the result -----------------------------------------------------------------------------------


def test_a_saved_landscape_is_the_same_landscape(plane, aligned, lox, tmp_path):
    found = evaluate(plane, Grid.around(plane, 3), ASR, aligned, checkpoints={"LoX": lox})
    loaded = Landscape.load(found.save(tmp_path / "landscape.json"))
    assert loaded.cells == found.cells
    assert loaded.marks == found.marks
    assert loaded.to_dict() == found.to_dict()
    assert (loaded.grid, loaded.prompts, loaded.source) == (found.grid, found.prompts, found.source)
    json.dumps(found.to_dict(), allow_nan=False)
