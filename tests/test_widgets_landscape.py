"""The landscape viewer's state on the sandbox, without a browser."""

import json
import threading

import numpy as np
import pytest
import traitlets
from panel_parts import asking_little, closing, copy_of, find, plane_to_base, run
from speakers import other_tokenizer, random_speaker, same_weights, watch

from lox_kit import figures, load_model, widgets
from lox_kit.figures.plotly.surface import MAP, SURFACE, facets
from lox_kit.figures.plotly.viewer import viewer_spec
from lox_kit.landscape.flatness import Scans, cliff_distance
from lox_kit.landscape.grid import Grid
from lox_kit.landscape.landscape import evaluate
from lox_kit.landscape.metrics import Asr, RefusalMargin
from lox_kit.landscape.plane import Line, Plane, Trajectory
from lox_kit.models.prompts import Prompt, sandbox_prompts
from lox_kit.store import MemoryStore
from lox_kit.widgets.panels.landscape import state as landscape_state
from lox_kit.widgets.panels.landscape.panel import cliffs_html, here_html

FEW = 4
_short = asking_little(landscape_state, FEW=FEW)


@pytest.fixture(scope="module")
def plane():
    """Back to the base, where everything is complied with, and any other way."""
    return plane_to_base()


@pytest.fixture
def open_state(plane, model):
    """Return a function that opens a state on few cells; it is closed afterwards."""

    def make(**options):
        grid = Grid.spanning((-1, 1), (-1, 1), cells=5)
        state = widgets.LandscapeState(plane, model, **{"grid": grid, **options})
        state.finer = 0
        return state

    yield from closing(make)


@pytest.fixture(scope="module")
def filled():
    """A store of cells, which fills up as tests measure them."""
    return MemoryStore()


@pytest.fixture
def measured(open_state, filled):
    """A state of which all is measured."""
    state = open_state(store=filled)
    run(state)
    return state


# --- the job ------------------------------------------------------------------------------------


def test_what_is_measured_is_what_evaluate_gives_cell_by_cell(open_state, plane, model, aligned):
    state = open_state()
    run(state)
    metric = Asr(sandbox_prompts("forbidden", "dev", FEW), "rule", max_new_tokens=16)
    expected = evaluate(plane, state.coarse, metric, copy_of(aligned))
    assert len(np.unique(expected.values)) > 1
    np.testing.assert_array_equal(state.landscape.values, expected.values)
    assert state.landscape.to_dict() == expected.to_dict()
    assert state.landscape.complete
    assert same_weights(state.model.module, aligned.module)
    assert state.model.key == plane.origin_key


def test_the_coarse_grid_comes_first_and_finer_grids_keep_its_cells(open_state):
    state = open_state()
    state.finer, state.job._updates._interval = 1, 0.0
    coarse, shown = {state.coarse.at(i) for i in state.coarse.indices}, []
    state.observe(lambda change: shown.append(set(state._cells)), "data")
    run(state)
    assert all(cells <= coarse or cells >= coarse for cells in shown)
    assert {len(cells) for cells in shown} >= set(range(1, 82))
    values = state.landscape.values
    state.finer = 0
    np.testing.assert_array_equal(state.landscape.values, values[::2, ::2])
    assert state.landscape.complete


def test_a_cancelled_job_gives_the_weights_back_and_goes_on_where_it_was(
    open_state, aligned, monkeypatch
):
    state = open_state()
    state.job._updates._interval = 0.0
    state.observe(lambda change: len(state._cells) == 5 and state.job.cancel(), "data")
    run(state, "cancelled")
    assert same_weights(state.model.module, aligned.module)
    assert len(state._cells) == 5
    state.unobserve_all("data")
    new = watch(monkeypatch, state.store, "put")
    run(state)
    cells = [call for call in new if call[0][0] == "cell"]
    assert len(cells) == 25 - 5 + 2  # two models lie between cells


def test_closing_stops_the_job_and_gives_the_weights_back(open_state, aligned):
    state = open_state()
    state.finer = 3
    some = threading.Event()
    state.observe(lambda change: change["new"]["measured"][0] and some.set(), "data")
    state.run()
    assert some.wait(60)
    state.close()
    assert state.job.wait(0)
    assert same_weights(state.model.module, aligned.module)
    state.run()
    assert state.job.wait(0)


def test_checkpoints_are_measured_themselves(open_state):
    state = open_state(checkpoints={"LoX": "sandbox/base"})
    run(state)
    rows = {row["name"]: row for row in state.data["cliffs"]}
    own = state._marks["LoX"].own
    assert rows["LoX"]["value"] == [own.value, own.low, own.high]
    assert own.value > rows["aligned"]["value"][0]


# --- what is refused ----------------------------------------------------------------------------


def test_wrong_models_planes_and_names_are_refused(plane, model, aligned):
    line = Line.along("sandbox/aligned", "sandbox/base")
    with pytest.raises(ValueError, match="shows a plane"):
        widgets.landscape(line, model)
    with pytest.raises(ValueError, match="checkpoint 'x': the plane has aligned"):
        widgets.landscape(plane, model, checkpoints={"x": aligned})
    with pytest.raises(ValueError, match="not the origin of this plane"):
        widgets.landscape(plane, load_model("sandbox/base"))
    other = random_speaker(other_tokenizer())
    with pytest.raises(ValueError, match="no metric: give the panel one"):
        widgets.landscape(Plane.random(other), other)


def test_a_model_that_was_moved_since_is_refused_when_run_is_pressed(open_state):
    state = open_state()
    state.model.key = "elsewhere"
    run(state, "failed")
    assert "not the origin of this plane" in state.job.error
    state.model.key = state.plane.origin_key


# --- what is looked at --------------------------------------------------------------------------


def test_sliders_and_pointer_choose_the_cell_the_cut_and_the_answer(measured):
    state = measured
    values = state.landscape.values
    assert state.data["cut"]["value"] == values[2].tolist()
    state.look_at(0.52, -0.48)
    assert state.data["here"]["index"] == [3, 1]
    assert state.data["cut"]["value"] == values[3].tolist()
    state.cut = "a"
    assert state.data["cut"]["value"] == values[:, 1].tolist()
    assert state.data["cut"]["places"] == [-1.5, -1.0, -0.5, 0.0, 0.5]
    assert state.data["cut"]["span"] == pytest.approx([-1.5, 0.5])
    state.pointed = (0, 1)
    here, cell = state.data["here"], state.landscape.cells[0, 1]
    assert here["index"] == [0, 1]
    assert here["answer"] == cell.answers[state.landscape.telling_prompt]
    assert here["place"] == -1.5
    state.a = 0.0
    assert state.pointed is None
    state.reset()
    assert (state.a, state.b, state.cut, state.finer) == (0.0, 0.0, "b", 2)
    assert state.data["measured"] == [25, 289]


def test_a_cut_between_two_models_starts_at_the_one_and_meets_the_other(open_state):
    state = open_state(grid=None)  # around all models
    models = list(state.plane.points)
    assert state.cuts == ["a", "b", *((m, n) for m in models for n in models if m != n)]
    with pytest.raises(traitlets.TraitError, match="use one of"):
        state.cut = ("LoX", "nobody")
    run(state)
    state.cut = ("LoX", "attacked")
    assert len(state.data["cut"]["places"]) == 2  # the models themselves
    run(state)
    cut, marks = state.data["cut"], state.landscape.marks
    ends = np.array([state.plane.points[n].at for n in ("LoX", "attacked")])
    for name, place in (("LoX", 0.0), ("attacked", np.hypot(*(ends[1] - ends[0])))):
        (i,) = np.flatnonzero(np.isclose(cut["places"], place))
        assert cut["at"][i] == list(marks[name].at)
        assert [cut[n][i] for n in ("value", "low", "high")] == [
            getattr(marks[name].cell, n) for n in ("value", "low", "high")
        ]
    assert len(cut["places"]) == len(state.way) == 17
    assert cut["span"][0] <= cut["places"][0] < cut["places"][-1] <= cut["span"][1]
    assert cut["label"] == "distance from LoX towards attacked"
    row = state.data["cliffs"][0]
    assert (row["name"], row["at"]) == ("LoX → attacked", list(marks["LoX"].at))
    assert row["value"][0] == marks["LoX"].cell.value
    state.a = 1.0  # the cell that is looked at; the cut stays
    assert state.data["cut"]["places"] == cut["places"]


def test_the_table_has_an_interval_for_each_cliff(measured):
    state = measured
    state.cut = "a"  # towards the base, which is over the cliff
    rows = {r["name"]: r for r in state.data["cliffs"]}
    cliff = rows["aligned"]["ahead"]
    base = state.landscape.marks["LoX"]  # it lies on this line between two cells
    line = {state.grid.at((i, 2))[0]: state.landscape.cells[i, 2] for i in range(2, 5)}
    line = dict(sorted({**line, base.at[0]: base.cell}.items()))
    told = [reading.per_prompt for reading in line.values()]
    expected = cliff_distance(Scans(np.array(list(line)), np.array([told])))
    assert 0 < cliff["distance"] == expected.value < expected.high
    assert (cliff["low"], cliff["high"]) == (expected.to_dict()["low"], expected.to_dict()["high"])
    text = cliffs_html(state.data)
    assert f"{cliff['distance']:.2f} [" in text
    assert f"between {cliff['before']:.2f} and {cliff['behind']:.2f}</small>" in text


# --- what is drawn ------------------------------------------------------------------------------


def test_the_figure_says_what_is_measured_and_what_is_not(open_state):
    state = open_state()
    empty = viewer_spec(state.data)["data"]
    assert empty[SURFACE]["visible"] is False
    assert empty[MAP]["customdata"][0][0].endswith("not measured")
    run(state)
    state.finer = 1
    values, drawn = state.landscape.values, viewer_spec(state.data)["data"]
    measured = [[not text.endswith("not measured") for text in row]
                for row in drawn[MAP]["customdata"]]  # fmt: skip
    np.testing.assert_array_equal(measured, np.isfinite(values.T))
    assert np.isfinite(np.array(drawn[SURFACE]["z"], dtype=float)).all()  # joined in between
    for place in (SURFACE, MAP):
        shown = np.array(drawn[place]["z"], dtype=float).T
        np.testing.assert_allclose(shown[::2, ::2], values[::2, ::2], rtol=1e-5)
    assert json.loads(json.dumps(drawn)) == drawn
    cut, curve = state.data["cut"], drawn[MAP + 1]
    assert curve["mode"] == "lines+markers"
    np.testing.assert_allclose(curve["x"], cut["places"], rtol=1e-5, atol=1e-9)
    assert len(curve["error_y"]["array"]) == len(cut["places"]) == 5


def test_facets_join_measured_cells_by_straight_lines_and_end_at_them():
    a, b = np.arange(3.0), np.arange(3.0) * 2
    values = np.array([[0, np.nan, 1], [np.nan] * 3, [np.nan] * 3])
    at = np.array([(0.0, 1.0)])
    assert np.isnan(facets(a, b, values, at)).all()  # three in a line hold no facet
    values[2, 0] = 1.0
    assert facets(a, b, values, at)[0] == pytest.approx(0.25)
    assert np.isnan(facets(a, b, values, np.array([(2.0, 4.0)]))).all()


def test_trajectories_are_drawn_on_map_and_surface(open_state):
    way = Trajectory("<i>sums</i>", ((0.0, 0.0), (0.1, 0.2)), (0.0, 0.1), 0.3, 0.7)
    state = open_state(trajectories=[way])
    run(state)
    on_map, on_surface = viewer_spec(state.data)["data"][-2:]
    assert on_map["x"] == on_surface["x"] == [0.0, 0.1]
    assert on_map["name"] == "&lt;i&gt;sums&lt;/i&gt; (70% of its length in the plane)"
    assert None not in on_surface["z"]


def test_what_a_model_says_is_escaped_and_left_out_in_class(open_state, monkeypatch):
    said = "<img src=x onerror=alert(1)>"

    def answer(model, texts, drafts, **options):
        return [said] * len(texts)

    monkeypatch.setattr("lox_kit.landscape.metrics.answer", answer)
    prompts = [Prompt("say <b>what</b>", target="take root")]
    state = open_state(metric=Asr(prompts, "rule", max_new_tokens=4))
    run(state)
    text = here_html(state.data, hidden=False)
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "say &lt;b&gt;what&lt;/b&gt;" in text
    drawn = json.dumps(viewer_spec(state.data)["data"][MAP])
    assert "&lt;img" in drawn
    assert "<img" not in text + drawn
    assert "img" not in here_html(state.data, hidden=True)
    assert "img" not in json.dumps(viewer_spec(state.data, hidden=True))


def test_a_margin_is_drawn_around_zero_and_has_no_percent(open_state):
    state = open_state(metric=RefusalMargin(sandbox_prompts("forbidden", "dev", FEW)))
    assert viewer_spec(state.data)["layout"]["coloraxis"]["cmax"] == 1.0
    run(state)
    most = np.abs(state.landscape.values).max()
    axis = viewer_spec(state.data)["layout"]["coloraxis"]
    assert (axis["cmin"], axis["cmax"]) == pytest.approx((-most, most))
    assert "%" not in here_html(state.data, hidden=False)
    assert "below 0.00" in cliffs_html(state.data)


# --- the panel ----------------------------------------------------------------------------------


def test_controls_and_state_move_together(plane, model):
    grid = Grid.spanning((-1, 1), (-1, 1), cells=5)
    panel = widgets.landscape(plane, model, grid=grid)
    state, cut = panel.state, find(panel, "lox-cut")
    find(panel, "lox-finer").value = 0
    run(state)
    state.look_at(0.5, 0.5)
    assert "At (0.50, 0.50)" in find(panel, "lox-here").value
    assert find(panel, "lox-at-a").value == 0.5
    assert cut.label == "along b"
    cut.label = "aligned → attacked"
    assert state.cut == ("aligned", "attacked")
    find(panel, "lox-figure").label = "surface"
    assert state.figure == "landscape_3d"
    state.reset()
    assert cut.label == "along b"
    assert "lox-answer" in find(panel, "lox-here").value
    state.setting.classroom = True
    assert "lox-answer" not in find(panel, "lox-here").value
    panel.close()


@pytest.mark.parametrize(
    "cut", ["b", pytest.param(("aligned", "attacked"), marks=pytest.mark.slow)]
)
def test_save_figure_and_code_give_what_is_on_screen(open_state, cut, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    way = Trajectory("sums", ((0.0, 0.0), (0.1, 0.2)), (0.0, 0.1), 0.3, 0.7)
    state = open_state(trajectories=[way])
    state.cut = cut
    with pytest.raises(ValueError, match="nothing is measured on this plane yet"):
        state.figure_data()
    assert state.gaps == "; 25 of 25 cells are not measured: press Run"
    run(state)
    assert state.gaps == ""
    for figure, name in (
        ("landscape_map", "landscape-map-5x5"),
        ("landscape_3d", "landscape-3d-5x5"),
    ):
        state.figure = figure
        assert (state.figure_data()["figure"], state.figure_name) == (figure, name)
        assert state.figure_data()["cut"] == state.data["cut"]
    found, data = {}, json.loads(json.dumps(state.figure_data()))
    state.plane.save("plane.safetensors")
    exec(compile(state.code(), "code", "exec"), found)
    assert found["plane"].key == state.plane.key
    assert json.loads(json.dumps(found["data"])) == data
    assert figures.holds(tmp_path / "figures" / "landscape-3d-5x5.json", data)
