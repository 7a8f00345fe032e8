"""Figures of defences: what they keep under attack, what they cost, and how both go with alpha."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import canvas
from .canvas import MEASURE_STYLES, MEASURES, OKABE_ITO, styled

SHORT = {"asr": "ASR", "refusal": "refusal", "helpfulness": "helpfulness"}
BEFORE, AFTER = OKABE_ITO[:2]


@styled
def figure_defences(data: dict) -> Figure:
    """Draw each arm's shares before and after the attack, one panel per measure, every seed.

    Bars are 95 % Wilson intervals; the prompts are the same for all. A measure that was not made of
    all, such as the task of an attack that has none, is left out.
    """
    rows = data["rows"]
    made = {m: t for m, t in MEASURES.items() if all(m in row["measures"] for row in rows)}
    arms = list(dict.fromkeys(r["arm"] for r in rows))
    seeds = sorted({r["seed"] for r in rows})
    fig, axes = canvas.panels(len(made), 1.5, 2.4, sharey=True)
    for ax, (measure, title) in zip(axes, made.items(), strict=True):
        for row in rows:
            share, attacked = row["measures"][measure], bool(row["attack"])
            colour = AFTER if attacked else BEFORE
            spread = (seeds.index(row["seed"]) - (len(seeds) - 1) / 2) * 0.26 / max(len(seeds), 3)
            x = arms.index(row["arm"]) + (0.19 if attacked else -0.19) + spread
            canvas.interval(ax, x, share, colour=colour, filled=attacked)
        crowded = canvas.narrow() and len(arms) > 4
        names = arms if crowded else [a.replace(" ", "\n") for a in arms]
        ax.set_xticks(range(len(arms)), names, fontsize=canvas.small(), rotation=90)
        ax.set(title=title, xlim=(-0.6, len(arms) - 0.4))
        canvas.share_axis(ax)
        ax.tick_params(length=0)
        ax.spines[["left"]].set_visible(False)
    before = {"color": BEFORE, "markerfacecolor": "white", "label": "before the attack"}
    axes[0].plot([], [], "o", **before)
    axes[0].plot([], [], "o", color=AFTER, label="after")
    canvas.legend_below(fig, axes[0])
    return fig


@styled
def figure_alpha(data: dict) -> Figure:
    """Draw ASR, refusal and helpfulness without an attack, against alpha."""
    fig, ax = canvas.one_panel()
    for measure in SHORT:
        x = [p["alpha"] for p in data["points"]]
        value, low, high = canvas.columns(p[measure] for p in data["points"])
        style = MEASURE_STYLES[measure] | {"marker": "o", "elinewidth": 0.8}
        ax.errorbar(x, value, canvas.bars(value, low, high), label=SHORT[measure], **style)
    ax.set(xlabel=f"alpha, at k = {data['k']}", ylim=(-0.03, 1.03))
    canvas.percent(ax.yaxis)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=3, columnspacing=1.0)
    return fig


# --- directions at equal cost -------------------------------------------------------------------

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
    band from the least to the most of the seeds. A single mark is another checkpoint.
    """
    rows, arms = data["rows"], data["source"]["arms"]
    attacks = list(dict.fromkeys(r["attack"] for r in rows if r["attack"]))
    seeds = sorted({r["seed"] for r in rows})
    styles = []
    for i, direction in enumerate(dict.fromkeys(map(direction_of, arms.values()))):
        marker = {"marker": MARKERS[i % len(MARKERS)], "label": direction}
        styles.append((direction, canvas.line_style(i) | marker))
    fig, axes = canvas.panels(len(attacks), 2.6, 2.6, sharex=True, sharey=True)
    for ax, attack in zip(axes, attacks, strict=True):
        for direction, style in (*styles, ("aligned", START)):
            every = [curve_points(data, direction, attack, seed) for seed in seeds]
            _curve(ax, np.array([points for points in every if points]), style)
        ax.set(title=f"after {attack}", xlabel="allowed requests refused before")
        canvas.percent(ax.xaxis, decimals=0)
        canvas.share_axis(ax)
        ax.set_ylabel("forbidden requests refused after")
    canvas.legend_below(fig, axes[0])
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
        band = {"color": style["color"], "alpha": 0.12, "linewidth": 0}
        ax.fill_between(x.mean(0), kept.min(0), kept.max(0), **band)
