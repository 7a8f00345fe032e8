"""Cuts through a landscape at any angle: what is measured on them, what is not, and the cliffs."""

import json
import math

import numpy as np
import pytest

from lox_kit.landscape.cuts import cliff_on, cut_data, cut_through, heading, nearest_cell, way
from lox_kit.landscape.flatness import Scans, cliff_distance
from lox_kit.landscape.grid import Axis, Grid
from lox_kit.landscape.landscape import Cell, Landscape, Mark
from lox_kit.landscape.metrics import Reading

SHARE = (0.0, 1.0)


def made_up(values, limits=SHARE, marks=None):
    """Return a landscape with these values, on a grid of steps 1 and 2 from (0, 0)."""
    values = np.array(values, dtype=float)
    grid = Grid((Axis(1.0, 0, values.shape[0] - 1), Axis(2.0, 0, values.shape[1] - 1)))
    cells = {
        i: Cell(i, grid.at(i), values[i], values[i], values[i], (values[i],), ())
        for i in grid.indices
        if np.isfinite(values[i])
    }
    source = {"metric": "m", "limits": limits and list(limits)}
    return Landscape(grid, cells, marks or {}, ("one", "two"), (), True, source)


def sloped(shape=(4, 6)):
    """Return a landscape whose value is a plane, 0.1 a + 0.05 b."""
    return made_up([[0.1 * i + 0.1 * j for j in range(shape[1])] for i in range(shape[0])])


# --- the line -----------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [(0.0, 0.0), (2.0, 6.0), (1.3, 4.4)])
@pytest.mark.parametrize("angle", range(0, 180, 5))
def test_every_place_lies_on_the_line_and_on_a_row_or_column_of_the_grid(start, angle):
    landscape = sloped()
    cut = cut_through(landscape, start, heading(angle))
    expected = np.array(start) + cut.places[:, None] * heading(angle)
    np.testing.assert_allclose(cut.at, expected, atol=1e-9)
    steps = cut.at / (1.0, 2.0)
    on_line = np.isclose(steps, steps.round(), atol=1e-6).any(1) | (cut.places == 0)
    assert on_line.all()
    assert (np.diff(cut.places) > 1e-9).all()
    np.testing.assert_allclose([cut.places[0], cut.places[-1]], cut.span, atol=1e-9)
    np.testing.assert_allclose(cut.value, cut.at @ (0.1, 0.05), atol=1e-9)  # facets of a plane
    np.testing.assert_array_equal(cut.measured, np.isclose(steps, steps.round()).all(1))
    assert np.isnan(cut.low).tolist() == (~cut.measured).tolist()


def test_between_two_measured_neighbours_the_value_is_the_straight_line():
    values = np.random.default_rng(0).random((5, 5))
    cut = cut_through(made_up(values), (2.0, 4.0), heading(37))
    for at, value, measured in zip(cut.at, cut.value, cut.measured, strict=True):
        x, y = at / (1.0, 2.0)
        (i, j), (m, n) = (math.floor(x + 1e-9), math.floor(y + 1e-9)), (x % 1, y % 1)
        if measured:
            assert value == values[round(x), round(y)]
        elif min(m, 1 - m) < 1e-9:  # on a column
            i = round(x)
            assert value == pytest.approx((1 - n) * values[i, j] + n * values[i, j + 1])
        else:
            j = round(y)
            assert value == pytest.approx((1 - m) * values[i, j] + m * values[i + 1, j])
    assert 1 <= cut.measured.sum() < len(cut.measured)


def test_a_cell_that_is_not_measured_is_left_out_and_so_is_what_no_cells_surround():
    row = made_up([[0.0, np.nan, 0.4], [0.2, np.nan, 0.6]])
    assert cut_through(row, (0, 0), heading(90)).places.tolist() == [0.0, 4.0]
    corner = made_up([[0.0, 0.2, np.nan], [0.2, np.nan, np.nan], [np.nan] * 3])
    cut = cut_through(corner, (0, 0), (1.0, 1.0))
    assert cut.at[-1].tolist() == pytest.approx([2 / 3, 2 / 3]) or len(cut.places) == 1
    nothing = cut_through(made_up([[np.nan] * 3] * 3), (0, 0), heading(20))
    assert (nothing.places.size, nothing.per_prompt.shape) == (0, (0, 0))
    assert cliff_on(nothing, SHARE) is None
    assert json.loads(json.dumps(cut_data(nothing, SHARE)))["cliffs"]["ahead"] is None


def test_a_model_on_the_line_is_measured_there_and_one_beside_it_is_not():
    reading = Reading(0.9, 0.7, 1.0, (0.9,))
    at = {"on": (1.5, 1.5), "beside": (1.5, 1.6)}
    marks = {name: Mark(place, 0.0, reading, None) for name, place in at.items()}
    landscape = made_up(np.zeros((4, 4)), marks=marks)
    cut = cut_through(landscape, (0.0, 0.0), way((0.0, 0.0), at["on"]))
    (place,) = np.flatnonzero(cut.value == 0.9)
    assert cut.measured[place]
    assert cut.places[place] == pytest.approx(1.5 * math.sqrt(2))
    assert (cut.low[place], cut.high[place]) == (0.7, 1.0)
    beyond = {"far": Mark((9.0, 9.0), 0.0, reading, None)}
    cut = cut_through(made_up(np.zeros((4, 4)), marks=beyond), (0.0, 0.0), (1.0, 1.0))
    assert cut.at[-1].tolist() == [9.0, 9.0]
    assert cut.span[1] == cut.places[-1] == pytest.approx(9 * math.sqrt(2))


def test_cuts_that_cannot_be_made_are_refused():
    landscape = made_up([[0, 1], [0, 1]])
    with pytest.raises(ValueError, match="needs one that leads somewhere"):
        cut_through(landscape, (0, 0), (0.0, 0.0))
    line = Landscape(Grid((Axis(1.0, 0, 3),)), {}, {}, ("one",), (), True, {})
    with pytest.raises(ValueError, match="this one is over a line"):
        cut_through(line, (0, 0), heading(0))
    assert nearest_cell(landscape.grid, (0.6, 0.9)) == (1, 0)


def test_a_line_that_misses_the_grid_has_nothing_on_it():
    cut = cut_through(sloped(), (-1.0, 0.0), heading(90))
    assert (cut.places.size, cut.span) == (0, (0.0, 0.0))


# --- the cliff ----------------------------------------------------------------------------------


def test_cliffs_lie_between_the_measured_cells_around_them():
    landscape = made_up([[0, 0.2, 0.4, 0.9, 1.0], [0.1, np.nan, np.nan, 0.6, 0], [1, 1, 0, 0, 0]])

    def cliff(start, angle=90, forward=True):
        return cliff_on(cut_through(landscape, start, heading(angle)), SHARE, forward)

    first = cliff((0, 0))
    assert (first.distance, first.before, first.behind, first.reach) == (5.0, 4.0, 6.0, 8.0)
    gap = cliff((1, 0))
    assert (gap.distance, gap.before, gap.behind, gap.measured) == (3.0, 0.0, 6.0, True)
    over = cliff((2, 2))
    assert (over.distance, over.behind) == (0.0, 0.0)
    back = cliff((2, 6), forward=False)
    assert (back.distance, back.before, back.behind) == (3.0, 2.0, 4.0)
    none = cliff((2, 6))
    assert (none.distance, none.reach) == (math.inf, 2.0)
    assert none.to_dict()["distance"] is None
    assert cliff((1, 2)) is None  # not measured
    assert cliff((0, 0), forward=False).reach == 0


def test_a_cliff_between_interpolated_places_says_so():
    landscape = made_up(np.repeat([[0.0], [0.0], [1.0], [1.0]], 4, axis=1))
    straight = cliff_on(cut_through(landscape, (0, 0), heading(0)), SHARE)
    assert (straight.distance, straight.measured) == (1.5, True)
    cut = cut_through(landscape, (0, 0), (1.0, 1.0))
    slanted = cliff_on(cut, SHARE)
    assert slanted.measured is False
    # column 2 is the first whose two cells around the line are over
    assert (slanted.before, slanted.behind) == pytest.approx((math.sqrt(2), math.sqrt(8)))


def test_the_cliff_of_a_margin_is_where_it_falls_below_zero():
    landscape = made_up([[3.0, 1.0, -0.5]] * 2, limits=None)
    cliff = cliff_on(cut_through(landscape, (0, 0), heading(90)), None)
    assert (cliff.distance, cliff.before, cliff.behind) == (3.0, 2.0, 4.0)


@pytest.mark.parametrize("sign", [1, -1], ids=["share", "margin"])
def test_the_interval_is_that_of_flatness_over_the_same_prompts(sign):
    generator = np.random.default_rng(2)
    edges = generator.uniform(0, 12, 20)  # where each prompt is first complied with
    grid = Grid((Axis(1.0, 0, 1), Axis(0.5, 0, 24)))
    cells = {}
    for i in grid.indices:
        outcome = (edges < grid.at(i)[1]).astype(float)
        told = tuple(outcome if sign == 1 else 0.5 - outcome)
        cells[i] = Cell(i, grid.at(i), float(np.mean(told)), 0.0, 1.0, told, ())
    landscape = Landscape(grid, cells, {}, ("one", "two"), (), True, {})
    cut = cut_through(landscape, (0.0, 2.0), heading(90))
    for forward, places in ((True, np.arange(4, 25)), (False, np.arange(4, -1, -1))):
        cliff = cliff_on(cut, SHARE if sign == 1 else None, forward)
        lines = np.array([[cells[0, j].per_prompt for j in places]])
        heights = lines if sign == 1 else 0.5 - lines
        expected = cliff_distance(Scans(abs(places - 4) * 0.5, heights), 0.5)
        assert (cliff.distance, cliff.low, cliff.high) == (
            expected.value, expected.low, expected.high)  # fmt: skip
    ahead = cliff_on(cut, SHARE if sign == 1 else None)
    assert 0 < ahead.low < ahead.distance < ahead.high < 8
