"""The figure that compares directions at equal cost: safety kept against over-refusal."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .canvas import legend_below, line_style, panels, share_axis, styled

MARKERS = "osD^vP"
START = {"color": "black", "marker": "*", "markersize": 9, "zorder": 5, "label": "aligned"}


def direction_of(arm: dict) -> str:
    """Return which direction an arm steps along, whatever its alpha."""
    tops = {"LoX": f"top {arm['k']}", "full delta": "all of the delta", "random subspace": "random"}
    return tops.get(arm["kind"], arm["name"])


def curve_points(data: dict, direction: str, attack: str, seed: int) -> list[tuple[float, ...]]:
    """Return alpha, over-refusal before the attack, and refusals after it, along a direction.

    Every curve of a step begins at alpha = 0, the aligned model.
    """
    arms = data["source"]["arms"]
    names = [n for n, arm in arms.items() if direction_of(arm) == direction]
    if direction == "aligned" or any(arms[name]["kind"] != "aligned" for name in names):
        names = ["aligned", *names]
    found = []
    for name in names:
        rows = [r for r in data["rows"] if (r["arm"], r["seed"]) == (name, seed)]
        at = {r["attack"]: r["measures"] for r in rows if r["training"] == "full"}
        if {None, attack} <= at.keys():
            shares = at[None]["over_refusal"], at[attack]["refusal"]
            alpha = arms[name]["alpha"] if name != "aligned" else 0.0
            found.append((alpha, *(share["value"] for share in shares)))
    return sorted(found)


@styled
def figure_frontier(data: dict) -> Figure:
    """Draw what each direction keeps after an attack against what it costs before, along alpha.

    A panel per attack, a line per direction: means over seeds of both shares at each alpha, with a
    band from the least to the most of the seeds. Crosses are other checkpoints.
    """
    rows, arms = data["rows"], data["source"]["arms"]
    attacks = list(dict.fromkeys(r["attack"] for r in rows if r["attack"]))
    seeds = sorted({r["seed"] for r in rows})
    directions = list(dict.fromkeys(map(direction_of, arms.values())))
    fig, axes = panels(len(attacks), 2.6, 2.6, sharex=True, sharey=True)
    for ax, attack in zip(axes, attacks, strict=True):
        for i, direction in enumerate(directions):
            every = [curve_points(data, direction, attack, seed) for seed in seeds]
            style = line_style(i) | {"marker": MARKERS[i % len(MARKERS)], "label": direction}
            _curve(ax, np.array([points for points in every if points]), style)
        start = [curve_points(data, "aligned", attack, seed) for seed in seeds]
        _curve(ax, np.array([points for points in start if points]), START)
        ax.set(title=f"after {attack}", xlabel="allowed requests refused before")
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        share_axis(ax)
        ax.set_ylabel("forbidden requests refused after")
    legend_below(fig, axes[0])
    return fig


def _curve(ax: Axes, points: np.ndarray, style: dict) -> None:
    """Draw the points of one direction, shape (seeds, alphas, 3)."""
    if not points.size:
        return
    x, kept = points[:, :, 1], points[:, :, 2]
    if points.shape[1] == 1:
        ax.plot(x.mean(), kept.mean(), **(style | {"linestyle": ""}))
        return
    ax.plot(x.mean(0), kept.mean(0), **style)
    if len(points) > 1:
        ax.fill_between(
            x.mean(0), kept.min(0), kept.max(0), color=style["color"], alpha=0.12, linewidth=0
        )
