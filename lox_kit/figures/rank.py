"""Figures of rank: how many directions safety needs, and how much of them an attack leaves."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import canvas
from .canvas import LINES, MEASURE_STYLES, MEASURES, OKABE_ITO, TWO_COLUMNS, styled
from .published import add_ranks
from .rank_data import ALL, place, rank_curve_points, ticks_shown

# --- several pairs -----------------------------------------------------------


@styled
def figure_rank_curve(data: dict) -> Figure:
    """Draw ASR, refusal and helpfulness of `W_base + Proj_r(dW)` against r, every pair.

    The aligned models stand apart. Bars are 95 % Wilson intervals; the legend gives each pair's
    safety rank. What was not measured has no panel.
    """
    pairs = list(dict.fromkeys(row["pair"] for row in data["rows"]))
    ranks = sorted({row["r"] for row in data["rows"]} - {None})
    shown = [m for m in MEASURES if all(m in row["measures"] for row in data["rows"])]
    fig, axes = canvas.panels(len(shown), 1.9, 2.4, sharey=True)
    at = {r: i for i, r in enumerate(ranks)} | {None: len(ranks) + 0.7}  # None: the aligned model
    for ax, measure in zip(axes, shown, strict=True):
        for i, pair in enumerate(pairs):
            shift = (i - (len(pairs) - 1) / 2) * 0.12  # side by side: the intervals stay legible
            shares = {r["r"]: r["measures"][measure] for r in data["rows"] if r["pair"] == pair}
            known = [r for r in at if r in shares]
            x, y = [at[r] + shift for r in known], [shares[r] for r in known]
            found = data["safety_rank"][pair]
            most = max(filter(None, shares), default=0)
            label = f"{pair}: safety rank {f'above {most}' if found is None else found}"
            canvas.share_line(ax, x[:-1], y[:-1], label=label, **canvas.line_style(i))
            for where, share in zip(x, y, strict=True):
                canvas.interval(ax, where, share, colour=canvas.line_style(i)["color"], filled=True)
        if data.get("paper") and measure == "asr":
            add_ranks(ax, at)
        ax.set_xticks(list(at.values()), [*map(str, ranks), "aligned"])
        ax.axvline(len(ranks) - 0.2, color="0.8", linewidth=0.6)
        ax.set(title=MEASURES[measure], xlabel="directions of ΔW, r")
        canvas.share_axis(ax)
    canvas.legend_below(fig, axes[0])
    return fig


# --- one pair, and R of its attacks -------------------------------------------

CURVES = {
    measure: (name, MEASURE_STYLES[measure])
    for measure, name in (("asr", "ASR"), ("helpfulness", "help with allowed"))
}
ATTACK_COLOURS = tuple(OKABE_ITO[i] for i in (1, 3, 4, 5, 2, 0))


def attack_style(i: int) -> dict:
    """Return the i-th attack's colour and line; R_align alone is black and solid."""
    line = LINES[(i + 1) % len(LINES)]
    return {"color": ATTACK_COLOURS[i % len(ATTACK_COLOURS)], "linestyle": line}


def r_styles(data: dict) -> list[dict]:
    """Return colour and line of R_align, and of every attack's R_ft."""
    black = {"color": "#000000", "linestyle": "-"}
    return [black, *(attack_style(i) for i in range(len(data["ratios"])))]


@styled
def figure_rank_and_r(data: dict) -> Figure:
    """Draw the rank curve of one pair, R along its layers, and R_ft / R_align of every attack."""
    attacks = list(data["ratios"])
    rows = [["curve", "r"], ["curve", "ratio"]] if attacks else [["curve", "r"]]
    heights = [2.0, 0.6 + 0.16 * len(attacks)] if attacks else [2.4]
    if canvas.narrow():
        rows, heights = [["curve"], *([name] for _, name in rows)], [2.4, *heights]
    fig = canvas.new_figure(TWO_COLUMNS, sum(heights) + 0.8)
    axes = fig.subplot_mosaic(rows, height_ratios=heights)
    plot_rank_curve(data, ax=axes["curve"])
    plot_r(data, ax=axes["r"])
    if attacks:
        plot_ratios(data, ax=axes["ratio"])
    canvas.legend_below(fig, *axes.values())
    return fig


def plot_rank_curve(data: dict, *, ax: Axes) -> None:
    """Draw ASR and helpfulness against r with Wilson bands, and the aligned model's dashed."""
    points, aligned, safe = rank_curve_points(data)
    small = {"fontsize": canvas.small()}
    for measure, (label, style) in CURVES.items():
        canvas.share_line(
            ax, *canvas.shares_at(points, "place", measure), band=0.15, label=label, **style
        )
        if measure in aligned:
            level = aligned[measure]["value"]
            ax.axhline(level, color=style["color"], linestyle="--", linewidth=0.8)
    ax.plot([], [], color="0.4", linestyle="--", linewidth=0.8, label="aligned model")
    for p in safe:
        at = p["place"], p["measures"]["asr"]["value"]
        ax.plot(*at, "o", markersize=9, markerfacecolor="none", color=OKABE_ITO[0])
        late = at[0] > points[-1]["place"] / 2
        side = {"xytext": (-6 if late else 6, 7), "ha": "right" if late else "left", **small}
        ax.annotate(f"safety rank {p['r']}", at, textcoords="offset points", **side)
    k, words = place(data["k"]), {"color": "0.35", "va": "bottom", "ha": "center", **small}
    ax.axvline(k, color="0.4", linestyle=":", linewidth=1.0, zorder=0)
    ax.text(k, 1.0, f" k = {data['k']}", transform=ax.get_xaxis_transform(), **words)
    ax.set_xticks([p["place"] for p in points], [str(p["r"]) for p in points])
    ax.set_xlabel("directions of ΔW added to the base, r")
    canvas.share_axis(ax)


def plot_r(data: dict, *, ax: Axes) -> None:
    """Draw R_align and R_ft along the layers: each kind thin, their median bold."""
    for line, style in zip(data["lines"], r_styles(data), strict=True):
        for values in line["kinds"].values():
            ax.plot(np.array(values, float), color=style["color"], linewidth=0.4, alpha=0.5)
        what = f"R of {line['attack'] or 'the alignment'}"
        ax.plot(np.array(line["median"], float), **style, marker="o", markersize=2.5, label=what)
    ticks = ticks_shown(data)
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.set(xlabel="layer", ylabel=f"R at k = {data['k']}", ylim=(0, 1.02))
    ax.grid(axis="y", color="0.9", linewidth=0.5)
    ax.set_axisbelow(True)
    ax.set_title("every kind (thin) and their median" if data["kind"] == ALL else data["kind"])


def plot_ratios(data: dict, *, ax: Axes) -> None:
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
    ax.set_xlabel("R of the attack / R of the alignment")
    ends = [found["most"][1] for found in data["ratios"].values() if found]
    ax.set(xlim=(0, 1.05 * max([1.0, *ends])), ylim=(len(names) - 0.5, -0.5))
    ax.tick_params(axis="y", length=0)
