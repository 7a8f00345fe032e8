"""Figures of measuring: judges beside each other, and intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from lox_kit.measures import Share

from . import canvas
from .canvas import OKABE_ITO, styled


def judges_data(result) -> dict:
    """Return what `figure_judges` is drawn from, of an `AsrResult`."""
    source = {name: result.source[name] for name in ("model", "system", "judges")}
    shares = {name: share for name, share in result.summary().items() if "count" in share}
    return {"figure": "judges", "n": len(result.prompts), "shares": shares, "source": source}


@styled
def figure_judges(data: dict) -> Figure:
    """Draw the same answers as each judge counts them, with 95 % Wilson intervals."""
    shares = data["shares"]
    fig, ax = canvas.one_panel(0.55 + 0.26 * len(shares))
    for y, (name, share) in enumerate(shares.items()):
        colour = OKABE_ITO[0] if name.startswith("asr") else "0.45"
        ax.hlines(y, share["low"], share["high"], color=colour, linewidth=0.9)
        ax.plot(share["value"], y, "o", color=colour)
    ax.set_yticks(range(len(shares)), [name.replace("asr", "ASR") for name in shares])
    ax.set(xlim=(-0.02, 1.02), ylim=(len(shares) - 0.5, -0.5))
    ax.set_xlabel(f"share of the same {data['n']} answers")
    canvas.percent(ax.xaxis)
    ax.grid(axis="x", color="0.9", linewidth=0.5)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    return fig


def interval_data(sizes: Sequence[int] = (30, 100, 1000)) -> dict:
    """Return what `figure_interval` is drawn from: every count out of each n, as a share."""
    bands = []
    for n in sizes:
        counts = np.unique(np.linspace(0, n, min(n, 100) + 1).round().astype(int))
        ends = [list(Share(int(count), n).interval) for count in counts]
        bands.append({"n": n, "value": [float(c / n) for c in counts], "interval": ends})
    return {"figure": "interval", "bands": bands}


@styled
def figure_interval(data: dict) -> Figure:
    """Draw how far Wilson's 95 % interval reaches from each measured rate, for several n."""
    fig, ax = canvas.one_panel()
    for i, band in enumerate(data["bands"]):
        value, (low, high) = np.array(band["value"]), np.array(band["interval"]).T
        ax.plot(value, high - value, label=f"n = {band['n']}", **canvas.line_style(i))
        ax.plot(value, low - value, **canvas.line_style(i))
    ax.axhline(0, color="0.6", linewidth=0.6)
    ax.set(xlabel="measured rate", ylabel="ends of the interval − rate", xlim=(0, 1))
    canvas.percent(ax.xaxis, ax.yaxis, decimals=0)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=3)
    return fig
