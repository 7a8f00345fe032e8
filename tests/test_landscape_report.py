"""The landscape's numbers and words, from walks whose cliffs are known."""

import numpy as np
import pytest

from lox_kit.landscape import Scans
from lox_kit.reports.landscape import DIFFERENCE, flatness_data, joined, numbers, verdict
from lox_kit.studies import WALKS

ATTACK, OTHER = "along its attack", "further along LoX"
AXES = WALKS["sandbox"].axes
N_PROMPTS = 40


def cliff_at(index, places):
    """Return scans of two lines on which every prompt is answered from one place on."""
    curve = np.arange(len(places)) >= index
    return Scans(places, np.broadcast_to(curve[None, :, None], (2, len(places), N_PROMPTS)) * 1.0)


def walked(aligned, lox):
    """Return every kind of walk, the cliffs of the two models at these places."""
    places = {kind: axis.values for kind, axis in AXES.items()} | {"VISAGE": np.linspace(-1, 1, 5)}
    return {
        (model, kind, "sums" if kind == ATTACK else ""): cliff_at(index, at)
        for model, index in (("aligned", aligned), ("LoX", lox))
        for kind, at in places.items()
    }


def test_the_cliff_is_half_way_between_two_places_and_the_difference_is_lox_s_gain():
    rows = numbers(walked(4, 9), "sums")
    step = AXES[ATTACK].values[1]
    assert rows[ATTACK]["aligned"].value == pytest.approx(3.5 * step)
    assert rows[ATTACK][DIFFERENCE].value == pytest.approx(5 * step)
    assert rows[ATTACK][DIFFERENCE].low == pytest.approx(5 * step)  # all lines and prompts agree


def test_the_verdict_names_what_is_flatter_and_what_is_not():
    flatter = verdict({"seed 0": numbers(walked(4, 9), "sums")})
    assert flatter.startswith("LoX lies on flatter ground")
    assert f"cliff {ATTACK} (seed 0)" in flatter
    assert "back towards the base" not in flatter  # farther by its own step: says nothing
    same = verdict({"seed 0": numbers(walked(4, 4), "sums")})
    assert same.startswith("No flatter ground is shown: ")
    assert f"cliff {OTHER} (seed 0)" in same


def test_families_are_joined_line_by_line():
    both = joined([walked(4, 9), walked(6, 9)])
    assert both["aligned", OTHER, ""].per_prompt.shape[0] == 4
    value = numbers(both, "sums")[OTHER]["aligned"].value
    assert value == pytest.approx(4.5 * AXES[OTHER].values[1])  # the median of both cliffs


def test_the_figure_is_drawn_from_every_line_of_both_models():
    data = flatness_data(walked(4, 9), "sums", "sums, seed 0")
    assert [panel["title"] for panel in data["panels"]] == [*AXES, "VISAGE: both ways"]
    first = data["panels"][0]
    assert {model: len(lines) for model, lines in first["curves"].items()} == {
        "aligned": 2, "LoX": 2,
    }  # fmt: skip
    assert first["curves"]["aligned"][0][:6] == [0, 0, 0, 0, 1, 1]
