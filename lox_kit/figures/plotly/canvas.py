"""What all plotly figures have in common, as `figures.canvas` has it for the others: plain JSON."""

from __future__ import annotations

from html import escape

import numpy as np

from lox_kit.figures.canvas import LINES, bars
from lox_kit.text import map_texts, plain_numbers

DASH = dict(zip(LINES, ("solid", "dash", "dashdot", "dot"), strict=True))
GREY, LIGHT = "#595959", "#bdbdbd"
MARK = {"color": GREY, "width": 1.2}  # of a line that marks a place
FONT = {"family": "DejaVu Sans, Verdana, sans-serif", "color": "#1a1a1a"}
SHARES = {"range": [-0.04, 1.04], "tickformat": ".0%", "dtick": 0.25}  # of an axis of shares
LEGEND_BELOW = {"yref": "container", "y": 0.01, "yanchor": "bottom"}
TITLE = {"yref": "paper", "y": 1, "yanchor": "bottom", "yshift": 4}  # words above a plot
Spec = dict  # a figure as plotly JSON: {"data": [...], "layout": {...}}


def escaped(data: dict) -> dict:
    """Return figure data with every text as plotly is to show it: a `<` begins no mark-up."""
    return map_texts(escape, data)


def common_layout(size: int, **layout) -> dict:
    """Return a layout with the look of all figures, their text `size` pixels high.

    They take their width and height from the page. Axes have a line, ticks outside and a faint
    grid; the legend has as many lines as the width asks for, in the middle of the figure.
    """
    axis = {
        "title": {"standoff": 6, "font": {"size": size}},
        "showline": True,
        "linecolor": GREY,
        "ticks": "outside",
        "ticklen": 4,
        "gridcolor": "#eeeeee",
        "zeroline": False,
    }
    legend = {
        "orientation": "h",
        "x": 0.5,
        "xanchor": "center",
        "font": {"size": size - 1},
        "itemclick": False,
        "itemdoubleclick": False,
    }
    look = {
        "xaxis": axis,
        "yaxis": axis,
        "legend": legend,
        "annotationdefaults": {"showarrow": False},
        "hoverlabel": {"font": {"size": size}},
        "hovermode": "closest",
    }
    return {
        "template": {"layout": look},
        "font": FONT | {"size": size},
        "autosize": True,
        "margin": {"l": 5.2 * size, "r": 12, "t": 2.4 * size, "b": 4 * size},
        "uirevision": "kept",
        **layout,
    }


def axis(title: str = "", **options) -> dict:
    """Return an axis with this title, otherwise as `common_layout` has them."""
    return options | ({"title": {"text": title}} if title else {})


def ticked(places: dict[float, str]) -> dict:
    """Return an axis's ticks: what it says, and where."""
    return {"tickvals": list(places), "ticktext": list(places.values())}


def upright(x: float, xref: str, yref: str, **line) -> dict:
    """Return a line at x from the bottom to the top of `yref`: "paper", or "y2 domain"."""
    ends = {"x0": x, "x1": x, "y0": 0, "y1": 1}
    return {"type": "line", "xref": xref, "yref": yref, **ends, "line": MARK | line}


def level(y: float, xref: str, yref: str, **line) -> dict:
    """Return a line at y from the left to the right of `xref`."""
    ends = {"x0": 0, "x1": 1, "y0": y, "y1": y}
    return {"type": "line", "xref": xref, "yref": yref, **ends, "line": MARK | line}


def screen_line(style: dict, width: float) -> dict:
    """Return matplotlib's colour and line style as plotly's, the line `width` pixels wide."""
    return {"color": style["color"], "dash": DASH[style["linestyle"]], "width": width}


def line_trace(x: list, y: list, xaxis: str, yaxis: str, line: dict, **options) -> dict:
    """Return a line trace on these axes; it is in the legend if it has a name."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "xaxis": xaxis,
        "yaxis": yaxis,
        "line": line,
        "showlegend": "name" in options,
        **options,
    }


def curves_trace(curves: dict[str, list], xaxis: str, yaxis: str, line: dict, **options) -> dict:
    """Return several curves over 1, 2, ... as one trace, each with its name where one hovers."""
    x = [i for c in curves.values() for i in (*range(1, len(c) + 1), None)]  # a gap parts them
    y = [value for c in curves.values() for value in (*c, None)]
    text = [name for name, c in curves.items() for _ in range(len(c) + 1)]
    return line_trace(x, y, xaxis, yaxis, line, text=text, **options)


def hover(said: list, what: str = "") -> dict:
    """Return what a trace says at each of its places where one hovers, after `what`."""
    return {"customdata": said, "hovertemplate": f"{what}%{{customdata}}<extra></extra>"}


def shares_trace(
    x: list, shares: list[dict], xaxis: str, yaxis: str, line: dict, what: str, **options
) -> dict:
    """Return shares as a line that says interval and counts where one hovers, after `what`."""
    said = [
        f"{s['value']:.0%} [{s['low']:.0%}, {s['high']:.0%}], {s['count']} of {s['n']}"
        for s in shares
    ]
    values = [s["value"] for s in shares]
    return line_trace(x, values, xaxis, yaxis, line, **hover(said, f"{what}: "), **options)


def band_trace(
    x: list, shares: list[dict], xaxis: str, yaxis: str, colour: str, opacity: float
) -> dict:
    """Return the intervals of shares as an area on these axes."""
    low, high = ([s[end] for s in shares] for end in ("low", "high"))
    area = {"fill": "toself", "fillcolor": colour, "opacity": opacity, "hoverinfo": "skip"}
    return line_trace(x + x[::-1], high + low[::-1], xaxis, yaxis, {"width": 0}, **area)


def error_bars(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict:
    """Return bars from low to high."""
    down, up = plain_numbers(bars(value, low, high))
    size = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
    return size | {"thickness": 1.2, "width": 0}
