"""A closed panel leaves nothing behind: no widget, no thread, no state, nothing at its setting."""

import gc
import threading
import time
import weakref

import ipywidgets
import pytest
from ipywidgets.widgets import widget as registry
from panel_parts import copy_of, wait

from lox_kit import Store, widgets
from lox_kit.landscape.directions import random_direction, weights_of
from lox_kit.landscape.plane import Plane
from lox_kit.widgets import setting as setting_module
from lox_kit.widgets.panels.attack_lab import runs as lab_runs
from lox_kit.widgets.panels.dial import state as dial_state
from lox_kit.widgets.panels.landscape import state as landscape_state

PANELS = ("spectrum", "dial", "landscape", "attack_lab", "rank")
FEW = 2


@pytest.fixture(scope="module")
def parts(factored, aligned, base):
    """A subspace, its aligned and base model, and a plane around the aligned one."""
    weights = weights_of("sandbox/aligned")
    step = random_direction(weights, 1).hold(weights)
    plane = Plane.through("sandbox/aligned", "sandbox/base", step)
    widgets.spectrum(factored).close()  # imports what all of them need
    gc.collect()
    gc.freeze()  # collecting is quick then
    yield factored, aligned, base, plane
    gc.unfreeze()


@pytest.fixture
def opened(parts, tmp_path, monkeypatch):
    """Return a function that opens a panel of a kind, all with one setting and one model."""
    subspace, aligned, base, plane = parts
    for module in (dial_state, landscape_state, lab_runs):
        monkeypatch.setattr(module, "FEW", FEW)
    model = copy_of(aligned)
    setting = widgets.Setting(subspace)
    with Store(tmp_path) as store:
        make = {
            "spectrum": lambda: widgets.spectrum(subspace, setting=setting),
            "dial": lambda: widgets.dial(subspace, model, base=base, store=store, setting=setting),
            "landscape": lambda: widgets.landscape(plane, model, store=store, setting=setting),
            "attack_lab": lambda: widgets.attack_lab(subspace, model, store=store, setting=setting),
            "rank": lambda: widgets.rank(subspace, store=store, setting=setting),
        }
        yield lambda kind: make[kind](), setting


def settled(found, wanted):
    """Return what a function finds, after giving threads that have ended time to be gone."""
    deadline = time.monotonic() + 5
    while found() != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return found()


def counts(setting):
    """Return what a panel could leave: widgets, comms, threads, observers of the setting."""
    import comm

    gc.collect()
    followers = [f for by_type in setting._trait_notifiers.values() for f in by_type["change"]]
    comms = comm.get_comm_manager().comms
    return len(registry._instances), len(comms), threading.active_count(), len(followers)


@pytest.mark.parametrize("kind", PANELS)
def test_closing_takes_away_every_widget_thread_and_observer_and_the_state(opened, kind):
    make, setting = opened
    make(kind).close()  # what is made once and stays: modules, caches
    before = counts(setting)
    states, figures = [], []
    for _ in range(2):
        panel = make(kind)
        setting.k = 5 if setting.k == 6 else 6  # timers of other panels begin
        states.append(weakref.ref(panel.state))
        figures += [weakref.ref(w) for w in panel.children if hasattr(w, "batch_update")]
        assert len(registry._instances) > before[0] + 20
        panel.close()
        del panel
    assert settled(lambda: counts(setting), before) == before
    assert [ref() for ref in (*states, *figures)] == [None] * 4
    assert not setting_module._open


@pytest.mark.parametrize("kind", ["dial", "landscape", "attack_lab"])
def test_a_cell_that_is_run_again_leaves_one_panel(opened, kind):
    make, setting = opened
    before = counts(setting)[0]
    first = make(kind)
    one = counts(setting)[0]
    second = make(kind)
    assert first.comm is None
    assert (counts(setting)[0], second.comm is None) == (one, False)
    second.close()
    assert counts(setting)[0] == before


def test_a_dial_loads_the_base_its_subspace_knows_and_lets_go_of_it_when_closed(parts, monkeypatch):
    monkeypatch.setattr(dial_state, "FEW", FEW)
    subspace, aligned, given, _ = parts
    panel = widgets.dial(subspace, aligned)
    wait(panel.state)
    base = panel.state._models["base"]
    assert base.key == given.key
    base = weakref.ref(base.module)
    panel.close()
    gc.collect()
    assert base() is None


def test_closing_one_panel_leaves_another_of_its_setting_as_it_is(opened):
    make, setting = opened
    earlier = set(registry._instances)
    first, second = make("spectrum"), make("spectrum")
    first.close()
    setting.k, setting.classroom = 3, True
    assert second.state.data["k"] == 3
    assert "lox-class" in second._dom_classes
    there = [w for name, w in registry._instances.items() if name not in earlier]
    sliders = [w for w in there if isinstance(w, ipywidgets.IntSlider)]
    assert [s.value for s in sliders] == [3]
    second.close()
