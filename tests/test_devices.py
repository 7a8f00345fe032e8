"""Where copies and models lie: beside an accelerator or on it, by `--device`, and not for ever."""

import gc
import os
import types
import weakref

import numpy as np
import pytest
import torch
from elsewhere import PLACE, Elsewhere, bytes_there, put

from lox_kit import LoxDial, SafetySubspace, load_model, sandbox_prompts, studies
from lox_kit.extrapolation.factoring import factor_one
from lox_kit.extrapolation.lox import _moved
from lox_kit.landscape import Grid, Line, Plane, Reading, Walk, between, evaluate, lox_direction
from lox_kit.landscape import survey as survey_module
from lox_kit.measures import Questions
from lox_kit.models import pick_device
from lox_kit.store import content_key
from lox_kit.studies import entries
from lox_kit.weights import Checkpoint

LOADING = """
    factor extrapolate align attack asr rescore judge-card utility rank table sweep choose controls
    overlaps knowing landscape demo figures lab warm
""".split()


@pytest.fixture
def found(tiny_pair):
    return SafetySubspace.from_pair(*tiny_pair, rank=2)


@pytest.fixture
def there(tiny_pair):
    """The pair's aligned model on a device that is not the CPU."""
    model = load_model(tiny_pair[1], device="cpu")
    with Elsewhere():
        yield put(model)


def size_of(model):
    held = (*model.module.parameters(), *model.module.buffers())
    return sum(W.nbytes for W in held)


def weights_of(model):
    return {name: W.detach().cpu() for name, W in model.module.named_parameters()}


def assert_same(some, others):
    assert some.keys() == others.keys()
    assert all(torch.equal(W, others[name]) for name, W in some.items())


class Weights:
    """A metric that says what all the weights are, and how much is on the device."""

    prompts, label, limits, judge_key, key = (), "weights", None, None, "weights"

    def prepare(self, model):
        return self

    def run(self, model):
        values = {name: W.tolist() for name, W in weights_of(model).items()}
        return {"hash": int(content_key(**values)[:12], 16), "bytes": bytes_there()}

    def read(self, record, store=None):
        return Reading(record["hash"], record["bytes"], 0.0, ())


# --- where copies are kept ----------------------------------------------------------------------


def test_a_dial_that_keeps_its_copy_on_the_cpu_holds_the_model_once_and_no_bit_differs(
    tiny_pair, found
):
    states, held, size = {}, {}, size_of(load_model(tiny_pair[1], device="cpu"))
    for keep_on in ("device", "cpu"):
        model = load_model(tiny_pair[1], device="cpu")
        before = weights_of(model)
        with Elsewhere():
            dial = LoxDial(put(model), found, keep_on)
            held[keep_on] = bytes_there()
            dial.set(k=2, alpha=1.5)
            dial.set(k=1, alpha=0.7)
            states[keep_on] = weights_of(model)
            dial.off()
            assert_same(weights_of(model), before)
        del model, dial
    assert held["cpu"] == size
    turned = sum(4 * np.prod(shape) for shape in found.info["shapes"])
    assert held["device"] == size + turned
    assert_same(states["cpu"], states["device"])
    assert not torch.equal(states["cpu"][next(iter(found))], before[next(iter(found))])


def test_a_landscape_beside_a_device_holds_one_model_there_and_no_cell_differs(
    tiny_pair, found, monkeypatch
):
    def on_device(name, device):
        assert torch.device(device).type == PLACE
        return put(load_model(name, device="cpu"))

    monkeypatch.setattr(survey_module, "load_model", on_device)
    plane = Plane.through(tiny_pair[1], lox_direction(found, 1), tiny_pair[0])
    given = {"aligned": tiny_pair[1], "attacked": tiny_pair[0]}
    cells, most = {}, {}
    for keep_on in ("device", "cpu"):
        model = load_model(tiny_pair[1], device="cpu")
        size, before = size_of(model), weights_of(model)
        with Elsewhere():
            here = plane.to(PLACE) if keep_on == "device" else plane
            options = {"checkpoints": given, "keep_on": keep_on}
            grid = Grid.around(plane, 2)
            measured = evaluate(here, grid, Weights(), put(model), **options)
            assert model.device.type == PLACE
            assert_same(weights_of(model), before)
        own = [mark.own for mark in measured.marks.values() if mark.own]
        readings = [*measured.cells.values(), *own]
        cells[keep_on] = [reading.value for reading in readings]
        most[keep_on] = max(reading.low for reading in readings) / size
        del model, here
    assert len(cells["cpu"]) == 6  # of which one is aligned, and so is one of the checkpoints
    assert len(set(cells["cpu"])) == 5
    assert cells["cpu"] == cells["device"]
    assert most["cpu"] == 1
    assert most["device"] > 2


def test_walks_on_workers_keep_their_copy_where_they_are_told(tiny_pair, found, monkeypatch):
    kept = []

    class Watched(Walk):
        def __init__(self, model, flat, keep_on="device"):
            kept.append(keep_on)
            super().__init__(model, flat, keep_on)

    monkeypatch.setattr(survey_module, "Walk", Watched)
    from concurrent.futures import ThreadPoolExecutor

    line = Line.along(tiny_pair[1], lox_direction(found, 2))
    model = load_model(tiny_pair[1], device="cpu")
    grid = Grid.around(line, 3)
    with ThreadPoolExecutor(1) as pool:
        options = {"executor": pool, "keep_on": "cpu"}
        shared = evaluate(line, grid, Weights(), model, **options)
    assert kept == ["cpu"]
    np.testing.assert_array_equal(shared.values, evaluate(line, grid, Weights(), model).values)


@pytest.mark.parametrize("keeper", [LoxDial, Walk])
def test_another_place_to_keep_a_copy_is_refused(tiny_pair, found, keeper):
    model = load_model(tiny_pair[1], device="cpu")
    of = found if keeper is LoxDial else Line.along(model, lox_direction(found, 2))
    with pytest.raises(ValueError, match="keep_on='gpu': use 'device' or 'cpu'"):
        keeper(model, of, keep_on="gpu")


def test_what_goes_to_cuda_goes_from_pinned_memory_without_waiting():
    said = []

    def to(device, non_blocking=False):
        said.append((device.type, non_blocking))

    pinned = types.SimpleNamespace(to=to)
    rows = types.SimpleNamespace(device=torch.device("cpu"), pin_memory=lambda: pinned, to=to)
    for device in ("cuda", "cpu"):
        _moved(rows, torch.device(device))
    assert said == [("cuda", True), ("cpu", False)]


# --- no two devices in one operation ------------------------------------------------------------


def test_a_plane_of_models_on_a_device_takes_factors_that_are_not_there(tiny_pair, found, there):
    lox = lox_direction(found, 1)
    attacked = between(tiny_pair[1], tiny_pair[0])
    plain = Plane.from_models(tiny_pair[1], lox, tiny_pair[0], attacked)
    plane = Plane.from_models(there, lox, put(load_model(tiny_pair[0], device="cpu")), attacked)
    np.testing.assert_allclose(plane.scale, plain.scale, rtol=1e-6)
    for name, point in plain.points.items():
        np.testing.assert_allclose(plane.points[name].at, point.at, atol=1e-5)


def test_factors_made_on_a_device_are_in_the_machines_own_memory(tiny_pair, found):
    base, aligned = map(Checkpoint, tiny_pair)
    for name, expected in found.items():
        with Elsewhere():
            made = factor_one(base, aligned, found.info, name, PLACE)
        assert {x.device.type for x in (made.U, made.S, made.Vh, made.residual)} == {"cpu"}
        torch.testing.assert_close(made.S, expected.S)


# --- --device -----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [*LOADING, "smol build", "smol demo", "smol frontier"])
def test_every_verb_that_loads_a_model_takes_a_device_and_refuses_one_that_is_not_here(lox, verb):
    done = lox(*verb.split(), "--device", "tpu")
    assert (done.status, done.out) == (2, "")
    assert "device='tpu' is not available here; use cpu or auto." in done.err


def test_a_device_is_that_of_all_that_a_verb_loads_and_of_nothing_later(lox, monkeypatch):
    seen = []

    def table(*arguments, **options):
        seen.extend((pick_device(), os.environ["LOX_KIT_DEVICE"]))
        raise ValueError("enough")

    monkeypatch.setattr(studies, "attack_table", table)
    monkeypatch.setenv("LOX_KIT_DEVICE", "cpu")
    assert "enough" in lox("table", "--device", "meta").err
    assert seen == ["meta", "meta"]  # workers read the second
    assert pick_device() == "cpu"
    monkeypatch.setenv("LOX_KIT_DEVICE", "meta")
    assert (pick_device(), pick_device("cpu")) == ("meta", "cpu")


# --- for how long -------------------------------------------------------------------------------


def test_no_model_outlives_the_table_that_it_was_loaded_for(tiny_pair, store, monkeypatch):
    loaded = weakref.WeakSet()

    def watched(name):
        model = load_model(name, device="cpu")
        loaded.add(model.module)
        return model

    monkeypatch.setattr(entries, "load_model", watched)
    asked = [tuple(sandbox_prompts(kind, limit=2)) for kind in ("forbidden", "allowed")]
    questions = Questions(*asked, "rule", max_new_tokens=2)
    how = {"pair": tiny_pair, "questions": questions, "store": store, "drift": True}
    with entries.sharing_models():  # as a sweep does around its tables
        table = studies.attack_table(["aligned", "LoX"], [], [0], k=1, lora=(), **how)
        assert len(table.rows) == 2
        gc.collect()
        assert loaded
    gc.collect()
    assert not loaded
    studies.attack_table(["aligned"], [], [0], k=1, lora=(), **how)
    gc.collect()
    assert not loaded


@pytest.mark.parametrize(("call", "status"), [(("check", "a", "b"), 2), (("attack", "--help"), 0)])
def test_processes_launched_together_run_no_verb_but_those_that_train(
    lox, monkeypatch, call, status
):
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    done = lox(*call)
    assert done.status == status
    assert ("is for attack and align alone" in done.err) == (status == 2)
