"""Figures 2 and 3 of the paper: what attacks leave of the safety subspace, and the ASR gained."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .canvas import (
    ARM_COLOURS,
    MARKS,
    OKABE_ITO,
    legend_below,
    one_panel,
    panels,
    small,
    styled,
    title,
)
from .published import BOTH, add_bars, add_retained

HATCHES = ("", "////", "....", "xxxx")  # of arms, told apart in grey as well


@styled
def figure_retained(data: dict) -> Figure:
    """Draw R_ft / R_align against the ASR gained, of the aligned models under every attack.

    A colour for each k, a mark for each attack, larger where the alignment had more data. After
    figure 2 of Perin et al. 2025.
    """
    rows = [row for row in data["rows"] if row["arm"] == "aligned"]
    if not rows:
        raise ValueError("no aligned model is in the data: give arms=('aligned', ...).")
    amounts = sorted({row["amount"] or np.inf for row in rows})
    sizes = dict(zip(amounts, np.linspace(8, 3, len(amounts))[::-1], strict=True))
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    colours = colormaps["cividis"](np.linspace(0, 0.85, len(rows[0]["R"])))  # dark to light
    fig, ax = one_panel(3.0, 4.6)
    for row in rows:
        look = {"markersize": sizes[row["amount"] or np.inf], "alpha": 0.8, "markeredgewidth": 0}
        mark = MARKS[attacks.index(row["attack"]) % len(MARKS)]
        for colour, (align, after) in zip(colours, row["R"].values(), strict=True):
            ax.plot(after / align, row["gained"], mark, color=colour, **look)
    if data.get("paper"):
        add_retained(ax)
    for colour, k in zip(colours, rows[0]["R"], strict=True):
        ax.plot([], [], "o", color=colour, markersize=5, label=f"k = {k}")
    for mark, attack in zip(MARKS, attacks, strict=False):
        ax.plot([], [], mark, color="0.4", markersize=5, label=attack)
    for amount, size in sizes.items():
        said = "all" if np.isinf(amount) else f"{amount:,g}"
        if len(amounts) > 1:
            ax.plot([], [], "o", color="0.7", markersize=size, label=f"{said} rows of alignment")
    ax.set(xlabel="R of the attack / R of the alignment", ylabel="ASR gained by the attack")
    ax.set_ylim(min(0, *(row["gained"] for row in rows)) - 0.03, 1.03)
    ax.locator_params(nbins=5)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    legend_below(fig, ax)
    return fig


@styled
def figure_r_bars(data: dict) -> Figure:
    """Draw R_ft of every attack as bars, aligned beside LoX, and the ASR after it on its own axis.

    Means over seeds, dots for each seed. After figure 3 of Perin et al. 2025.
    """
    k = str(data["source"]["k"])
    arms, attacks = (list(dict.fromkeys(row[n] for row in data["rows"])) for n in ("arm", "attack"))
    fig, (left, right) = panels(2, 2.6, 2.3)
    width = 0.8 / len(arms)
    for i, arm in enumerate(arms):
        colour = ARM_COLOURS.get(arm, OKABE_ITO[i])
        for x, attack in enumerate(attacks):
            rows = [r for r in data["rows"] if (r["arm"], r["attack"]) == (arm, attack)]
            at = x + (i - (len(arms) - 1) / 2) * width
            for ax, values in (
                (left, [row["R"][k][1] for row in rows]),
                (right, [row["asr"] for row in rows]),
            ):
                fill = {"facecolor": to_rgba(colour, 0.6), "edgecolor": colour, "linewidth": 0}
                fill |= {"hatch": HATCHES[i % 4], "label": arm if x == 0 else None}
                ax.bar(at, np.mean(values), 0.9 * width, **fill)
                ax.plot([at] * len(values), values, ".", color="black", markersize=3)
    if data.get("paper"):
        at = [(arms.index(a) - (len(arms) - 1) / 2) * width if a in arms else None for a in BOTH]
        add_bars(left, right, attacks, at)
    for ax, text in ((left, f"R after the attack, k = {k}"), (right, "attack success rate after")):
        ax.set_xticks(range(len(attacks)), attacks, rotation=30, ha="right", fontsize=small())
        ax.set_ylim(0, 1.02)
        title(ax, text)
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    legend_below(fig, left)
    return fig
