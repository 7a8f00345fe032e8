"""Grids: coordinates that stay the same floats, and the order from coarse to fine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lox_kit.landscape.grid import COARSE, Grid, refinement

RANGES = st.tuples(st.floats(-50, -0.01), st.floats(0.01, 50))


@given(RANGES, RANGES, st.integers(2, 60))
def test_a_finer_grid_has_the_very_floats_of_the_coarse_one(first, second, cells):
    grid = Grid.spanning(first, second, cells=cells)
    finer = grid.finer()
    for i, j in ((0, 0), (cells - 1, cells // 2), (1, cells - 1)):
        assert grid.at((i, j)) == finer.at((2 * i, 2 * j))
    assert finer.shape == (2 * cells - 1,) * 2


@given(RANGES, st.integers(2, 60))
def test_the_origin_is_on_the_grid_and_the_range_is_met_within_half_a_step(ends, cells):
    grid = Grid.spanning(ends, cells=cells)
    (axis,) = grid.axes
    assert 0.0 in axis.values
    assert abs(axis.values[0] - ends[0]) <= axis.step / 2 * (1 + 1e-9)
    assert abs(axis.values[-1] - ends[1]) <= axis.step / 2 * (1 + 1e-9)


def test_an_empty_range_is_refused():
    with pytest.raises(ValueError, match=r"1 cells from 0 to 1: use at least 2"):
        Grid.spanning((0, 1), cells=1)
    with pytest.raises(ValueError, match="low < high"):
        Grid.spanning((1, 1), cells=5)


def run(shape, budget, function):
    """Return the cells of every round, and their values from a function of the index."""
    rounds, values = [], {}
    for wanted in refinement(shape, budget, values):
        assert wanted
        assert not set(wanted) & set(values)
        rounds.append(wanted)
        values |= {i: function(i) for i in wanted}
    return rounds, values


@pytest.mark.parametrize("shape", [(21, 21), (7, 30), (21,), (3, 4)])
@pytest.mark.parametrize("share", [0.6, 1.0])
def test_refinement_measures_each_cell_once_and_as_many_as_the_budget_says(shape, share):
    coarse = int(np.prod([min(COARSE, n) for n in shape]))
    budget = max(coarse, int(share * np.prod(shape)))
    rounds, values = run(shape, budget, lambda i: float(sum(i) % 3))
    assert len(rounds[0]) == coarse
    assert len(values) == budget
    assert all(0 <= x < n for i in values for x, n in zip(i, shape, strict=True))


def test_refinement_goes_where_neighbours_differ():
    def cliff(i):  # steep along one diagonal, flat elsewhere
        return float(i[0] + i[1] > 20)

    _, values = run((21, 21), 150, cliff)
    extra = [i for i in values if i[0] % 5 or i[1] % 5]
    near = [i for i in extra if abs(i[0] + i[1] - 20) <= 5]
    assert len(near) / len(extra) > 0.85
    on_it = [(i, j) for i in range(21) for j in range(21) if abs(i + j - 20) <= 1]
    assert sum(i in values for i in on_it) / len(on_it) > 0.9


def test_a_budget_below_the_first_pass_is_refused():
    with pytest.raises(ValueError, match="budget=10: the first pass alone has 25 cells"):
        next(refinement((21, 21), 10, {}))
