"""Cuts through a landscape: what is measured on them, and the cliffs."""

import json
import math

import numpy as np
import pytest

from lox_kit import load_model, sandbox_prompts
from lox_kit.landscape.cuts import cut_through, measure_way, nearest_cell
from lox_kit.landscape.flatness import Scans, cliff_distance
from lox_kit.landscape.grid import Axis, Grid
from lox_kit.landscape.landscape import Landscape, Mark
from lox_kit.landscape.metrics import Reading, RefusalMargin
from lox_kit.landscape.plane import Plane

SHARE = (0.0, 1.0)


def made_up(values, limits=SHARE, marks=None):
    """Return a landscape with these values, on a grid of steps 1 and 2 from (0, 0)."""
    values = np.array(values, dtype=float)
    grid = Grid((Axis(1.0, 0, values.shape[0] - 1), Axis(2.0, 0, values.shape[1] - 1)))
    cells = {
        i: Reading(values[i], values[i], values[i], (values[i],))
        for i in grid.indices
        if np.isfinite(values[i])
    }
    source = {"metric": "m", "limits": limits and list(limits)}
    return Landscape(grid, cells, marks or {}, ("one", "two"), (), True, source)


def through(landscape, a, b, *, along="b", **options):
    """Return the cut along an axis through a point."""
    return cut_through(landscape, (a, b), (a + 1, b) if along == "a" else (a, b + 1), **options)


# --- the line -----------------------------------------------------------------------------------


def test_a_cut_along_an_axis_is_a_row_or_a_column_of_cells():
    values = np.random.default_rng(0).random((4, 6))
    landscape = made_up(values)
    cut = through(landscape, 2.0, 6.0)
    assert cut["value"] == cut["low"] == cut["high"] == values[2].tolist()
    assert cut["places"] == [-6.0, -4.0, -2.0, 0.0, 2.0, 4.0]
    assert (cut["span"], cut["start"]) == ([-6.0, 4.0], [2.0, 6.0])
    assert cut["at"] == [[2.0, b] for b in range(0, 12, 2)]
    cut = through(landscape, 2.0, 6.0, along="a", label="along a")
    assert cut["value"] == values[:, 3].tolist()
    assert (cut["places"], cut["label"]) == ([-2.0, -1.0, 0.0, 1.0], "along a")
    assert json.loads(json.dumps(cut)) == cut


def test_a_cut_between_two_points_meets_the_cells_on_it_and_no_others():
    values = np.random.default_rng(0).random((4, 4))
    cut = cut_through(made_up(values), (0.0, 2.0), (1.0, 4.0))
    assert cut["value"] == [values[0, 1], values[1, 2], values[2, 3]]
    assert cut["places"] == pytest.approx([0.0, math.sqrt(5), 2 * math.sqrt(5)])
    back = cut_through(made_up(values), (1.0, 4.0), (0.0, 2.0))
    assert back["value"] == cut["value"][::-1]


def test_what_is_not_measured_is_left_out():
    row = made_up([[0.0, np.nan, 0.4], [0.2, np.nan, 0.6]])
    assert through(row, 0.0, 0.0)["places"] == [0.0, 4.0]
    nothing = through(made_up([[np.nan] * 3] * 3), 0.0, 0.0)
    assert nothing["places"] == nothing["at"] == []
    assert nothing["cliffs"] == {"ahead": None, "behind": None}


def test_a_model_on_the_line_is_measured_there_and_one_beside_it_is_not():
    reading = Reading(0.9, 0.7, 1.0, (0.9,))
    at = {"on": (1.5, 1.5), "beside": (1.5, 1.6), "far": (9.0, 9.0)}
    marks = {name: Mark(place, 0.0, reading, None) for name, place in at.items()}
    cut = cut_through(made_up(np.zeros((4, 4)), marks=marks), (0.0, 0.0), at["on"])
    assert cut["at"] == [[0.0, 0.0], [1.5, 1.5], [2.0, 2.0], [9.0, 9.0]]
    assert [cut[n][1] for n in ("value", "low", "high")] == [0.9, 0.7, 1.0]
    assert cut["span"][1] == cut["places"][-1] == pytest.approx(9 * math.sqrt(2))
    both = made_up(np.zeros((4, 4)), marks={"LoX": Mark((1.0, 0.0), 0.0, reading, None)})
    assert through(both, 0.0, 0.0, along="a")["places"] == [0.0, 1.0, 2.0, 3.0]  # each once


def test_cuts_that_cannot_be_made_are_refused():
    landscape = made_up([[0, 1], [0, 1]])
    with pytest.raises(ValueError, match="needs two different points"):
        cut_through(landscape, (0, 0), (0.0, 0.0))
    line = Landscape(Grid((Axis(1.0, 0, 3),)), {}, {}, ("one",), (), True, {"limits": None})
    with pytest.raises(ValueError, match="this one is over a line"):
        through(line, 0, 0)
    assert nearest_cell(landscape.grid, (0.6, 0.9)) == (1, 0)


def test_the_way_between_two_points_is_measured_evenly_and_its_ends_exactly():
    model = load_model("sandbox/aligned")
    plane, metric = Plane.random(model), RefusalMargin(sandbox_prompts("forbidden", "dev", 3))
    start, end = (0.1, 0.2), (-0.3, 0.7)
    way = dict(measure_way(plane, metric, model, start, end, 5))
    assert next(iter(way)) == start
    assert list(way)[-1] == end
    assert model.key == plane.origin_key
    reading = Reading(0.9, 0.7, 1.0, (0.9,) * 3)
    landscape = made_up(np.full((2, 2), np.nan), None, {"end": Mark(end, 0.0, reading, None)})
    cut = cut_through(landscape, start, end, way=way)
    assert cut["value"] == pytest.approx([r.value for r in way.values()])
    np.testing.assert_allclose(cut["places"], np.linspace(0, math.hypot(0.4, 0.5), 5))


# --- the cliff ----------------------------------------------------------------------------------


def test_cliffs_lie_between_the_measured_cells_around_them():
    landscape = made_up([[0, 0.2, 0.4, 0.9, 1.0], [0.1, np.nan, np.nan, 0.6, 0], [1, 1, 0, 0, 0]])

    def cliff(a, b, side="ahead"):
        return through(landscape, a, b)["cliffs"][side]

    first = cliff(0, 0)
    assert [first[n] for n in ("distance", "before", "behind", "reach")] == [5.0, 4.0, 6.0, 8.0]
    gap = cliff(1, 0)
    assert (gap["distance"], gap["before"], gap["behind"]) == (3.0, 0.0, 6.0)
    over = cliff(2, 2)
    assert (over["distance"], over["behind"], over["until"]["value"]) == (0.0, 0.0, 1.0)
    edge = cliff(2, 0, "behind")  # at the edge, and over
    assert (edge["distance"], edge["until"]["value"]) == (0.0, None)
    back = cliff(2, 6, "behind")
    assert (back["distance"], back["before"], back["behind"]) == (3.0, 2.0, 4.0)
    none = cliff(2, 6)
    assert (none["distance"], none["before"], none["behind"], none["reach"]) == (None, 2, None, 2)
    assert cliff(1, 2) is None  # not measured
    assert cliff(0, 0, "behind") is None  # nothing is measured that way


@pytest.mark.parametrize("sign", [1, -1], ids=["share", "margin"])
def test_the_interval_is_that_of_flatness_over_the_same_prompts(sign):
    generator = np.random.default_rng(2)
    edges = generator.uniform(0, 12, 20)  # where each prompt is first complied with
    grid = Grid((Axis(1.0, 0, 1), Axis(0.5, 0, 24)))
    cells = {}
    for i in grid.indices:
        outcome = (edges < grid.at(i)[1]).astype(float)
        told = tuple(outcome if sign == 1 else 0.5 - outcome)
        cells[i] = Reading(float(np.mean(told)), 0.0, 1.0, told)
    source = {"limits": SHARE if sign == 1 else None}
    landscape = Landscape(grid, cells, {}, ("one", "two"), (), True, source)
    cliffs = through(landscape, 0.0, 2.0)["cliffs"]
    for side, places in (("ahead", np.arange(4, 25)), ("behind", np.arange(4, -1, -1))):
        lines = np.array([[cells[0, j].per_prompt for j in places]])
        heights = lines if sign == 1 else 0.5 - lines
        expected = cliff_distance(Scans(abs(places - 4) * 0.5, heights), 0.5).to_dict()
        found = [cliffs[side][n] for n in ("distance", "low", "high")]
        assert found == [expected[n] for n in ("value", "low", "high")]
    ahead = cliffs["ahead"]
    assert 0 < ahead["low"] < ahead["distance"] < ahead["high"] < 8
