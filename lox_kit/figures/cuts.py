"""The cut through a landscape, drawn as a panel of its figures: `landscape.cut_through`."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .canvas import OKABE_ITO, new_figure

CUT_COLOUR = OKABE_ITO[3]  # the first that no trajectory of two attacks has
CUT_HEIGHT = 1.5  # inches


def figure_over_cut(
    data: dict, size: tuple[float, float], projection: str | None = None
) -> tuple[Figure, Axes]:
    """Return a figure and its main axes, with the cut drawn below them where the data have one.

    Parameters
    ----------
    data : dict
        From `figures.map_data`; perhaps with "cut", from `landscape.cut_through`.
    size : (float, float)
        Of the figure without the cut, in inches.
    projection : str, optional
        Of the main axes.
    """
    options = {"projection": projection}
    if not data.get("cut"):
        return new_figure(1, 1, figsize=size, subplot_kw=options)
    whole = (size[0], size[1] + CUT_HEIGHT)
    fig, (above, below) = new_figure(2, 1, figsize=whole, height_ratios=(size[1], CUT_HEIGHT))
    if projection:
        place = above.get_subplotspec()
        above.remove()
        above = fig.add_subplot(place, **options)
    plot_cut(data, ax=below)
    return fig, above


def plot_cut(data: dict, *, ax: Axes) -> Axes:
    """Draw the cut: dots with intervals, joined by a thin line.

    The dotted line is the threshold, the bands are the 95 % intervals of the cliffs.
    """
    cut = data["cut"]
    value, low, high = (np.array(cut[n], dtype=float) for n in ("value", "low", "high"))
    bars = np.clip([value - low, high - value], 0, None)
    ax.errorbar(cut["places"], value, bars, fmt="o-", color=CUT_COLOUR, linewidth=0.7,
                markersize=3.5, elinewidth=0.8)  # fmt: skip
    ax.axhline(cut["threshold"], color="0.4", linewidth=0.7, linestyle=":", zorder=0)
    for side, cliff in cut["cliffs"].items():
        _cliff(ax, cliff, 1 if side == "ahead" else -1)
    ax.set(xlabel=cut["label"], ylabel=data["metric"])
    if data["limits"]:
        ax.set_ylim(-0.05, 1.05)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    return ax


def line_on(data: dict, ax: Axes, *, space: bool = False) -> None:
    """Draw where the cut runs, on the map or on the surface, if there is one."""
    if cut := data.get("cut"):
        where = np.array(cut["at"], dtype=float).reshape(-1, 2).T
        heights = [np.array(cut["value"], dtype=float)] if space else []
        ax.plot(*where, *heights, color=CUT_COLOUR, linewidth=1.0, linestyle="--", zorder=2)


def _cliff(ax: Axes, cliff: dict | None, sign: int) -> None:
    """Draw one cliff: a line at its distance, and its interval as far as the cut goes."""
    if cliff is None or cliff["low"] is None or cliff["distance"] == 0:
        return
    reach = cliff["reach"]
    ends = [reach if cliff[n] is None else cliff[n] for n in ("low", "high")]
    ax.axvspan(*sorted(sign * x for x in ends), color=CUT_COLOUR, alpha=0.12, linewidth=0, zorder=0)
    if cliff["distance"] is not None:
        ax.axvline(sign * cliff["distance"], color=CUT_COLOUR, linewidth=0.7, linestyle="--")
