"""The look of the figures: sizes, colours, axes, and the marks that several figures share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lox_kit.text import clean, map_texts

STYLE = Path(__file__).with_name("paper.mplstyle")
ONE_COLUMN = (3.4, 2.4)  # inches
TWO_COLUMNS = (7.0, 2.6)
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
TALK = {"figure.dpi": 175}  # at which 8-point text is as large as 14-point text is at 100
_styles: list = [STYLE]
LINES = ("-", "--", "-.", ":")
MEASURES = {
    "asr": "attack success rate",
    "refusal": "refusal of forbidden",
    "helpfulness": "help with allowed",
    "task": "attack task solved",
}
MEASURE_STYLES = {  # what complied alarms
    "asr": {"color": OKABE_ITO[1], "linestyle": "-"},
    "refusal": {"color": OKABE_ITO[0], "linestyle": "--"},
    "helpfulness": {"color": OKABE_ITO[2], "linestyle": "-."},
}
ARM_COLOURS = {
    "aligned": OKABE_ITO[1],
    "LoX": OKABE_ITO[0],
    "random subspace": OKABE_ITO[3],
    "full delta": OKABE_ITO[5],
    "SafeInst": OKABE_ITO[2],
}


def use(style: str) -> None:
    """Draw figures for a "paper", or for a "talk": the same, as large as with 14-point text.

    What `save_figure` writes is for a paper all the same.

    Raises
    ------
    ValueError
        If there is no such style.
    """
    if style not in ("paper", "talk"):
        raise ValueError(f"style {style!r}: use paper or talk.")
    _styles[1:] = [TALK] if style == "talk" else []


def styled(draw: Callable[[dict], Figure]) -> Callable[[dict], Figure]:
    """Return a function that draws figure data in the style that is in use.

    The texts in the data are shown as they stand: a `$` begins no formula.
    """

    def shown(text: str) -> str:
        return clean(text).replace("$", r"\$")

    @wraps(draw)
    def drawn(data: dict) -> Figure:
        with plt.style.context(_styles):
            return draw(map_texts(shown, data))

    return drawn


def new_figure(rows: int, columns: int, **options):
    """Return figure and axes that pyplot has forgotten: a notebook shows them once, when asked."""
    fig, axes = plt.subplots(rows, columns, layout="constrained", **options)
    plt.close(fig)
    return fig, axes


def new_mosaic(rows: list[list[str]], **options):
    """Return figure and axes by name, that pyplot has forgotten as well."""
    fig, axes = plt.subplot_mosaic(rows, layout="constrained", **options)
    plt.close(fig)
    return fig, axes


def shares_at(points: Iterable[dict], x: str, measure: str) -> tuple[list[float], list[dict]]:
    """Return where along a curve a share was measured (`x` of its points), and the shares."""
    found = [(p[x], p["measures"][measure]) for p in points if measure in p["measures"]]
    return [at for at, _ in found], [share for _, share in found]


def kind_style(i: int) -> dict:
    """Return the style of the i-th of many curves: solid until all colours are used."""
    return {"color": OKABE_ITO[i % len(OKABE_ITO)], "linestyle": LINES[i // len(OKABE_ITO) % 4]}


def line_style(i: int) -> dict:
    """Return the i-th colour and line style: readable in grey too."""
    return {"color": OKABE_ITO[i % len(OKABE_ITO)], "linestyle": LINES[i % len(LINES)]}


def columns(shares: Iterable[dict]) -> np.ndarray:
    """Return the values of shares, and the ends of their intervals: shape (3, n)."""
    return np.array([[s["value"], s["low"], s["high"]] for s in shares]).reshape(-1, 3).T


def bars(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return how far intervals reach down and up from their values: shape (2, n)."""
    return np.clip([value - low, high - value], 0, None)  # rounding: the ends can pass by 1e-17


def share_line(ax: Axes, x, shares: Iterable[dict], *, band: float = 0, **style) -> None:
    """Draw shares as a line, with their intervals as a band of this opacity if it is not 0."""
    value, low, high = columns(shares)
    ax.plot(x, value, marker="o", **style)
    if band:
        ax.fill_between(x, low, high, color=style["color"], alpha=band, linewidth=0)


def interval(ax: Axes, x: float, share: dict, *, colour: str, filled: bool) -> None:
    """Draw one share with its interval."""
    ax.vlines(x, share["low"], share["high"], color=colour, linewidth=0.9)
    ax.plot(x, share["value"], "o", color=colour, markerfacecolor=colour if filled else "white")


def share_axis(ax: Axes) -> None:
    """Make the y axis one of shares, 0 to 100 %."""
    ax.set_ylim(-0.03, 1.03)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.grid(axis="y", color="0.9", linewidth=0.5)
    ax.set_axisbelow(True)
