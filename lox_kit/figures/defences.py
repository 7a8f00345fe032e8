"""Figures of a defence: shares before and after an attack, and against alpha."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .canvas import (
    MEASURE_STYLES,
    MEASURES,
    OKABE_ITO,
    bars,
    columns,
    interval,
    legend_below,
    narrow,
    one_panel,
    panels,
    share_axis,
    small,
    styled,
)

SHORT = {"asr": "ASR", "refusal": "refusal", "helpfulness": "helpfulness"}


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
    fig, axes = panels(len(made), 1.5, 2.4, sharey=True)
    for ax, (measure, title) in zip(axes, made.items(), strict=True):
        for row in rows:
            share, after = row["measures"][measure], bool(row["attack"])
            spread = (seeds.index(row["seed"]) - (len(seeds) - 1) / 2) * 0.26 / max(len(seeds), 3)
            x = arms.index(row["arm"]) + (0.19 if after else -0.19) + spread
            interval(ax, x, share, colour=OKABE_ITO[1] if after else OKABE_ITO[0], filled=after)
        crowded = narrow() and len(arms) > 4
        names = arms if crowded else [a.replace(" ", "\n") for a in arms]
        ax.set_xticks(range(len(arms)), names, fontsize=small(), rotation=90)
        ax.set(title=title, xlim=(-0.6, len(arms) - 0.4))
        share_axis(ax)
        ax.tick_params(length=0)
        ax.spines[["left"]].set_visible(False)
    before, after = OKABE_ITO[:2]
    style = {"color": before, "markerfacecolor": "white"}
    axes[0].plot([], [], "o", label="before the attack", **style)
    axes[0].plot([], [], "o", label="after", color=after)
    legend_below(fig, axes[0])
    return fig


@styled
def figure_alpha(data: dict) -> Figure:
    """Draw ASR, refusal and helpfulness without an attack, against alpha."""
    fig, ax = one_panel()
    for measure in SHORT:
        x = [p["alpha"] for p in data["points"]]
        value, low, high = columns(p[measure] for p in data["points"])
        style = MEASURE_STYLES[measure] | {"marker": "o", "elinewidth": 0.8}
        ax.errorbar(x, value, bars(value, low, high), label=SHORT[measure], **style)
    ax.set(xlabel=f"alpha, at k = {data['k']}", ylim=(-0.03, 1.03))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=3, columnspacing=1.0)
    return fig
