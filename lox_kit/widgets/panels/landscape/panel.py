"""Panel 3, the landscape viewer: where the cliff is, seen while it is measured."""

from __future__ import annotations

import ipywidgets

from lox_kit.figures.plotly import MAP, SURFACE, viewer_spec
from lox_kit.landscape import nearest_cell
from lox_kit.widgets.drawing import Drawing
from lox_kit.widgets.shell import Panel, opens

from .state import MOST_FINER, LandscapeState
from .table import cliffs_html, here_html

QUESTION = "How far is it from each model to the cliff, and how flat is the ground on the way?"
FIGURES = (("map", "landscape_map"), ("surface", "landscape_3d"))


@opens(LandscapeState)
def landscape(*arguments, **options) -> Panel:
    """Open the landscape viewer: surface, map, a cut and its cliffs, filled in coarse to fine.

    **Run** moves the weights of `model` in place, so give it a model of its own (not one under a
    dial); they are the origin's again whenever it ends. Opening it again for the same model closes
    the one before.

    Parameters
    ----------
    plane : Plane
    model : Model
        With the weights of the plane's origin, from `load_model`.
    metric : Asr or RefusalMargin, optional
        Default in the sandbox the ASR on 24 development prompts by the rule.
    checkpoints : mapping of name to Model or checkpoint, optional
        Of the plane's `points`: these are measured themselves, too.
    trajectories : sequence of Trajectory, optional
        From `landscape.project`.
    grid : Grid, optional
        The coarse one, which is halved up to three times; default 5 x 5 around the plane's points.
    store : Store, optional
        Keeps the cells beyond the session; those that it has are not measured again.
    setting : Look or Setting, optional
        Shared with other panels.

    Raises
    ------
    ValueError
        If the model is not the plane's origin, a checkpoint's name is not on the plane, it is no
        plane, or there is no metric and the model is not of the sandbox.
    """
    return landscape_panel(LandscapeState(*arguments, **options))


def landscape_panel(state: LandscapeState) -> Panel:
    """Return the panel of a state; two panels of one state move together."""
    setting = state.setting
    panel = Panel("Landscape viewer", QUESTION, state)
    drawing = Drawing(viewer_spec(state.data, panel.size, hidden=setting.classroom), "lox-viewer")
    here = ipywidgets.HTML().add_class("lox-here")
    cliffs = ipywidgets.HTML().add_class("lox-cliffs")

    def draw(change=None) -> None:
        with state.job.lock:  # the job draws, too
            data = state.data
            drawing.show(viewer_spec(data, panel.size, hidden=setting.classroom))
            here.value = here_html(data, hidden=setting.classroom)
            cliffs.value = cliffs_html(data)
            panel.refresh()

    state.observe(panel.guard(draw), "data")
    state.observe(panel.guard(panel.refresh), "figure")
    point, look = _pointer(panel, state)
    for place in (SURFACE, MAP):
        drawing.widget.data[place].on_hover(point)
        drawing.widget.data[place].on_click(look)
    parts = [_actions(panel, state), _controls(state), drawing.widget, here, cliffs]
    return panel.fill(*parts, draw=draw)


def _pointer(panel: Panel, state: LandscapeState):
    """Return what pointing at a cell does, and what a click does."""

    def nearest(points) -> tuple[int, int]:
        return nearest_cell(state.grid, (float(points.xs[0]), float(points.ys[0])))

    def point(trace, points, selector) -> None:
        if points.xs:
            panel.guard(lambda: setattr(state, "pointed", nearest(points)))()

    def look(trace, points, selector) -> None:
        if points.xs:
            panel.guard(lambda: state.look_at(*state.grid.at(nearest(points))))()

    return point, look


def _actions(panel: Panel, state: LandscapeState) -> ipywidgets.Widget:
    """Return what measures, how finely, and which figure is saved."""
    sides = [(len(state.coarse.axes[0]) - 1) * 2**i + 1 for i in range(MOST_FINER + 1)]
    others = [(len(state.coarse.axes[1]) - 1) * 2**i + 1 for i in range(MOST_FINER + 1)]
    options = [(f"{m} x {n}", i) for i, (m, n) in enumerate(zip(sides, others, strict=True))]
    finer = ipywidgets.Dropdown(options=options, value=state.finer, description="cells")
    figure = ipywidgets.ToggleButtons(options=FIGURES, value=state.figure)
    ipywidgets.link((state, "finer"), (finer, "value"))
    ipywidgets.link((state, "figure"), (figure, "value"))
    run = panel.button("Run", "play", state.run, "Measure what is missing, coarse to fine")
    parts = [
        run,
        finer.add_class("lox-finer"),
        _labelled("to save", figure.add_class("lox-figure")),
    ]
    return ipywidgets.HBox(parts).add_class("lox-controls")


def _controls(state: LandscapeState) -> ipywidgets.Widget:
    """Return the sliders that choose a cell, and what chooses the cut."""
    sliders = []
    for i, name in enumerate("ab"):
        values = state.grid.axes[i].values
        slider = ipywidgets.FloatSlider(
            getattr(state, name),
            min=values[0],
            max=values[-1],
            step=state.grid.axes[i].step,
            description=name,
            readout_format=".2f",
        ).add_class(f"lox-at-{name}")
        ipywidgets.link((state, name), (slider, "value"))
        sliders.append(slider)

    def resize(change=None) -> None:
        for axis, slider in zip(state.grid.axes, sliders, strict=True):
            slider.step = axis.step

    state.observe(resize, "finer")
    return ipywidgets.HBox([*sliders, _cut(state)]).add_class("lox-controls")


def _cut(state: LandscapeState) -> ipywidgets.Widget:
    """Return what chooses the cut: along an axis through the cell, or between two models."""
    words = [f"along {c}" if isinstance(c, str) else " → ".join(c) for c in state.cuts]
    options = list(zip(words, state.cuts, strict=True))
    cut = ipywidgets.Dropdown(options=options, value=state.cut, description="cut")
    cut.tooltip = "Along an axis through this cell, or between two models, measured by Run"
    ipywidgets.link((state, "cut"), (cut, "value"))
    return cut.add_class("lox-cut")


def _labelled(text: str, buttons: ipywidgets.Widget) -> ipywidgets.Widget:
    """Return buttons with a word before them, on one line."""
    word = ipywidgets.Label(text).add_class("lox-word")
    return ipywidgets.HBox([word, buttons]).add_class("lox-labelled")
