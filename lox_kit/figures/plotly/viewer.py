"""The landscape viewer's figure as plotly JSON: surface, map and a cut, from plain data."""

from __future__ import annotations

from html import escape

import numpy as np

from lox_kit.figures.landscape import coordinates
from lox_kit.text import plain_numbers

from .canvas import (
    GREY,
    Spec,
    axis_title,
    error_bars,
    line_trace,
    plain_axis,
    upright,
)
from .surface import (
    HERE,
    LIFT,
    RING,
    cell_traces,
    dots,
    heights,
    here_traces,
    models,
    shown_value,
    surface_layout,
    way_traces,
)

CUT = 2  # place of its trace
TOP, CUT_TOP = 0.37, 0.24  # of the figure's height: above these surface and map, below them the cut


def viewer_spec(data: dict, size: int = 12, *, hidden: bool = False) -> Spec:
    """Return surface and map side by side, and the cut below them.

    Between measured cells the surface is joined by straight facets, and the map has the value of
    the nearest one; what is not measured says so where one hovers, and has no dot. The cut has
    dots with intervals, joined by a thin line.

    Parameters
    ----------
    data : dict
        As `LandscapeState.data`: a landscape's `to_dict`, `trajectories`, `points`, `cut`, `here`.
    size : int
        Height of the text in pixels.
    hidden : bool
        Leave the answers out.
    """
    a, b, values = coordinates(data)
    height = float(np.ptp(heights(data, values)))
    traces = [
        *cell_traces(data, a, b, values, hidden=hidden),
        *_cut_traces(data, height),
        *_here_traces(data, height),
        dots(a, b, values),
        *models(data, height),
        *way_traces(data, a, b, values, height),
    ]
    layout = surface_layout(data, a, b, values, size, bottom=TOP)
    return {"data": traces, "layout": layout | _cut_layout(data, layout, size)}


# --- traces -----------------------------------------------------------------------------------


def _cut_traces(data: dict, height: float) -> list[dict]:
    """Return the cut as dots with intervals on a thin curve, and as a line on map and surface."""
    cut = data["cut"]
    x, y = [at[0] for at in cut["at"]], [at[1] for at in cut["at"]]
    value, low, high = (np.array(cut[n], dtype=float) for n in ("value", "low", "high"))
    line = {"color": HERE, "width": 1}
    said = [
        f"({a:.2f}, {b:.2f}): {shown_value(data, v)}" for a, b, v in zip(x, y, value, strict=True)
    ]
    curve = line_trace(plain_numbers(cut["places"]), plain_numbers(value), "x2", "y2", line)
    curve |= {"customdata": said, "hovertemplate": "%{customdata}<extra></extra>"}
    curve |= {"mode": "lines+markers", "marker": {"size": 7, "color": HERE}}
    known = np.isfinite(high - low).all()  # of one prompt, a margin has no interval
    curve["error_y"] = error_bars(value, low, high) if known else {"visible": False}
    flat = line_trace(x, y, "x", "y", {"color": HERE, "width": 2, "dash": "dot"})
    space = {"type": "scatter3d", "x": x, "y": y, "z": plain_numbers(value + LIFT * height)}
    space |= {"mode": "lines", "line": {"color": HERE, "width": 5}, "showlegend": False}
    return [curve, flat | {"hoverinfo": "skip"}, space | {"hoverinfo": "skip"}]


def _here_traces(data: dict, height: float) -> list[dict]:
    """Return the cell that is looked at, in all three views."""
    here, value = data["here"], data["here"]["value"]
    z = None if value is None else value + LIFT * height
    on_cut = here["place"] is not None and value is not None
    x, y = ([here["place"]], [value]) if on_cut else ([], [])
    ring = line_trace(x, y, "x2", "y2", {}) | {"mode": "markers", "marker": RING}
    return [*here_traces(*here["at"], z), ring | {"hoverinfo": "skip"}]


# --- layout -----------------------------------------------------------------------------------


def _cut_layout(data: dict, above: dict, size: int) -> dict:
    """Return the axes and words of the cut, and the words of what is `above` it."""
    low, high = above["coloraxis"]["cmin"], above["coloraxis"]["cmax"]
    pad = 0.04 * (high - low)
    percent = {"tickformat": ".0%"} if data["limits"] else {}
    title = axis_title(escape(data["cut"]["label"]), size)
    return {
        "xaxis2": plain_axis(domain=[0, 1], anchor="y2", range=_span(data), title=title),
        "yaxis2": plain_axis(
            domain=[0, CUT_TOP], anchor="x2", range=[low - pad, high + pad], **percent
        ),
        "shapes": [_threshold(data), *_cliffs(data)],
    }


def _span(data: dict) -> list[float]:
    """Return the range of the cut's axis, the same whatever has been measured of it."""
    low, high = data["cut"]["span"]
    pad = 0.03 * ((high - low) or 1.0)
    return [low - pad, high + pad]


def _threshold(data: dict) -> dict:
    """Return the dotted line that the cliff is where the cut passes."""
    y, line = data["cut"]["threshold"], {"color": GREY, "width": 1.2, "dash": "dot"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": "y2", "y0": y, "y1": y,
            "line": line}  # fmt: skip


def _cliffs(data: dict) -> list[dict]:
    """Return the cut's cliffs: a line at each, and its interval as far as the cut goes."""
    shapes = []
    for side, sign in (("ahead", 1), ("behind", -1)):
        cliff = data["cut"]["cliffs"][side]
        if cliff is None or cliff["low"] is None or cliff["distance"] == 0:
            continue
        low, high = (sign * (cliff["reach"] if cliff[n] is None else cliff[n])
                     for n in ("low", "high"))  # fmt: skip
        area = upright(low, "x2", "y2 domain", width=0) | {"type": "rect", "x1": high}
        shapes.append(area | {"layer": "below", "fillcolor": "rgba(213,94,0,0.12)"})
        if cliff["distance"] is not None:
            x, line = sign * cliff["distance"], {"color": HERE, "width": 1.2, "dash": "dash"}
            shapes.append(upright(x, "x2", "y2 domain", **line))
    return shapes
