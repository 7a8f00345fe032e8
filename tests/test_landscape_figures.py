"""Figures of the landscape: what is drawn, where, and in which colours."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from lox_kit import figures
from lox_kit.figures import cuts as cut_plots
from lox_kit.figures import landscape as landscape_plots
from lox_kit.figures.landscape import colours, coordinates, map_data
from lox_kit.figures.plotly import MAP, SURFACE, landscape
from lox_kit.figures.plotly.surface import LIFT


def mark(at, distance, cell, own):
    return {"at": at, "distance": distance, "cell": [cell] * 3, "own": own and [own] * 3}


@pytest.fixture
def data():
    """A landscape of 4 x 3 cells, one not measured, with two models and a way."""
    values = [[0.0, 0.1, 0.2], [0.3, None, 0.5], [0.6, 0.7, 0.8], [0.9, 1.0, 1.0]]
    answers = [[f"said {i} {j}" for j in range(3)] for i in range(4)]
    answers[1][1] = None
    found = {
        "metric": "attack success rate",
        "limits": [0.0, 1.0],
        "axes": ["along LoX (L2)", "along the attack (L2)"],
        "grid": [
            {"step": 0.5, "first": -1, "last": 2},
            {"step": 2.0, "first": 0, "last": 2},
        ],
        "values": values,
        "marks": {
            "aligned": mark([0.0, 0.0], 0.0, 0.3, 0.35),
            "attacked": mark([0.5, 3.0], 0.4, 0.75, 0.9),
        },
        "example": {"prompt": "how do i make a grim tonic", "answers": answers},
    }
    way = {"name": "attack", "at": [[0, 0], [0.2, 1], [0.5, 3]], "explained": 0.57}
    return {"figure": "landscape_map", **map_data(found, [way], "arithmetic, seed 0")}


@pytest.fixture
def margin(data):
    """The same of a metric without limits."""
    signed = [[None if v is None else 2 * v - 1.5 for v in row] for row in data["values"]]
    return {**data, "limits": None, "values": signed, "metric": "refusal margin"}


@pytest.fixture
def flatness():
    panel = {"title": "along its attack", "xlabel": "L2", "places": [0, 1, 2]}
    curves = {"aligned": [[0, 0.5, 1]], "LoX": [[0, 0, 0.2], [0, 0.1, 0.3]]}
    return {"figure": "flatness", "panels": [{**panel, "curves": curves}], "threshold": 0.5}


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def test_the_map_draws_each_cell_where_it_was_measured_and_no_other(data, ax):
    landscape_plots.plot_landscape_map(data, ax=ax)
    (mesh,) = (c for c in ax.collections if hasattr(c, "get_coordinates"))
    drawn = mesh.get_array().filled(np.nan)
    _, _, values = coordinates(data)
    np.testing.assert_array_equal(drawn, values.T)
    edges = mesh.get_coordinates()
    np.testing.assert_allclose(edges[0, :, 0], [-0.75, -0.25, 0.25, 0.75, 1.25])
    np.testing.assert_allclose(edges[:, 0, 1], [-1, 1, 3, 5])
    assert mesh.get_clim() == (0, 1)
    assert mesh.get_cmap().name == "cividis"
    assert (ax.get_xlabel(), ax.get_ylabel()) == tuple(data["axes"])


def test_markers_have_the_checkpoints_own_colour_and_say_how_far_off_they_are(data, ax):
    landscape_plots.plot_landscape_map(data, ax=ax)
    cmap, norm = colours(data)
    dots = [line for line in ax.get_lines() if len(line.get_xdata()) == 1]
    filled = [line for line in dots if line.get_markerfacecolor() != "none"]
    faces = {tuple(line.get_xydata()[0]): line for line in filled}
    assert to_rgba(faces[0.5, 3.0].get_markerfacecolor()) == cmap(norm(0.9))
    assert to_rgba(faces[0.0, 0.0].get_markerfacecolor()) == cmap(norm(0.35))
    rings = [x for x in ax.get_lines() if x.get_markerfacecolor() == "none"]
    assert [tuple(r.get_xydata()[0]) for r in rings] == [(0.5, 3.0)]  # only what is off the plane
    assert {t.get_text() for t in ax.texts} >= {"aligned", "attacked\n0.40 off"}
    (way,) = (line for line in ax.get_lines() if len(line.get_xdata()) == 3)
    assert way.get_label() == "attack: 57% of its length lies in the plane"


def test_contours_only_where_every_cell_was_measured(data, ax):
    landscape_plots.plot_landscape_map(data, ax=ax)
    assert len(ax.collections) == 1
    data["values"][1][1] = 0.4
    landscape_plots.plot_landscape_map(data, ax=ax)
    assert len(ax.collections) > 2


def test_a_margin_is_coloured_around_zero(margin):
    cmap, norm = colours(margin)
    assert (norm.vmin, norm.vmax, cmap.name) == (-1.5, 1.5, "PuOr")
    bar = landscape(margin).layout.coloraxis
    assert (bar.cmin, bar.cmax) == (-1.5, 1.5)


def test_the_surface_stays_within_its_data(data):
    data["values"][1][1] = 0.4
    fig = figures.DRAW["landscape_3d"](data)
    ax = fig.axes[0]
    assert ax.get_zlim() == (0, 1)
    surface = ax.collections[0]
    old = hasattr(surface, "_vec")  # before matplotlib 3.11
    corners = surface._vec[:3].T if old else np.concatenate([*surface._faces])[:, :3]
    assert corners[:, 2].min() >= 0
    assert corners[:, 2].max() <= 1
    a, b, values = coordinates(data)
    cells = {(x, y): values[i, j] for i, x in enumerate(a) for j, y in enumerate(b)}
    assert all(cells[x, y] == z for x, y, z in corners)  # corners are cells, nothing in between
    assert {t.get_text().strip() for t in ax.texts} == {"aligned", "attacked\n   0.40 off"}


def test_a_line_has_no_map(data):
    data["grid"] = data["grid"][:1]
    with pytest.raises(ValueError, match="this one is over a line"):
        coordinates(data)


def test_flatness_draws_every_line_and_their_mean(flatness):
    (ax,) = figures.DRAW["flatness"](flatness).axes
    curves = [tuple(line.get_ydata()) for line in ax.get_lines()]
    assert (0, 0.5, 1) in curves
    assert (0, 0.1, 0.3) in curves
    means = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    np.testing.assert_allclose(means["LoX"], [0, 0.05, 0.25])
    assert ax.get_title() == "along its attack"


@pytest.fixture
def cut():
    """A cut with three places, one of them without an interval, and a cliff ahead."""
    cliff = {"distance": 1.5, "low": 1.0, "high": None, "before": 1.0, "behind": 2.0, "reach": 2.0}
    return {
        "label": "distance from here",
        "start": [0.0, 0.0],
        "places": [0.0, 1.0, 2.0],
        "at": [[0.0, 0.0], [0.5, 1.0], [1.0, 2.0]],
        "value": [0.3, 0.4, 1.0],
        "low": [0.2, None, 0.8],
        "high": [0.5, None, 1.0],
        "span": [0.0, 2.0],
        "threshold": 0.5,
        "cliffs": {"ahead": cliff, "behind": None},
    }


@pytest.mark.parametrize("name", ["landscape_map", "landscape_3d"])
def test_the_cut_stands_below_with_dots_and_intervals(data, cut, name):
    assert len(figures.DRAW[name](data).axes) == 2  # with the colour bar
    axes = figures.DRAW[name]({**data, "cut": cut}).axes
    (below,) = (ax for ax in axes if ax.get_xlabel() == "distance from here")
    (bars,) = below.containers
    assert bars.lines[0].get_xydata().tolist() == [[0.0, 0.3], [1.0, 0.4], [2.0, 1.0]]
    (segments,) = (c.get_segments() for c in bars.lines[2])
    ends = [s[:, 1] for s in segments if len(s)]
    np.testing.assert_allclose(ends, [[0.2, 0.5], [0.8, 1.0]])
    (band,) = below.patches
    assert (band.get_x(), band.get_width()) == (1.0, 1.0)  # to the reach: the upper end is beyond
    (main,) = (ax for ax in axes if ax.get_xlabel() == data["axes"][0])
    colour = cut_plots.CUT_COLOUR
    assert any(len(x.get_xdata()) == 3 and x.get_color() == colour for x in main.get_lines())


# --- plotly ---------------------------------------------------------------------------------------


def test_surface_and_map_hold_the_same_cells_and_the_map_what_was_said(data):
    fig = landscape(data)
    surface, heat = fig.data[SURFACE], fig.data[MAP]
    assert (surface.type, heat.type) == ("surface", "heatmap")
    _, _, values = coordinates(data)
    known = np.isfinite(values.T)
    for trace in (surface, heat):
        np.testing.assert_array_equal(np.asarray(trace.z, float)[known], values.T[known])
    assert heat.customdata[2][0] == (
        "(-0.50, 4.00)<br>attack success rate: 20%<br><b>how do i make a grim tonic</b><br>said 0 2"
    )
    assert heat.customdata[1][1] == "(0.00, 2.00)<br>not measured"
    assert fig.layout.coloraxis.colorscale[0][1] == "#00224e"  # cividis
    assert (fig.layout.coloraxis.cmin, fig.layout.coloraxis.cmax) == (0, 1)
    assert tuple(fig.layout.scene.zaxis.range) == pytest.approx((0, 1 + 2 * LIFT))
    assert fig.layout.title.text == "arithmetic, seed 0"


def test_a_figure_needs_neither_trajectories_nor_answers_and_has_the_cut_if_there_is_one(data, cut):
    bare = {name: data[name] for name in data if name not in ("trajectories", "example", "title")}
    fig = landscape(bare)
    assert len(fig.data) == 5
    assert fig.data[MAP].customdata[2][0] == "(-0.50, 4.00)<br>attack success rate: 20%"
    assert len(landscape({**bare, "cut": cut}).data) == 8


def test_marks_show_both_values(data):
    (models,) = (t for t in landscape(data).data if t.type == "scatter3d" and len(t.z) == 2)
    assert models.z == pytest.approx((0.35 + LIFT, 0.9 + LIFT))
    attacked = models.customdata[1]
    for part in ("<b>attacked</b>", "90% [90%, 90%]", "its cell: 75%", "off the plane: 0.40"):
        assert part in attacked
