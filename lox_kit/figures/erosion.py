"""What attacks leave of the safety subspace, and what of them lies in it, against the ASR gained.

`figure_retained` and `figure_r_bars` are figures 2 and 3 of the paper.
"""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lox_kit.extrapolation import place_of

from . import canvas
from .canvas import ARM_COLOURS, LINES, MARKS, OKABE_ITO, styled
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
    fig, ax = canvas.one_panel(3.0, 4.6)
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
    canvas.percent(ax.yaxis)
    canvas.legend_below(fig, ax)
    return fig


@styled
def figure_r_bars(data: dict) -> Figure:
    """Draw R_ft of every attack as bars, aligned beside LoX, and the ASR after it on its own axis.

    Means over seeds, dots for each seed. After figure 3 of Perin et al. 2025.
    """
    k = str(data["source"]["k"])
    arms, attacks = (list(dict.fromkeys(row[n] for row in data["rows"])) for n in ("arm", "attack"))
    fig, (left, right) = canvas.panels(2, 2.6, 2.3)
    width = 0.8 / len(arms)
    sides = {arm: (i - (len(arms) - 1) / 2) * width for i, arm in enumerate(arms)}
    for i, (arm, side) in enumerate(sides.items()):
        colour = ARM_COLOURS.get(arm, OKABE_ITO[i])
        fill = {"facecolor": to_rgba(colour, 0.6), "edgecolor": colour, "linewidth": 0}
        for x, attack in enumerate(attacks):
            rows = [r for r in data["rows"] if (r["arm"], r["attack"]) == (arm, attack)]
            fill |= {"hatch": HATCHES[i % 4], "label": arm if x == 0 else None}
            measured = [row["R"][k][1] for row in rows], [row["asr"] for row in rows]
            for ax, values in zip((left, right), measured, strict=True):
                ax.bar(x + side, np.mean(values), 0.9 * width, **fill)
                ax.plot([x + side] * len(values), values, ".", color="black", markersize=3)
    if data.get("paper"):
        add_bars(left, right, attacks, [sides.get(arm) for arm in BOTH])
    for ax, text in ((left, f"R after the attack, k = {k}"), (right, "attack success rate after")):
        slant = {"rotation": 30, "ha": "right", "fontsize": canvas.small()}
        ax.set_xticks(range(len(attacks)), attacks, **slant)
        ax.set_ylim(0, 1.02)
        canvas.title(ax, text)
    canvas.percent(right.yaxis)
    canvas.legend_below(fig, left)
    return fig


# --- what lies in the subspace ------------------------------------------------------------------


@styled
def figure_overlaps(data: dict) -> Figure:
    """Draw how much of each change lies in the safety subspace.

    Left: by layer, matrices and seeds weighing by |dW|^2 nothing but their own share; dotted what a
    random subspace would hold. Right: each attack and seed, overlap beyond chance against the
    attack success rate that it gained.
    """
    rows = data["rows"]
    changes = list(dict.fromkeys(row["change"] for row in rows))
    fig, (left, right) = canvas.panels(2, 2.6, 2.7)
    for i, change in enumerate(changes):
        x, share, chance = _by_depth([r["layers"] for r in rows if r["change"] == change])
        style = canvas.line_style(i) | {"marker": MARKS[i % len(MARKS)]}
        left.plot(x, share, label=change, **style)
        made = [r for r in rows if r["change"] == change and r["gained"] is not None]
        if made:
            beyond = [r["share"] - r["chance"] for r in made]
            right.plot(beyond, [r["gained"] for r in made], **(style | {"linestyle": ""}))
    left.plot(x, chance, color="0.4", linestyle=LINES[3], label="chance")
    left.set(xlabel="layer", ylabel=f"share of |ΔW|² in the top {data['source']['k']}")
    left.set_ylim(bottom=0)
    canvas.percent(left.yaxis)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(xlabel="share beyond chance", ylabel="ASR gained by the attack")
    right.locator_params(nbins=5)
    canvas.percent(right.xaxis, right.yaxis, decimals=0)
    canvas.legend_below(fig, left)
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
