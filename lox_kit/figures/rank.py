"""Figures of rank: how many directions safety needs, and how much of them an attack leaves."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .canvas import (
    LINES,
    MEASURES,
    OKABE_ITO,
    TWO_COLUMNS,
    columns,
    interval,
    new_figure,
    share_axis,
    styled,
)
from .rank_data import ALL, layer_ticks, place, r_line, r_threads

# --- several pairs -----------------------------------------------------------


@styled
def figure_rank_curve(data: dict) -> Figure:
    """Draw ASR, refusal and helpfulness of `W_base + Proj_r(dW)` against r, every pair.

    The aligned models stand apart. Bars are 95 % Wilson intervals; the legend gives each pair's
    safety rank. What was not measured has no panel.
    """
    pairs = list(dict.fromkeys(row["pair"] for row in data["rows"]))
    ranks = sorted({row["r"] for row in data["rows"]} - {None})
    panels = [m for m in MEASURES if all(m in row["measures"] for row in data["rows"])]
    fig, axes = new_figure(1, len(panels), figsize=TWO_COLUMNS, sharey=True, squeeze=False)
    for ax, measure in zip(axes[0], panels, strict=True):
        for i, pair in enumerate(pairs):
            _rank_line(ax, data["rows"], pair, measure, ranks, i, len(pairs), data["safety_rank"])
        places = [*range(len(ranks)), len(ranks) + 0.4]
        ax.set_xticks(places, [*map(str, ranks), "aligned"])
        ax.axvline(len(ranks) - 0.3, color="0.8", linewidth=0.6)
        ax.set(title=MEASURES[measure], xlabel="directions of ΔW, r")
        share_axis(ax)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncol=4)
    return fig


def _rank_line(ax: Axes, rows, pair: str, measure: str, ranks, i: int, pairs: int, found) -> None:
    """Draw one pair's curve with intervals, and its aligned model apart from it."""
    shares = {row["r"]: row["measures"][measure] for row in rows if row["pair"] == pair}
    shift = (i - (pairs - 1) / 2) * 0.12  # side by side: the intervals stay legible
    x = [j + shift for j, r in enumerate(ranks) if r in shares]
    points = [shares[r] for r in ranks if r in shares]
    style = {"color": OKABE_ITO[i % len(OKABE_ITO)], "linestyle": LINES[i % len(LINES)]}
    rank = f"above {ranks[-1]}" if found[pair] is None else found[pair]
    label = f"{pair}: safety rank {rank}"
    ax.plot(x, [p["value"] for p in points], marker="o", label=label, **style)
    for at, share in [*zip(x, points, strict=True), (len(ranks) + 0.4 + shift, shares[None])]:
        interval(ax, at, share, colour=style["color"], filled=True)


# --- one pair, and R of its attacks -------------------------------------------

CURVES = {"asr": ("ASR", 0), "helpfulness": ("help with allowed", 2)}  # label; colour and line
ATTACK_COLOURS = tuple(OKABE_ITO[i] for i in (1, 3, 4, 5, 2, 0))
R_ALIGN = "$R_\\mathrm{align}$"


def attack_style(i: int) -> dict:
    """Return the i-th attack's colour and line; R_align alone is black and solid."""
    return {
        "color": ATTACK_COLOURS[i % len(ATTACK_COLOURS)],
        "linestyle": LINES[(i + 1) % len(LINES)],
    }


@styled
def figure_rank_and_r(data: dict) -> Figure:
    """Draw the rank curve of one pair, R along its layers, and R_ft / R_align of every attack."""
    attacks = list(data["ratios"])
    tall = 2.9 + 0.2 * len(attacks)
    fig = plt.figure(figsize=(TWO_COLUMNS[0], tall), layout="constrained")
    plt.close(fig)  # pyplot forgets it
    rows = [["curve", "r"], ["curve", "ratio"]] if attacks else [["curve", "r"]]
    heights = [2.0, 0.3 + 0.16 * len(attacks)] if attacks else [1]
    axes = fig.subplot_mosaic(rows, height_ratios=heights)
    plot_rank_curve(data, ax=axes["curve"])
    plot_r(data, ax=axes["r"])
    if attacks:
        plot_ratios(data, ax=axes["ratio"])
    parts = [axes[name].get_legend_handles_labels() for name in ("curve", "r")]
    handles, labels = ([x for part in parts for x in part[i]] for i in (0, 1))
    fig.legend(handles, labels, loc="outside lower center", ncol=4, columnspacing=1.2)
    return fig


def plot_rank_curve(data: dict, *, ax: Axes) -> Axes:
    """Draw ASR and helpfulness against r with Wilson bands, and the aligned model's dashed."""
    points = sorted((row for row in data["rows"] if row["r"] is not None), key=lambda p: p["r"])
    aligned = [row["measures"] for row in data["rows"] if row["r"] is None]
    for measure, (label, i) in CURVES.items():
        known = [p for p in points if measure in p["measures"]]
        x = [place(p["r"]) for p in known]
        value, low, high = columns(p["measures"][measure] for p in known)
        colour = OKABE_ITO[i]
        ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        ax.plot(x, value, color=colour, linestyle=LINES[i], marker="o", label=label)
        if aligned and measure in aligned[0]:
            level = aligned[0][measure]["value"]
            ax.axhline(level, color=colour, linestyle="--", linewidth=0.8)
    ax.plot([], [], color="0.4", linestyle="--", linewidth=0.8, label="aligned model")
    found = data["safety_rank"]
    if found is not None:
        at = place(found), next(p["measures"]["asr"]["value"] for p in points if p["r"] == found)
        ax.plot(*at, "o", markersize=9, markerfacecolor="none", color=OKABE_ITO[0])
        late = at[0] > place(points[-1]["r"]) / 2
        side = {"xytext": (-6 if late else 6, 7), "ha": "right" if late else "left"}
        ax.annotate(f"safety rank {found}", at, textcoords="offset points", fontsize=7, **side)
    ax.axvline(place(data["k"]), color="0.4", linestyle=":", linewidth=1.0, zorder=0)
    ax.text(
        place(data["k"]), 1.0, f" k = {data['k']}", fontsize=7, color="0.35", va="bottom",
        ha="center", transform=ax.get_xaxis_transform(),
    )  # fmt: skip
    ranks = [p["r"] for p in points]
    ax.set_xticks([place(r) for r in ranks], map(str, ranks))
    ax.set_xlabel("directions of ΔW added to the base, r")
    share_axis(ax)
    return ax


def plot_r(data: dict, *, ax: Axes) -> Axes:
    """Draw R_align and R_ft along the layers: each kind thin, their median bold."""
    for i, attack in enumerate([None, *data["ratios"]]):
        style = {"color": "black", "linestyle": "-"} if attack is None else attack_style(i - 1)
        x, y, _ = r_threads(data, attack)
        ax.plot(_numbers(x), _numbers(y), color=style["color"], linewidth=0.4, alpha=0.5)
        x, y = r_line(data, attack)
        label = R_ALIGN if attack is None else f"$R_\\mathrm{{ft}}$, {attack}"
        ax.plot(_numbers(x), _numbers(y), **style, marker="o", markersize=2.5, label=label)
    ticks = layer_ticks(data)
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.set(xlabel="layer", ylabel=f"R at k = {data['k']}", ylim=(0, 1.02))
    ax.grid(axis="y", color="0.9", linewidth=0.5)
    ax.set_axisbelow(True)
    what = "every kind (thin) and their median" if data["kind"] == ALL else data["kind"]
    ax.set_title(what)
    pad = 0.03 * (max(ticks) - min(ticks)) + 0.2
    ax.set_xlim(min(ticks) - pad, max(ticks) + pad)
    return ax


def plot_ratios(data: dict, *, ax: Axes) -> Axes:
    """Draw R_ft / R_align of every attack: median, quartiles thick, all matrices thin."""
    names = list(data["ratios"])
    for y, found in enumerate(data["ratios"].values()):
        if found:
            colour = attack_style(y)["color"]
            ax.hlines(y, found["least"][1], found["most"][1], color=colour, linewidth=0.8)
            ax.hlines(y, found["low"], found["high"], color=colour, linewidth=2.4)
            ax.plot(found["median"], y, "o", color=colour, markersize=4)
    ax.axvline(1.0, color="0.6", linewidth=0.6, zorder=0)
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel(r"$R_\mathrm{ft} / R_\mathrm{align}$")
    ends = [found["most"][1] for found in data["ratios"].values() if found]
    ax.set(xlim=(0, 1.05 * max([1.0, *ends])), ylim=(len(names) - 0.5, -0.5))
    ax.tick_params(axis="y", length=0)
    return ax


def _numbers(values: list) -> list[float]:
    """Return the list with NaN for None, which parts a line."""
    return [np.nan if v is None else v for v in values]
