"""The landscape with plotly: surface and map side by side, and a cut below them, from plain data.

`landscape` gives a figure; `viewer_spec` is the same as plotly JSON, for the landscape viewer.
"""

from __future__ import annotations

from html import escape

import numpy as np

from lox_kit.figures.cuts import cliff_marks
from lox_kit.figures.landscape import coordinates
from lox_kit.text import plain_numbers
from lox_kit.threads import importing

from . import canvas, surface
from .canvas import LEGEND_BELOW, Spec
from .surface import LIFT

HERE = "#D55E00"
RING = {"size": 13, "color": "rgba(0,0,0,0)", "line": {"color": HERE, "width": 3}}
TOP, CUT_TOP = 0.37, 0.24  # of the figure's height: above these surface and map, below them the cut


def landscape(data: dict):
    """Return surface and map of a landscape as one plotly `FigureWidget`.

    Hovering a cell of the map shows coordinates, value and what the model answered there to one
    prompt, the one on which the cells differ most.

    Parameters
    ----------
    data : dict
        From `Landscape.to_dict` or `figures.map_data`.
    """
    import plotly.graph_objects as go

    spec = viewer_spec({"trajectories": (), "points": data["marks"], **data})
    spec["layout"] |= {"title": {"text": escape(data.get("title") or "")}, "height": 480}
    spec["layout"] |= {"legend": LEGEND_BELOW}
    spec["layout"]["margin"]["b"] = 90
    with importing("plotly.basewidget"):
        return go.FigureWidget(spec)


def viewer_spec(data: dict, size: int = 12, *, hidden: bool = False) -> Spec:
    """Return surface and map side by side, and the cut below them, where the data have one.

    Between measured cells the surface is joined by straight facets, and the map has the value of
    the nearest one; what is not measured says so where one hovers, and has no dot. The cut has
    dots with intervals, joined by a thin line.

    Parameters
    ----------
    data : dict
        As `LandscapeState.data`: a landscape's `to_dict`, `trajectories`, `points`, and perhaps
        `cut` and `here`.
    size : int
        Height of the text in pixels.
    hidden : bool
        Leave the answers out.
    """
    data = canvas.escaped({**data, "example": None} if hidden else data)
    a, b, values = coordinates(data)
    cut = data.get("cut")
    layout = surface.surface_layout(data, a, b, values, size, TOP if cut else 0)
    low, high = (layout["coloraxis"][end] for end in ("cmin", "cmax"))
    traces = surface.cell_traces(data, a, b, values)
    if cut:
        traces += _cut_traces(data, high - low)
        layout |= _cut_layout(data, low, high)
    if data.get("here"):
        traces += _here_traces(data["here"], high - low)
    traces += [surface.dots(a, b, values), *surface.models(data, high - low)]
    traces += surface.way_traces(data, a, b, values, high - low)
    return {"data": traces, "layout": layout}


# --- traces -----------------------------------------------------------------------------------


def _cut_traces(data: dict, height: float) -> list[dict]:
    """Return the cut as dots with intervals on a thin curve, and as a line on map and surface."""
    cut = data["cut"]
    x, y = [at[0] for at in cut["at"]], [at[1] for at in cut["at"]]
    value, low, high = (np.array(cut[n], dtype=float) for n in ("value", "low", "high"))
    texts = (surface.shown_value(data, v) for v in value)
    said = [f"({a:.2f}, {b:.2f}): {v}" for a, b, v in zip(x, y, texts, strict=True)]
    shown = {"mode": "lines+markers", "marker": {"size": 7, "color": HERE}, **canvas.hover(said)}
    known = np.isfinite(high - low).all()  # of one prompt, a margin has no interval
    shown["error_y"] = canvas.error_bars(value, low, high) if known else {"visible": False}
    places, thin = plain_numbers(cut["places"]), {"color": HERE, "width": 1}
    curve = canvas.line_trace(places, plain_numbers(value), "x2", "y2", thin, **shown)
    flat = {"line": {"color": HERE, "width": 2, "dash": "dot"}}
    space = {"line": {"color": HERE, "width": 5}}
    z = plain_numbers(value + LIFT * height)
    return [curve, *surface.both_views(x, y, z, flat, space, mode="lines", hoverinfo="skip")]


def _here_traces(here: dict, height: float) -> list[dict]:
    """Return the cell that is looked at, in all three views."""
    (x, y), value, quiet = here["at"], here["value"], {"mode": "markers", "hoverinfo": "skip"}
    z = None if value is None else value + LIFT * height
    on_cut = here["place"] is not None and value is not None
    place = ([here["place"]], [value]) if on_cut else ([], [])
    dot = {"marker": {"size": 6, "color": HERE}}
    return [
        *surface.both_views([x], [y], [z], {"marker": RING}, dot, **quiet),
        canvas.line_trace(*place, "x2", "y2", {}, marker=RING, **quiet),
    ]


# --- layout -----------------------------------------------------------------------------------


def _cut_layout(data: dict, low: float, high: float) -> dict:
    """Return axes of the cut, its threshold, and its cliffs with their intervals."""
    cut, pad = data["cut"], 0.04 * (high - low)
    percent = {"tickformat": ".0%"} if data["limits"] else {}
    first, last = cut["span"]  # the same whatever has been measured of it
    beyond = 0.03 * ((last - first) or 1.0)
    shapes = [canvas.level(cut["threshold"], "paper", "y2", dash="dot")]
    for near, far, at in cliff_marks(cut):
        area = canvas.upright(near, "x2", "y2 domain", width=0) | {"type": "rect", "x1": far}
        shapes.append(area | {"layer": "below", "fillcolor": HERE, "opacity": 0.12})
        if at is not None:
            shapes.append(canvas.upright(at, "x2", "y2 domain", color=HERE, dash="dash"))
    across = {"range": [first - beyond, last + beyond], "domain": [0, 1], "anchor": "y2"}
    down = {"range": [low - pad, high + pad], "domain": [0, CUT_TOP], "anchor": "x2", **percent}
    return {"xaxis2": canvas.axis(cut["label"], **across), "yaxis2": down, "shapes": shapes}
