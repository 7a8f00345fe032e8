"""What all plotly figures have in common, as `figures.canvas` has it for the others: plain JSON."""

from __future__ import annotations

from html import escape

from lox_kit.figures.canvas import LINES
from lox_kit.text import map_texts

DASH = dict(zip(LINES, ("solid", "dash", "dashdot", "dot"), strict=True))
GREY, LIGHT = "#595959", "#bdbdbd"
FONT = {"family": "DejaVu Sans, Verdana, sans-serif", "color": "#1a1a1a"}
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


def legend_below(size: int) -> dict:
    """Return a legend below everything, in as many lines as the width asks for."""
    return {
        "orientation": "h",
        "x": 0.5,
        "xanchor": "center",
        "yref": "container",
        "y": 0.01,
        "yanchor": "bottom",
        "font": {"size": size - 1},
        "itemclick": False,
        "itemdoubleclick": False,
    }


def rgba(colour: str, opacity: float) -> str:
    """Return a colour like #0072B2 with an opacity from 0 to 1, as plotly takes it."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def line_trace(x: list, y: list, xaxis: str, yaxis: str, line: dict) -> dict:
    """Return a line trace on these axes."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "xaxis": xaxis,
        "yaxis": yaxis,
        "line": line,
    }
