"""The look of the figures: sizes, colours, axes, and the marks that several figures share."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable
from functools import wraps
from itertools import chain
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import PercentFormatter

from lox_kit.text import clean, map_texts

STYLE = Path(__file__).with_name("paper.mplstyle")
ONE_COLUMN, TWO_COLUMNS = 3.4, 7.0  # inches: how wide a figure is if nothing is asked
WIDTHS = {  # of a column, or of the text where there is one column, inches
    "neurips": 5.5, "iclr": 5.5, "colm": 5.5, "tmlr": 6.5,
    "icml": 3.25, "acl": 3.03, "aaai": 3.3, "cvpr": 3.25,
}  # fmt: skip
NARROWEST, WIDEST = 3.0, 7.5
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_SIZES = rc_params_from_file(STYLE, use_default_template=False)
TALK = {  # text of 14 points in place of 8, and all else as much larger
    key: 1.75 * size for key, size in _SIZES.items() if isinstance(size, float) and "dpi" not in key
}
_TYPE = ("axes.titlesize", "axes.labelsize", "xtick.labelsize", "legend.fontsize")
_styles: list = [STYLE]
_width: contextvars.ContextVar[float | None] = contextvars.ContextVar("width", default=None)
TIGHT = {"columnspacing": 1.0, "handlelength": 1.6}  # legends
MARKS = "osD^vP*X"
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


def use(style: str | Path | dict = "paper") -> None:
    """Draw figures for a "paper", for a "talk", or with a style of your own over the paper's.

    Parameters
    ----------
    style : "paper", "talk", or the file of an mplstyle, or a dict of rcParams
        What your own sets wins.

    Raises
    ------
    OSError
        If there is no such style.
    """
    with plt.style.context(layers(style)):  # it is a style
        _styles[:] = layers(style)


def layers(style: str | Path | dict) -> list:
    """Return a style's layers: what the paper's sets, and what is set over it."""
    return [STYLE, *{"paper": [], "talk": [TALK]}.get(str(style), [style])]


def styled(draw: Callable[[dict], Figure]) -> Callable[..., Figure]:
    """Return a function that draws figure data, laid out for a width, in a style.

    It takes `width`, in inches or a venue of `WIDTHS`, from 3 to 7.5 in the type of a paper; and
    `style`, as `use` does. By default a figure has its own width, and the style that is in use.
    The texts in the data are shown as they stand: a `$` begins no formula.
    """

    def shown(text: str) -> str:
        return clean(text).replace("$", r"\$")

    @wraps(draw)
    def drawn(data: dict, *, width: float | str | None = None, style=None) -> Figure:
        with plt.style.context(_styles if style is None else layers(style)):
            token = _width.set(None if width is None else _inches(width))
            try:
                return draw(map_texts(shown, data))
            finally:
                _width.reset(token)

    return drawn


def _inches(width: float | str) -> float:
    """Return a width in inches.

    Raises
    ------
    ValueError
        If there is no such venue, or the figures are not made for such a width.
    """
    try:
        width = float(WIDTHS.get(width, width))
    except ValueError:
        names = ", ".join(WIDTHS)
        raise ValueError(f"width={width!r}: use inches, or one of {names}.") from None
    if not NARROWEST <= width / em() <= WIDEST:
        low, high = NARROWEST * em(), WIDEST * em()
        raise ValueError(f"width={width:g}: use {low:g} to {high:g} inches, for type of this size.")
    return width


def em() -> float:
    """Return how many times as large as the paper's the largest type of the style is."""
    sizes = (FontProperties(size=plt.rcParams[key]).get_size_in_points() for key in _TYPE)
    return max(size / _SIZES[key] for key, size in zip(_TYPE, sizes, strict=True))


def small() -> float:
    """Return the size of small type, in points."""
    return FontProperties(size=plt.rcParams["xtick.labelsize"]).get_size_in_points()


def page(width: float) -> float:
    """Return how wide to make the figure: as was asked, or this width, which is for a paper."""
    asked = _width.get()
    return width * em() if asked is None else asked


def narrow() -> bool:
    """Whether the figure is for one column of a page."""
    return page(TWO_COLUMNS) < 5 * em()


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure that pyplot forgets: a notebook shows it once, when asked.

    Its usual width, see `page`, and its height are in inches, for a paper.
    """
    fig = plt.figure(figsize=(page(width), height * em()), layout="constrained")
    plt.close(fig)
    return fig


def one_panel(height: float = 2.4, usual: float = ONE_COLUMN) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes; its height in inches, for a paper."""
    fig = new_figure(usual, height)
    return fig, fig.subplots()


def panels(n: int, least: float, height: float, **options) -> tuple[Figure, np.ndarray]:
    """Return a figure and the axes of `n` panels, in as many rows as its width takes.

    Parameters
    ----------
    least, height : float
        Inches: a panel is at least so wide, and so high, in the type of a paper.

    Raises
    ------
    ValueError
        If there is no panel to draw.
    """
    if not n:
        raise ValueError("there is nothing to draw: no attack, or no measure, is in the data.")
    rows = -(-n // max(1, min(n, int(page(TWO_COLUMNS) / em() / least + 1e-6))))
    columns = -(-n // rows)
    fig = new_figure(TWO_COLUMNS, rows * height)
    axes = fig.subplots(rows, columns, squeeze=False, **options)
    for ax in axes.flat[n:]:
        ax.remove()
    for ax in axes.flat[n - columns : n]:  # the lowest of each column
        ax.tick_params(labelbottom=True)
    return fig, axes.flatten()[:n]


def legend_below(fig: Figure, *axes: Axes) -> None:
    """Put one legend for these panels under a figure, in as many columns as its width takes."""
    found = (zip(*ax.get_legend_handles_labels(), strict=True) for ax in axes)
    width = fig.get_figwidth() / em()
    across = int(width / 0.058) - 8
    once = {fill(label, across): handle for handle, label in chain.from_iterable(found)}
    most = int(width / (0.36 + 0.054 * min(max(map(len, once), default=0), across))) or 1
    columns = -(-len(once) // -(-len(once) // most)) if once else 1
    fig.legend(once.values(), once, loc="outside lower center", ncol=columns, **TIGHT)


def title(ax: Axes, text: str) -> None:
    """Put a title over a panel, in lines that its width takes."""
    across = ax.get_subplotspec().get_gridspec().ncols
    ax.set_title(fill(text, max(12, int(ax.figure.get_figwidth() / em() / across / 0.068))))


def shares_at(points: Iterable[dict], x: str, measure: str) -> tuple[list[float], list[dict]]:
    """Return where along a curve a share was measured (`x` of its points), and the shares."""
    found = [(p[x], p["measures"][measure]) for p in points if measure in p["measures"]]
    return [at for at, _ in found], [share for _, share in found]


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
    ax.plot(x, value, **{"marker": "o", **style})
    if band:
        ax.fill_between(x, low, high, color=style["color"], alpha=band, linewidth=0)


def interval(ax: Axes, x: float, share: dict, *, colour: str, filled: bool) -> None:
    """Draw one share with its interval."""
    ax.vlines(x, share["low"], share["high"], color=colour, linewidth=0.9)
    ax.plot(x, share["value"], "o", color=colour, markerfacecolor=colour if filled else "white")


def percent(*axes: Axis, decimals: int | None = None) -> None:
    """Write the numbers of these axes, each an axes' `xaxis` or another, in percent."""
    for axis in axes:
        axis.set_major_formatter(PercentFormatter(1.0, decimals))


def share_axis(ax: Axes) -> None:
    """Make the y axis one of shares, 0 to 100 %."""
    ax.set_ylim(-0.03, 1.03)
    percent(ax.yaxis)
    ax.grid(axis="y", color="0.9", linewidth=0.5)
    ax.set_axisbelow(True)
