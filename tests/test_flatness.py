"""Flatness: distances to the cliff and VISAGE, against what is known."""

import numpy as np
import pytest
from speakers import random_speaker
from two_numbers import Formula, two_numbers

from lox_kit import sandbox_prompts
from lox_kit.landscape.directions import Direction, between, combine, norm, random_direction
from lox_kit.landscape.flatness import (
    Scans,
    cliff_distance,
    difference,
    first_passing,
    scan,
    scan_visage,
    visage,
)
from lox_kit.landscape.grid import Axis
from lox_kit.landscape.metrics import Asr
from lox_kit.landscape.plane import Line


def scans(*lines):
    """Return scans of these curves, each of one prompt."""
    curves = np.array(lines, float)
    return Scans(np.arange(curves.shape[1], dtype=float), curves[:, :, None])


# --- the cliff ------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [0.31, 1.0, 2.49, 3.03])
def test_the_cliff_of_a_known_surface_is_found_within_half_a_step(edge):
    """Prompts comply beyond `edge`, in every direction: a round plateau."""
    round_ = Formula(tuple(lambda x, y: float(np.hypot(x, y) > edge) for _ in range(4)))
    axis = Axis(0.2, 0, 20)
    ends = [two_numbers(1, 0), two_numbers(0, -3), two_numbers(2, 2)]
    found = scan(two_numbers(0, 0), ends, round_, axis)
    assert found.per_prompt.shape == (3, 21, 4)
    for line in found.curves:
        assert abs(first_passing(found.places, line, 0.5) - edge) <= axis.step / 2 + 1e-12
    distance = cliff_distance(found)
    assert abs(distance.value - edge) <= axis.step / 2 + 1e-12
    assert distance.low == distance.value == distance.high  # every line and prompt alike


def test_the_threshold_is_passed_by_the_share_of_prompts():
    edges = (1.0, 2.0, 3.0, 4.0)
    steps = Formula(tuple(lambda x, y, e=e: float(x > e) for e in edges))
    found = scan(two_numbers(0, 0), [two_numbers(1, 0)], steps, Axis(0.1, 0, 50))
    for threshold, edge in ((0.1, 1.0), (0.25, 2.0), (0.5, 3.0), (0.9, 4.0)):
        assert abs(cliff_distance(found, threshold).value - edge) <= 0.05 + 1e-12
    spread = cliff_distance(found, 0.5)
    assert spread.low < spread.value < spread.high  # other prompts, another cliff


def test_it_is_the_first_passing_that_counts():
    places = np.arange(6.0)
    assert first_passing(places, np.array([0, 0, 0.9, 0, 0, 1]), 0.5) == 1.5
    assert first_passing(places, np.array([0.6, 0, 0, 0, 0, 0]), 0.5) == 0
    assert first_passing(places, np.array([0, 0.5, 0.5, 0, 0, 0]), 0.5) == np.inf


def test_a_cliff_that_is_not_reached_is_infinite_and_said_so():
    none = cliff_distance(scans([0, 0, 0], [0, 0, 0], [0, 0, 1]))
    assert none.value == none.high == np.inf
    assert none.to_dict()["value"] is None
    most = cliff_distance(scans([0, 1, 1], [0, 0, 0], [0, 0, 1]))
    assert most.value == 1.5


def test_the_difference_takes_what_was_not_reached_as_the_reach():
    far, near, neither = (scans(line) for line in ([0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]))
    far, near, neither = map(cliff_distance, (far, near, neither))
    assert difference(far, near, reach=3.0).value == 2.5
    assert difference(far, neither, reach=3.0).value == 0
    few = scans([0, 0.0, 1.0])
    assert difference(visage(few), visage(few)).value == 0


def test_lines_lead_where_the_direction_says():
    model, metric = two_numbers(1, 1), Formula((lambda x, y: x,))
    backwards = combine([(-1.0, between(model, two_numbers(3, 1)))], "backwards")
    found = scan(model, [backwards], metric, Axis(0.5, 0, 4))
    np.testing.assert_allclose(found.curves[0], [1, 0.5, 0, -0.5, -1])


# --- VISAGE ---------------------------------------------------------------------------------------


def test_visage_is_that_of_a_hand_computation():
    # below 1: 1, .75, .5 of the first line, .25 of the second: mean of 1 - ASR over them
    found = visage(scans([0, 0.25, 0.5, 1.0], [1.0, 0.75, 1.0, 1.0]))
    assert found.value == pytest.approx((1 + 0.75 + 0.5 + 0.25) / 4)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert visage(scans([0, 0, 0])).value == 1
    assert visage(scans([1, 1, 1])).value == 0  # nothing below the maximum


def test_its_walk_is_both_ways_along_layer_normalised_directions():
    model = random_speaker()
    metric = Asr(sandbox_prompts("forbidden", "dev", limit=3), "keyword", max_new_tokens=2)
    found = scan_visage(model, metric, n_directions=2, cells=5)
    np.testing.assert_allclose(found.places, [-0.5, -0.25, 0, 0.25, 0.5])
    assert found.per_prompt.shape == (2, 5, 3)
    np.testing.assert_array_equal(*found.per_prompt[:, 2])  # both go through the model itself
    line = Line.along(model, random_direction(model, 0), unit="direction")
    at_half = line.coefficients((0.5,))[0] * norm(line.directions[0])
    matrices = {n: W.detach() for n, W in model.module.named_parameters() if W.ndim == 2}
    assert at_half == pytest.approx(0.5 * norm(Direction(matrices, "W", "W")), rel=1e-5)


# --- intervals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 2], ids=["lines", "prompts"])
def test_intervals_follow_the_spread_over_lines_and_over_prompts(axis):
    generator = np.random.default_rng(0)
    for n in (6, 96):
        shape = [1, 1, 1]
        shape[axis] = n
        values = generator.uniform(0.3, 0.7, shape)
        number = visage(Scans(np.arange(5.0), np.broadcast_to(values, [max(s, 5) for s in shape])))
        expected = 2 * 1.96 * values.std() / n**0.5
        assert number.high - number.low == pytest.approx(expected, rel=0.25)
    alike = visage(Scans(np.arange(5.0), np.full((6, 5, 6), 0.5)))
    assert alike.low == alike.high == 0.5
