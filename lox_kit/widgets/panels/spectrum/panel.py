"""Panel 1, the spectrum explorer: where alignment acted, and in how many directions."""

from __future__ import annotations

from html import escape

import ipywidgets

from lox_kit.figures import in_layers
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
    state = SpectrumState(subspace, setting)
    panel = Panel("Spectrum explorer", QUESTION, state)
    figure = panel.figure("explorer", lambda: explorer_spec(state.data, panel.size))
    matrix = ipywidgets.Dropdown(options=short_names(state.names), description="matrix")
    view = ipywidgets.ToggleButtons(options=VIEW_LABELS)
    where = {  # columns and rows as the figure has them: what is outside the layers is one row
        (escape(kind), "outside" if kind == layer else escape(layer)): name
        for name, kind, layer in in_layers(state.names)
    }

    def choose(trace, points, selector) -> None:
        if points.xs and (name := where.get((str(points.xs[0]), str(points.ys[0])))):
            state.selected = name

    for trace in figure.data:
        trace.on_click(choose)
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
    return [
        (kind if kind == layer else f"layer {layer} · {kind}", name)
        for name, kind, layer in in_layers(names)
    ]
