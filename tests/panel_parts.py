"""How the tests of the panels find, wait for and copy what they need."""

import copy

import pytest

from lox_kit.landscape.directions import random_direction, weights_of
from lox_kit.landscape.plane import Plane
from lox_kit.models.load import Model


def find(widget, name):
    """Return the part of a panel with this class."""
    if name in widget._dom_classes:
        return widget
    parts = (find(child, name) for child in getattr(widget, "children", ()))
    return next((part for part in parts if part), None)


def copy_of(model):
    """Return a copy of a model that a test may turn."""
    return Model(copy.deepcopy(model.module), model.tokenizer, model.key, model.name)


def wait(state, status="done"):
    """Wait for a panel's job, which is to end so."""
    assert state.job.wait(120)
    assert state.job.status == status, state.job.error


def run(state, status="done"):
    """Press Run and wait."""
    state.run()
    wait(state, status)


def asking_little(*modules, **constants):
    """Return a fixture under which these modules ask and measure as little as that."""

    @pytest.fixture(scope="module", autouse=True)
    def _short():
        with pytest.MonkeyPatch.context() as patch:
            for module in modules:
                for name, value in constants.items():
                    patch.setattr(module, name, value)
            yield

    return _short


def closing(make):
    """Yield a function that opens states by `make`, and close them all afterwards."""
    opened = []

    def open_state(*arguments, **options):
        opened.append(make(*arguments, **options))
        return opened[-1]

    yield open_state
    for state in opened:
        state.close()


def plane_to_base():
    """Return a plane back to the base, where everything is complied with, and any other way."""
    weights = weights_of("sandbox/aligned")
    step = random_direction(weights, 1).hold(weights)
    return Plane.through("sandbox/aligned", "sandbox/base", step)
