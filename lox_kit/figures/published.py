"""The published numbers, drawn in grey beside ours: Perin et al. 2025 (arXiv:2506.15606).

Of Llama-2-7B. Their ASR is the share of 100 answers that a chat model graded 5 of 5, so it is not
to be compared with ours point by point. What was read off a plot is within one point.
"""

from __future__ import annotations

from matplotlib.axes import Axes

PUBLISHED = ("retained", "r_bars", "rank_curve")  # the figures that show them
CITED = "Perin et al. 2025, another judge"
STYLE = {"color": "0.6", "linewidth": 0.9, "markersize": 3, "zorder": 0}
OURS = {"arithmetic": "gsm8k", "context": "dolly", "mixed": "alpaca"}  # and what they stand for
OURS |= {"persona": "identity", "forbidden": "pure_bad"}
RANKS = {0: 41, 1: 4, 2: 1, 3: 2, 4: 1, 6: 0, 8: 0}  # ASR in percent by r; 65.6k pairs
BOTH = ("aligned", "LoX")  # without LoX, and with it
R_FT = {  # without LoX, with LoX
    "gsm8k": (0.193, 0.385),
    "dolly": (0.285, 0.534),
    "alpaca": (0.283, 0.530),
    "identity": (0.289, 0.541),
    "pure_bad": (0.250, 0.489),
}
ASR = {  # in percent after the attack, without LoX and with it
    "gsm8k": (11, 0),
    "dolly": (52, 7),
    "alpaca": (32, 9),
    "identity": (84.3, 42.3),
    "pure_bad": (63, 9),
}
GAINED = (53, 32, 35, 15)  # percentage points on GSM8K; aligned on 22.5k, 32.8k, 45k, 65.6k pairs
RETAINED = {  # R_ft / R_align of the same four by k
    10: (0.394, 0.450, 0.466, 0.563),
    100: (0.459, 0.505, 0.518, 0.604),
    500: (0.546, 0.581, 0.592, 0.660),
    2000: (0.722, 0.740, 0.748, 0.785),
}


def add_ranks(ax: Axes, at: dict) -> None:
    """Draw the published ASR by rank, at the ranks that the axis has."""
    known = [r for r in RANKS if r in at]
    asr = [RANKS[r] / 100 for r in known]
    ax.plot([at[r] for r in known], asr, "o:", label=CITED, **STYLE)


def add_retained(ax: Axes) -> None:
    """Draw the published ratios against the ASR gained, with their k."""
    gained = [points / 100 for points in GAINED]
    for k, ratios in RETAINED.items():
        ax.plot(ratios, gained, "x:", label=CITED, **STYLE)
        ax.annotate(f"k = {k}", (ratios[0], gained[0]), color="0.5", ha="center", va="bottom")


def add_bars(left: Axes, right: Axes, attacks: list[str], sides: list[float | None]) -> None:
    """Draw the published R and ASR as ticks at the attacks that ours stand for.

    `sides` is where the bars of `BOTH` stand beside an attack's place; None where there is no bar.
    """
    for ax, found, unit in ((left, R_FT, 1), (right, ASR, 100)):
        for x, attack in enumerate(attacks):
            for side, value in zip(sides, found.get(OURS.get(attack), ()), strict=False):
                if side is not None:
                    style = {**STYLE, "markersize": 8, "zorder": 4, "markeredgewidth": 1.5}
                    ax.plot(x + side, value / unit, "_", label=CITED, **style)
