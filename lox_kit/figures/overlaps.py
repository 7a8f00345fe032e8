"""The figure of what lies in the safety subspace: by layer, and against the ASR gained."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lox_kit.extrapolation import place_of

from .canvas import LINES, MARKS, legend_below, line_style, panels, styled


@styled
def figure_overlaps(data: dict) -> Figure:
    """Draw how much of each change lies in the safety subspace.

    Left: by layer, matrices and seeds weighing by |dW|^2 nothing but their own share; dotted what a
    random subspace would hold. Right: each attack and seed, overlap beyond chance against the
    attack success rate that it gained.
    """
    rows = data["rows"]
    changes = list(dict.fromkeys(row["change"] for row in rows))
    fig, (left, right) = panels(2, 2.6, 2.7)
    for i, change in enumerate(changes):
        x, share, chance = _by_depth([r["layers"] for r in rows if r["change"] == change])
        style = line_style(i) | {"marker": MARKS[i % len(MARKS)]}
        left.plot(x, share, label=change, **style)
        made = [r for r in rows if r["change"] == change and r["gained"] is not None]
        beyond, gained = ([r["share"] - r["chance"] for r in made], [r["gained"] for r in made])
        if made:
            right.plot(beyond, gained, **(style | {"linestyle": ""}))
    left.plot(x, chance, color="0.4", linestyle=LINES[3], label="chance")
    left.set(xlabel="layer", ylabel=f"share of |ΔW|² in the top {data['source']['k']}")
    left.set_ylim(bottom=0)
    left.yaxis.set_major_formatter(PercentFormatter(1.0))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(xlabel="share beyond chance", ylabel="ASR gained by the attack")
    right.locator_params(nbins=5)
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    legend_below(fig, left)
    return fig


def _by_depth(seeds: list[list]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Return the layers that have a number, and the mean share and chance of their matrices."""
    found: dict[int, list] = {}
    for layer, share, chance in (matrix for seed in seeds for matrix in seed):
        depth = place_of(layer)[0]
        if depth is not None and share is not None:
            found.setdefault(depth, []).append((share, chance))
    depths = sorted(found)
    share, chance = np.array([np.mean(found[d], axis=0) for d in depths]).T
    return depths, share, chance
