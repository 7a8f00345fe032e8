"""Panel 3, the landscape viewer: where the cliff is, seen while it is measured.

Below it: the cell looked at with its answer, and the cliffs. What was written is escaped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape

import ipywidgets

from lox_kit.figures.plotly import MAP, SURFACE, Spec, shown_value, viewer_spec
from lox_kit.landscape import Index, nearest_cell
from lox_kit.widgets.export import SIZE, PagePanel, Recording
from lox_kit.widgets.shell import Panel, controls, opens
from lox_kit.widgets.tables import NONE, folded, row, table

from .state import FIGURES, MOST_FINER, LandscapeState

QUESTION = "How far is it from each model to the cliff, and how flat is the ground on the way?"


@opens(LandscapeState)
def landscape(*arguments, **options) -> PagePanel:
    """Open the landscape viewer: surface, map, a cut and its cliffs, filled in coarse to fine.

    **Run** moves the weights of `model` in place, so give it a model of its own (not one under a
    dial); they are the origin's again whenever it ends. Opening it again for the same model closes
    the one before.

    Parameters
    ----------
    plane : Plane
    model : Model
        With the weights of the plane's origin, from `load_model`.
    metric : Asr, RefusalMargin or Loss, optional
        Default in the sandbox the ASR on 24 development prompts by the rule.
    checkpoints : mapping of name to Model or checkpoint, optional
        Of the plane's `points`: these are measured themselves, too.
    trajectories : sequence of Trajectory, optional
        From `landscape.project`.
    grid : Grid, optional
        The coarse one, which is halved up to three times; default 5 x 5 around the plane's points.
    store : Store, optional
        Keeps the cells beyond the session; those that it has are not measured again.
    keep_on : "device" or "cpu"
        Where copy and directions are, see `landscape.evaluate`: with "cpu" beside a GPU.
    setting : Setting, optional
        Shared with other panels.

    Raises
    ------
    ValueError
        If the model is not the plane's origin, a checkpoint's name is not on the plane, it is no
        plane, or there is no metric and the model is not of the sandbox.
    """
    state = LandscapeState(*arguments, **options)
    panel, setting = PagePanel("Landscape viewer", QUESTION, state), state.setting
    panel.record = partial(record, state)
    viewer = panel.figure(
        "viewer", lambda: viewer_spec(state.data, panel.size, hidden=setting.classroom)
    )
    point = _at_cell(panel, lambda cell: setattr(state, "pointed", cell))
    look = _at_cell(panel, lambda cell: state.look_at(*state.grid.at(cell)))
    for place in (SURFACE, MAP):
        viewer.data[place].on_hover(point)
    for trace in viewer.data:  # a model's marker and a trajectory lie over their cells
        if getattr(trace, "xaxis", None) != "x2":  # the cut's
            trace.on_click(look)
    return panel.fill(
        _actions(panel),
        _where(panel),
        viewer,
        panel.html("here", lambda: here_html(state.data, hidden=setting.classroom)),
        panel.html("cliffs", lambda: cliffs_html(state.data)),
    )


def _at_cell(panel: Panel, act: Callable[[Index], None]) -> Callable:
    """Return what plotly calls where one points or clicks; it acts on the cell that is there."""

    def react(trace, points, selector) -> None:
        if points.xs:
            at = float(points.xs[0]), float(points.ys[0])
            panel.guard(lambda: act(nearest_cell(panel.state.grid, at)))()

    return react


def _actions(panel: Panel) -> ipywidgets.Widget:
    """Return what measures, how finely, and which figure is saved."""
    state = panel.state
    m, n = (len(axis.values) - 1 for axis in state.coarse.axes)
    options = [(f"{m * 2**i + 1} x {n * 2**i + 1}", i) for i in range(MOST_FINER + 1)]
    figure = panel.control("figure", ipywidgets.ToggleButtons(options=list(FIGURES.items())))
    word = ipywidgets.Label("to save").add_class("lox-word")
    return panel.runs(
        panel.button("Run", "play", state.run, "Measure what is missing, coarse to fine"),
        panel.control("finer", ipywidgets.Dropdown(options=options, description="cells")),
        ipywidgets.HBox([word, figure]).add_class("lox-labelled"),
    )


def _where(panel: Panel) -> ipywidgets.Widget:
    """Return what chooses the cell and its cut: along an axis through it, or between two models."""
    state, parts, cuts = panel.state, [], panel.state.cuts
    for i, name in enumerate("ab"):
        low, *_, high = state.grid.axes[i].values
        slider = ipywidgets.FloatSlider(min=low, max=high, description=name, readout_format=".2f")
        ranges = {"step": lambda i=i: state.grid.axes[i].step}
        parts.append(panel.control(name, slider, f"at-{name}", **ranges))
    words = [f"along {c}" if isinstance(c, str) else " → ".join(c) for c in cuts]
    options = list(zip(words, cuts, strict=True))
    cut = ipywidgets.Dropdown(options=options, description="cut")
    cut.tooltip = "Along an axis through this cell, or between two models, measured by Run"
    return controls(*parts, panel.control("cut", cut))


def record(state: LandscapeState, hidden: bool) -> Recording:
    """Return what is shown of every cell."""
    axes = {name: axis.values.tolist() for name, axis in zip("ab", state.grid.axes, strict=True)}

    def view(cell: Index) -> tuple[Spec, list[str]]:
        data = state.at(cell)
        parts = [here_html(data, hidden=hidden), cliffs_html(data)]
        return viewer_spec(data, SIZE, hidden=hidden), parts

    views, source = map(view, state.grid.indices), state.landscape.source
    return Recording(state.measure, axes, state.looked_at, (0, 1), views, source)


def here_html(data: dict, *, hidden: bool) -> str:
    """Return a line for the cell that is looked at, and what the model says there.

    Parameters
    ----------
    data : dict
        `LandscapeState.data`.
    hidden : bool
        Leave the answer out.
    """
    here = data["here"]
    where = f"At ({here['at'][0]:.2f}, {here['at'][1]:.2f})"
    if here["value"] is None:
        return f"<div>{where}: not measured.</div>"
    numbers = _interval(data, [here[n] for n in ("value", "low", "high")])
    count = f"{here['value'] * here['n']:.0f} of " if data["limits"] else ""
    line = f"<div>{where}: {escape(data['metric'])} {numbers}, {count}{here['n']} prompts</div>"
    if here["prompt"] is None or hidden:
        return line
    said = folded(here["answer"] or "(nothing)")
    return f"{line}<b>{folded(here['prompt'])}</b><div class='lox-answer'>{said}</div>"


def cliffs_html(data: dict) -> str:
    """Return the table of models: their values, and the cliff on both sides along the cut."""
    lines = "".join(_line(data, found) for found in data["cliffs"])
    measured, total = data["measured"]
    threshold = shown_value(data, data["cut"]["threshold"])
    heads = ("", data["metric"], "off the plane", "from", "cliff ahead", "cliff behind")
    side = "below" if data["limits"] is None else "above"
    about = (
        "Cliff: distance along the cut's direction, in units of the plane's axes, to where the "
        f"metric goes {side} {threshold}: half way between the two places below it, which are the "
        "grid's resolution. In brackets its 95 % interval over the prompts (bootstrap). "
        f"{measured} of {total} cells are measured; where there are gaps, a nearer cliff can hide "
        "in them."
    )
    caption = "cliff distances read from the grid"
    return table(caption, list(map(escape, heads)), f"<tbody>{lines}</tbody>", about=about)


def _line(data: dict, found: dict) -> str:
    """Return one cell's or model's line."""
    value = _interval(data, found["value"]) if found["value"] else NONE.format("not measured")
    off = "" if found["distance"] is None else f"{found['distance']:.2f}"
    a, b = found["at"]
    sides = _cliff(found["ahead"]), _cliff(found["behind"])
    return row(escape(found["name"]), value, off, f"({a:.2f}, {b:.2f})", *sides)


def _cliff(cliff: dict | None) -> str:
    """Return one distance with its interval, and the places around it."""
    if cliff is None:
        return NONE.format("not measured")
    reach = f"none within {cliff['reach']:.2f}"
    if cliff["distance"] == 0:
        return f"over the cliff{_until(cliff['until'], reach)}"
    if cliff["distance"] is None:
        return reach if cliff["low"] is None else f"{reach} [{cliff['low']:.2f}, {reach}]"
    low, high = (reach if cliff[n] is None else f"{cliff[n]:.2f}" for n in ("low", "high"))
    around = f"<small>between {cliff['before']:.2f} and {cliff['behind']:.2f}</small>"
    return f"{cliff['distance']:.2f} [{low}, {high}]{around}"


def _until(back: dict, reach: str) -> str:
    """Return how far it is back over the cliff, with its interval."""
    if back["value"] is None:
        return "<small>all the way</small>"
    low, high = (reach if back[n] is None else f"{back[n]:.2f}" for n in ("low", "high"))
    return f" until {back['value']:.2f} [{low}, {high}]"


def _interval(data: dict, numbers: list[float]) -> str:
    """Return a value with its 95 % interval."""
    value, low, high = (shown_value(data, v) for v in numbers)
    return f"{value} [{low}, {high}]"
