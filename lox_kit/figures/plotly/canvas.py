"""What all plotly figures have in common, as `figures.canvas` has it for the others: plain JSON."""

from __future__ import annotations

from html import escape

import numpy as np

from lox_kit.figures.canvas import LINES
from lox_kit.text import map_texts, plain_numbers

DASH = dict(zip(LINES, ("solid", "dash", "dashdot", "dot"), strict=True))
GREY, LIGHT = "#595959", "#bdbdbd"
FONT = {"family": "DejaVu Sans, Verdana, sans-serif", "color": "#1a1a1a"}
SHARES = {"range": [-0.04, 1.04], "tickformat": ".0%", "dtick": 0.25}  # of an axis of shares
Spec = dict  # a figure as plotly JSON: {"data": [...], "layout": {...}}


def escaped(data: dict) -> dict:
    """Return figure data with every text as plotly is to show it: a `<` begins no mark-up."""
    return map_texts(escape, data)


def common_layout(size: int) -> dict:
    """Return what all figures have in common; they take their width and height from the page."""
    return {
        "template": "none",
        "font": FONT | {"size": size},
        "autosize": True,
        "margin": {"l": 5.2 * size, "r": 12, "t": 2.4 * size, "b": 4 * size},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "hoverlabel": {"font": {"size": size}},
        "uirevision": "kept",
    }


def plain_axis(**options) -> dict:
    """Return an axis with a line, ticks outside and a faint grid."""
    return {
        "showline": True,
        "linecolor": GREY,
        "linewidth": 1,
        "ticks": "outside",
        "ticklen": 4,
        "gridcolor": "#eeeeee",
        "zeroline": False,
        **options,
    }


def axis_title(text: str, size: int) -> dict:
    """Return an axis's title, as large as its numbers."""
    return {"text": text, "standoff": 6, "font": {"size": size}}


def legend(size: int, **place) -> dict:
    """Return a legend in as many lines as the width asks for, in the middle of the figure."""
    return {
        "orientation": "h",
        "x": 0.5,
        "xanchor": "center",
        "font": {"size": size - 1},
        "itemclick": False,
        "itemdoubleclick": False,
        **place,
    }


def legend_below(size: int) -> dict:
    """Return a legend below everything."""
    return legend(size, yref="container", y=0.01, yanchor="bottom")


def note(text: str, size: int, **place) -> dict:
    """Return words in the figure, without an arrow; `place` may have a font of its own."""
    return {"text": text, "showarrow": False, "font": {"size": size}, **place}


def upright(x: float, xref: str, yref: str, **line) -> dict:
    """Return a line at x from the bottom to the top of `yref`: "paper", or "y2 domain"."""
    ends = {"x0": x, "x1": x, "y0": 0, "y1": 1}
    return {"type": "line", "xref": xref, "yref": yref, **ends, "line": line}


def rgba(colour: str, opacity: float) -> str:
    """Return a colour like #0072B2 with an opacity from 0 to 1, as plotly takes it."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def line_trace(x: list, y: list, xaxis: str, yaxis: str, line: dict) -> dict:
    """Return a line trace on these axes; it is not in the legend."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "xaxis": xaxis,
        "yaxis": yaxis,
        "line": line,
        "showlegend": False,
    }


def band_trace(x: list, low: list, high: list, xaxis: str, yaxis: str, fill: str) -> dict:
    """Return the area between two lines, such as 95 % intervals, on these axes."""
    area = line_trace(x + x[::-1], high + low[::-1], xaxis, yaxis, {"width": 0})
    return area | {"fill": "toself", "fillcolor": fill, "hoverinfo": "skip"}


def error_bars(value: list, low: list, high: list) -> dict:
    """Return bars from low to high."""
    value, low, high = (np.array(numbers, dtype=float) for numbers in (value, low, high))
    return {
        "type": "data",
        "symmetric": False,
        "array": plain_numbers(np.clip(high - value, 0, None)),  # rounding: the ends can pass
        "arrayminus": plain_numbers(np.clip(value - low, 0, None)),
        "thickness": 1.2,
        "width": 0,
    }
