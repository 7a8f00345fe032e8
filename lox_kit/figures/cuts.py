"""The cut through a landscape, drawn as a panel of its figures: `landscape.cut_through`."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .canvas import OKABE_ITO, bars, em, new_figure, page, percent

CUT_COLOUR = OKABE_ITO[3]  # the first that no trajectory of two attacks has
CUT_HEIGHT = 1.5  # inches


def figure_over_cut(
    data: dict, width: float, shape: float, projection: str | None = None
) -> tuple[Figure, Axes]:
    """Return a figure and its main axes, with the cut drawn below them where the data have one.

    Parameters
    ----------
    data : dict
        From `figures.map_data`; perhaps with "cut", from `landscape.cut_through`.
    width, shape : float
        Of the figure without the cut: inches if nothing is asked, and height over width.
    projection : str, optional
        Of the main axes.
    """
    parts = {"main": shape * page(width) / em()} | ({"cut": CUT_HEIGHT} if data.get("cut") else {})
    heights, options = list(parts.values()), {"main": {"projection": projection}}
    fig, rows = new_figure(width, sum(heights)), [[part] for part in parts]
    axes = fig.subplot_mosaic(rows, height_ratios=heights, per_subplot_kw=options)
    if "cut" in parts:
        plot_cut(data, ax=axes["cut"])
    return fig, axes["main"]


def plot_cut(data: dict, *, ax: Axes) -> None:
    """Draw the cut: dots with intervals, joined by a thin line.

    The dotted line is the threshold, the bands are the 95 % intervals of the cliffs.
    """
    cut = data["cut"]
    value, low, high = (np.array(cut[n], dtype=float) for n in ("value", "low", "high"))
    style = {"fmt": "o-", "linewidth": 0.7, "markersize": 3.5, "elinewidth": 0.8}
    ax.errorbar(cut["places"], value, bars(value, low, high), color=CUT_COLOUR, **style)
    ax.axhline(cut["threshold"], color="0.4", linewidth=0.7, linestyle=":", zorder=0)
    for low, high, at in cliff_marks(cut):
        ax.axvspan(*sorted((low, high)), color=CUT_COLOUR, alpha=0.12, linewidth=0, zorder=0)
        if at is not None:
            ax.axvline(at, color=CUT_COLOUR, linewidth=0.7, linestyle="--")
    ax.set(xlabel=cut["label"], ylabel=data["metric"])
    if data["limits"]:
        ax.set_ylim(-0.05, 1.05)
        percent(ax.yaxis)


def line_on(data: dict, ax: Axes, *, space: bool = False) -> None:
    """Draw where the cut runs, on the map or on the surface, if there is one."""
    if cut := data.get("cut"):
        where = np.array(cut["at"], dtype=float).reshape(-1, 2).T
        heights = [np.array(cut["value"], dtype=float)] if space else []
        ax.plot(*where, *heights, color=CUT_COLOUR, linewidth=1.0, linestyle="--", zorder=2)


def cliff_marks(cut: dict) -> list[tuple[float, float, float | None]]:
    """Return both ends of each cliff's interval, as far as the cut goes, and the cliff if known."""
    marks = []
    for side, sign in (("ahead", 1), ("behind", -1)):
        cliff = cut["cliffs"][side]
        if cliff is None or cliff["low"] is None or cliff["distance"] == 0:
            continue
        low, high = (cliff["reach"] if cliff[n] is None else cliff[n] for n in ("low", "high"))
        at = None if cliff["distance"] is None else sign * cliff["distance"]
        marks.append((sign * low, sign * high, at))
    return marks
