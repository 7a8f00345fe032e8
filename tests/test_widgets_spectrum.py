"""The spectrum explorer's state and figure, without a browser."""

import dataclasses
import json
import re

import numpy as np
import plotly.graph_objects as go
import pytest
import traitlets
from panel_parts import find

from lox_kit import SafetySubspace, figures, widgets
from lox_kit.extrapolation import spectrum
from lox_kit.figures import spectrum as spectrum_plots
from lox_kit.figures.plotly import spectrum as interactive_spectrum
from lox_kit.widgets.drawing import Drawing
from lox_kit.widgets.panels.spectrum.panel import short_names

Q1 = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def state(subspace):
    return widgets.SpectrumState(subspace)


def test_it_opens_with_six_directions_of_every_matrix(state, subspace):
    assert state.data["k"] == 6
    assert {x["name"] for x in state.data["layers"]} == set(subspace)
    assert state.selected == "model.layers.0.self_attn.q_proj.weight"
    expected = dict(zip(subspace, subspace.energy(6), strict=True))
    assert state.data["energy"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("selected", "view", "part"),
    [
        (Q1, "matrix", Q1),
        (Q1, "layer", ".layers.1."),
        (Q1, "kind", ".q_proj."),
        ("lm_head.weight", "layer", "lm_head|embed_tokens"),
    ],
)
def test_a_view_shows_the_matrices_around_the_selected_one(state, subspace, selected, view, part):
    state.selected, state.view = selected, view
    names = [n for n in subspace if re.search(part, n)]
    assert sorted(x["name"] for x in state.data["layers"]) == sorted(names)


def test_a_setting_is_shared_and_reset_restores_the_start(subspace):
    setting = widgets.Setting(subspace)
    first, second = (widgets.SpectrumState(subspace, setting) for _ in range(2))
    setting.k, first.view, first.selected = 3, "kind", Q1
    assert first.data["k"] == second.data["k"] == 3
    assert second.view == "all"
    first.reset()
    assert (setting.k, first.view, first.selected) == (6, "all", second.selected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: setattr(s.setting, "k", 33), "k=33: use 0 to 32"),
        (lambda s: setattr(s.setting, "k", -1), "k=-1"),
        (lambda s: setattr(s.setting, "alpha", 4.5), "alpha=4.5: use 0 to 4"),
        (
            lambda s: setattr(s, "selected", "lm_tail"),
            "selected='lm_tail': use one of lm_head.weight",
        ),
        (lambda s: setattr(s, "view", "none"), "none"),
    ],
)
def test_a_value_out_of_range_is_refused_and_nothing_changes(state, change, message):
    before = state.data
    with pytest.raises(traitlets.TraitError, match=message):
        change(state)
    assert state.data is before


def test_directions_that_are_not_certified_are_said_to_be(subspace):
    residual = subspace[Q1].residual.clone()
    residual[4] = 0.03
    loose = dataclasses.replace(subspace[Q1], residual=residual, method="krylov")
    info = {**subspace.info, "layers": [Q1], "shapes": [[32, 32]]}
    state = widgets.SpectrumState(SafetySubspace(info, factors={Q1: loose}))
    assert "k=6 goes beyond the certified directions in 1 of 1" in state.note
    state.setting.k = 4
    assert state.note == ""


# --- the figure ---------------------------------------------------------------------------------


def traces(figure, name):
    return [t for t in figure.data if t.name == name]


def test_the_figure_shows_values_over_noise_edge_and_energy_against_k(state, subspace):
    state.selected, state.view = Q1, "matrix"
    state.setting.k = 3
    figure = go.Figure(interactive_spectrum.explorer_spec(state.data))
    (curve,) = traces(figure, "q_proj")
    factors = subspace[Q1]
    edge = spectrum.noise_edge(factors.shape, factors.norm**2)
    np.testing.assert_allclose(curve.y[:-1], factors.S.numpy() / edge, rtol=1e-4)
    (dot,) = traces(figure, "k")
    assert dot.x == (3,)
    assert dot.y[0] == pytest.approx(subspace.energy(3)[list(subspace).index(Q1)], rel=1e-4)
    texts = [a.text for a in figure.layout.annotations]
    assert texts == ["energy of ΔW in the top 3", "noise edge", f"k = 3: {dot.y[0]:.0%}"]
    assert figure.layout.yaxis3.type == "log"


def test_the_map_holds_every_matrix_and_frames_the_selected_one(state, subspace):
    state.selected = Q1
    layers, outside = go.Figure(interactive_spectrum.explorer_spec(state.data)).data[:2]
    held = [n for t in (layers, outside) for row in t.customdata for n in row]
    assert sorted(held) == sorted(subspace)
    assert layers.z[1][0] == state.data["energy"][Q1]
    frame = go.Figure(interactive_spectrum.explorer_spec(state.data)).layout.shapes[-1]
    assert (frame.x0, frame.x1, frame.y0, frame.y1) == (-0.5, 0.5, 0.5, 1.5)


@pytest.mark.parametrize("view", spectrum.VIEWS)
def test_screen_and_paper_have_the_same_colours(state, view):
    state.selected, state.view = Q1, view
    figure = go.Figure(interactive_spectrum.explorer_spec(state.data))
    above = figures.figure_explorer(state.data).subfigs[1].axes[0]
    paper = {
        line.get_label(): spectrum_plots.to_hex(line.get_color())
        for line in above.get_lines()
        if not line.get_label().startswith("_")
    }
    screen = {t.name: spectrum_plots.to_hex(t.line.color) for t in figure.data[6:]}
    assert screen == paper


def test_k_of_none_marks_nothing(state):
    state.setting.k = 0
    figure = go.Figure(interactive_spectrum.explorer_spec(state.data))
    assert traces(figure, "k")[0].x == ()
    assert all(value == 0 for row in figure.data[0].z for value in row)
    figures.figure_explorer(state.data)


def test_a_drawing_that_is_told_what_changed_is_the_figure_drawn_anew(state):
    drawing = Drawing(interactive_spectrum.explorer_spec(state.data), "a-name")
    moves = [("k", 9), ("view", "layer"), ("selected", Q1), ("view", "kind"), ("k", 0)]
    moves += [("view", "matrix"), ("view", "all"), ("selected", "lm_head.weight"), ("k", 32)]
    for name, value in moves:
        setattr(state.setting if name == "k" else state, name, value)
        spec = interactive_spectrum.explorer_spec(state.data, 18 if value == 9 else 12)
        drawing.show(spec)
        told = drawing.widget.to_dict()
        anew = type(drawing.widget)(spec).to_dict()
        shown = [t for t in told["data"] if t.get("visible") is not False]
        strip = [{k: v for k, v in t.items() if k not in ("uid", "visible")} for t in shown]
        fresh = [{k: v for k, v in t.items() if k != "uid"} for t in anew["data"]]
        as_text = {"default": list, "sort_keys": True}
        assert json.dumps(strip, **as_text) == json.dumps(fresh, **as_text), (name, value)
        assert told["layout"] == anew["layout"]


# --- the panel ----------------------------------------------------------------------------------


def test_every_matrix_has_a_label_of_its_own(subspace):
    labels = short_names(list(subspace))
    assert len({label for label, _ in labels}) == len(subspace)
    assert {name for _, name in labels} == set(subspace)
    assert labels[0] == ("layer 0 · q_proj", "model.layers.0.self_attn.q_proj.weight")


def test_a_click_on_a_cell_selects_its_matrix(subspace):
    panel = widgets.spectrum(subspace)
    layers, outside = find(panel, "lox-explorer").data[:2]

    def click(trace, x, y):
        points = type("Points", (), {"xs": [x], "ys": [y]})
        for callback in trace._click_callbacks:
            callback(trace, points, None)

    click(layers, "up_proj", "1")
    assert panel.state.selected == "model.layers.1.mlp.up_proj.weight"
    click(outside, "lm_head", "outside")
    assert panel.state.selected == find(panel, "lox-matrix").value == "lm_head.weight"


def test_the_code_makes_what_is_on_screen(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    subspace = SafetySubspace.from_pair(pair.base, pair.aligned, rank=8, exclude="lm_head", seed=3)
    state = widgets.SpectrumState(subspace)
    state.selected, state.view, state.setting.k = Q1, "kind", 3
    exec(compile(state.code(), "code", "exec"), {})
    saved = tmp_path / "figures" / f"{state.figure_name}.json"
    assert figures.holds(saved, state.figure_data())


def test_a_control_has_no_code_that_would_make_it(subspace):
    from lox_kit import random_subspace

    state = widgets.SpectrumState(random_subspace(subspace, 6))
    with pytest.raises(ValueError, match="control 'random'"):
        state.code()
