"""A plotly figure in a panel: drawn once, then told only what changed."""

from __future__ import annotations

from lox_kit.figures.plotly import Spec
from lox_kit.threads import importing

CONFIG = {"displaylogo": False, "displayModeBar": False, "responsive": True}
HIDDEN = {"type": "scatter", "visible": False}


class Drawing:
    """A `FigureWidget` that follows plain plotly JSON.

    Traces are matched by their place. What a spec lacks at the end is hidden rather than removed,
    because adding and removing traces draws the figure anew.

    Attributes
    ----------
    widget : plotly.graph_objects.FigureWidget
    """

    def __init__(self, spec: Spec, name: str):
        import plotly.graph_objects as go

        with importing("plotly.basewidget"):
            self.widget = go.FigureWidget(spec)
        if hasattr(go.FigureWidget._esm, "changed"):  # a signal by which anywidget keeps them all
            go.FigureWidget._esm.changed.disconnect()
        self.widget._config = self.widget._config | CONFIG
        self.widget.add_class(name)
        self._spec = spec

    def show(self, spec: Spec) -> None:
        """Draw this, in one message to the browser; every trace keeps its type."""
        old, new = self._spec["data"], list(spec["data"])
        new += [HIDDEN] * (len(old) - len(new))
        with self.widget.batch_update():
            for trace, a, b in zip(self.widget.data, old, new, strict=False):
                _change(trace, a, b)
            _change(self.widget.layout, self._spec["layout"], spec["layout"])
        if more := new[len(old) :]:
            self.widget.add_traces(more)
        self._spec = {"data": new, "layout": spec["layout"]}


def _change(target, old: dict, new: dict) -> None:
    """Set on a plotly object what differs between two descriptions of it."""
    for name in old.keys() | new.keys():
        if name != "type" and old.get(name) != new.get(name):
            target[name] = new.get(name)
