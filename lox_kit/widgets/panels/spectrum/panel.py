"""Panel 1, the spectrum explorer: where alignment acted, and in how many directions."""

from __future__ import annotations

from html import escape

import ipywidgets

from lox_kit.extrapolation import map_layout
from lox_kit.figures.plotly import explorer_spec
from lox_kit.widgets.setting import Setting
from lox_kit.widgets.shell import Panel, controls

from .state import SpectrumState

QUESTION = "Where did alignment act, and in how many directions?"
VIEW_LABELS = (
    ("this matrix", "matrix"),
    ("its layer", "layer"),
    ("its kind", "kind"),
    ("all", "all"),
)


def spectrum(subspace, *, setting: Setting | None = None) -> Panel:
    """Open the spectrum explorer: energy map, singular values, energy against k.

    Parameters
    ----------
    subspace : SafetySubspace
    setting : Setting, optional
        Shared with other panels.
    """
    return spectrum_panel(SpectrumState(subspace, setting))


def spectrum_panel(state: SpectrumState) -> Panel:
    """Return the panel of a state; two panels of one state move together."""
    panel = Panel("Spectrum explorer", QUESTION, state)
    figure = panel.figure("explorer", lambda: explorer_spec(state.data, panel.size))
    matrix = ipywidgets.Dropdown(options=short_names(state.names), description="matrix")
    view = ipywidgets.ToggleButtons(options=VIEW_LABELS)
    for trace, cells in zip(figure.data, map_layout(state.names), strict=False):
        trace.on_click(_chooser(state, *cells))
    return panel.fill(
        controls(
            *panel.sliders("k"),
            panel.control("selected", matrix, "matrix"),
            panel.control("view", view),
        ),
        panel.html("note", lambda: escape(state.note)),
        figure,
    )


def short_names(names: list[str]) -> list[tuple[str, str]]:
    """Return a readable label for every matrix, with its full name, in the map's order."""
    found = []
    for rows, columns, heads in map_layout(names):
        for i, row in enumerate(rows):
            for j, name in enumerate(row):
                if name:
                    inside = columns != ["outside"]
                    label = f"layer {heads[i]} · {columns[j]}" if inside else heads[i]
                    found.append((label, name))
    return found


def _chooser(state: SpectrumState, names, columns: list[str], rows: list[str]):
    """Return what a click on a cell of this map does: its matrix is looked at."""
    where = {}
    for i, row in enumerate(names):
        for j, name in enumerate(row):
            outside = columns == ["outside"]  # drawn as one row, below the layers
            cell = (rows[i], "outside") if outside else (columns[j], rows[i])
            where[tuple(map(escape, cell))] = name  # as the figure has them

    def choose(trace, points, selector) -> None:
        if points.xs and (name := where.get((str(points.xs[0]), str(points.ys[0])))):
            state.selected = name

    return choose
