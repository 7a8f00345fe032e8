"""Figures of the landscape, from the plain data that `Landscape.to_dict` gives."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.patheffects as effects
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from mpl_toolkits.mplot3d import proj3d

from . import canvas
from .canvas import ARM_COLOURS, LINES, OKABE_ITO, styled
from .cuts import figure_over_cut, line_on

MARKERS = {"aligned": "o", "LoX": "^", "attacked": "s", "attacked LoX": "D"}
ARROWS = (("aligned", "LoX"), ("aligned", "attacked"), ("LoX", "attacked LoX"))
HALO = [effects.withStroke(linewidth=1.6, foreground="white")]
EDGE = {  # a white edge with a black rim: seen on any colour
    "markersize": 6,
    "markeredgecolor": "white",
    "markeredgewidth": 1.0,
    "path_effects": [effects.withStroke(linewidth=2.4, foreground="black"), effects.Normal()],
}
ON_PLANE = 1e-3  # of the extent: points nearer than this are shown as lying on the plane


def map_data(
    landscape: dict, trajectories: Sequence[dict] = (), title: str = "", cut: dict | None = None
) -> dict:
    """Return what `figure_landscape_map` and `figure_landscape_3d` are drawn from.

    Parameters
    ----------
    landscape : dict
        From `Landscape.to_dict`, of a plane.
    trajectories : sequence of dict
        From `Trajectory.to_dict`.
    cut : dict, optional
        From `landscape.cut_through`: drawn below the landscape.
    """
    data = {**landscape, "trajectories": list(trajectories), "title": title}
    return data | {"cut": cut} if cut else data


def way_style(i: int, way: dict) -> dict:
    """Return a trajectory's colour and line: that of the model it starts from, if it names one."""
    start = way["name"].rpartition(" on ")[2]
    return {"color": ARM_COLOURS.get(start, OKABE_ITO[2 + i % 5]), "linestyle": LINES[i % 4]}


def coordinates(data: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a (n_a,), b (n_b,) and the values (n_a, n_b), NaN where nothing was measured."""
    values = np.array([[np.nan if v is None else v for v in row] for row in data["values"]])
    if len(data["grid"]) != 2:
        raise ValueError("a map needs a landscape over a plane; this one is over a line.")
    if values.shape != (cells := tuple(g["last"] - g["first"] + 1 for g in data["grid"])):
        raise ValueError(f"it holds {values.shape} values, and its grid has {cells} cells.")
    a, b = (np.arange(g["first"], g["last"] + 1) * g["step"] for g in data["grid"])
    return a, b, values


def colours(data: dict) -> tuple[Colormap, Normalize]:
    """Return colour map and norm: cividis over 0..1 for a share, else diverging around 0."""
    if data["limits"]:
        return colormaps["cividis"], Normalize(*data["limits"])
    values = [v for row in data["values"] for v in row if v is not None]
    most = max(map(abs, values), default=0.0) or 1.0
    return colormaps["PuOr"], Normalize(-most, most)


# --- the map ----------------------------------------------------------------------------------


def plot_landscape_map(data: dict, *, ax: Axes) -> None:
    """Draw the cells as they were measured, contours between them, models and trajectories.

    A cell is a rectangle of its own colour; nothing is drawn where nothing was measured. A model's
    marker has the colour of the checkpoint's own value; a ring says that it lies off the plane.
    """
    a, b, values = coordinates(data)
    cmap, norm = colours(data)
    ax.pcolormesh(a, b, values.T, cmap=cmap, norm=norm, shading="nearest", rasterized=True)
    levels = (0.1, 0.5, 0.9) if data["limits"] else (0.0,)
    if np.isfinite(values).all() and values.min() < levels[-1] and values.max() > levels[0]:
        colour = "white" if data["limits"] else "black"
        lines = ax.contour(a, b, values.T, levels, colors=colour, linewidths=0.6)
        ax.clabel(lines, fmt="%.1f", fontsize=canvas.small())
    for i, way in enumerate(data["trajectories"]):
        style = way_style(i, way) | {"linewidth": 1.1, "path_effects": HALO}
        label = f"{way['name']}: {way['explained']:.0%} of its length lies in the plane"
        ax.plot(*zip(*way["at"], strict=True), marker=".", markersize=2.5, label=label, **style)
    line_on(data, ax)
    extent = max(np.ptp(a), np.ptp(b))
    for name, mark in data["marks"].items():
        _mark(ax, name, mark, cmap(norm(_shown(mark))), extent)
    ax.set(xlabel=data["axes"][0], ylabel=data["axes"][1])
    ax.locator_params(axis="x", nbins=5)
    ax.set_title(data["title"])
    ax.spines[:].set_visible(False)


def _shown(mark: dict) -> float:
    """Return the value that colours a marker: the checkpoint's own, or its cell's."""
    return (mark["own"] or mark["cell"])[0]


def _note(name: str, mark: dict, extent: float) -> str:
    """Return a model's name, with its distance if it lies off the plane."""
    off = mark["distance"]
    return f"{name}\n{off:.2f} off" if off > ON_PLANE * extent else name


def _mark(ax: Axes, name: str, mark: dict, colour, extent: float) -> None:
    """Draw one model: its marker, its name, and how far off the plane it is."""
    x, y = mark["at"]
    note = _note(name, mark, extent)
    if note != name:
        ax.plot(x, y, "o", markersize=12, markerfacecolor="none", markeredgecolor="white",
                markeredgewidth=0.8, zorder=4)  # fmt: skip
    ax.plot(x, y, MARKERS.get(name, "o"), markerfacecolor=colour, zorder=5, **EDGE)
    beside = {"xytext": (7, 5), "textcoords": "offset points", "linespacing": 1.15}
    ax.annotate(note, (x, y), fontsize=canvas.small(), zorder=6, path_effects=HALO, **beside)


@styled
def figure_landscape_map(data: dict) -> Figure:
    """Draw the landscape from above, and below it the cut, where the data have one."""
    fig, ax = figure_over_cut(data, 4.6, 0.78)
    plot_landscape_map(data, ax=ax)
    _colour_bar(ax, data)
    if data["trajectories"]:
        canvas.legend_below(fig, ax)
    return fig


def _colour_bar(ax: Axes, data: dict, **options) -> None:
    """Draw the colour bar, in percent for a share."""
    cmap, norm = colours(data)
    style = {"format": PercentFormatter(1.0)} if data["limits"] else {}
    style |= {"ax": ax, "aspect": 25, "label": data["metric"]}
    bar = ax.figure.colorbar(ScalarMappable(norm, cmap), **style, **options)
    bar.outline.set_linewidth(0.5)


# --- in three dimensions ----------------------------------------------------------------------


@styled
def figure_landscape_3d(data: dict) -> Figure:
    """Draw the paper's figure: the surface, the models on their own values, and arrows.

    The surface joins measured cells only, and stays in [0, 1] for a share. Off the plane a model's
    own value differs from its cell's: a thin line joins the two. Below it stands the cut, where the
    data have one.
    """
    a, b, values = coordinates(data)
    cmap, norm = colours(data)
    fig, ax = figure_over_cut(data, 4.8, 0.9 if canvas.narrow() else 0.73, "3d")
    ax.computed_zorder = False  # markers and arrows lie above the surface, whatever the angle
    extent = max(np.ptp(a), np.ptp(b))
    A, B = np.meshgrid(a, b, indexing="ij")
    corners = (values[:-1, :-1], values[1:, :-1], values[:-1, 1:], values[1:, 1:])
    faces = cmap(norm(np.mean(corners, axis=0)))
    ax.plot_surface(A, B, values, facecolors=faces, rstride=1, cstride=1, shade=False,
                    edgecolor="white", linewidth=0.15, zorder=1)  # fmt: skip
    line_on(data, ax, space=True)
    for start, end in ARROWS:
        if {start, end} <= set(data["marks"]):
            ends = (data["marks"][name] for name in (start, end))
            ax.add_artist(_Arrow(*([*m["at"], _shown(m)] for m in ends)))
    for name, mark in data["marks"].items():
        _mark_3d(ax, name, mark, cmap(norm(_shown(mark))), extent)
    ax.set(xlabel=data["axes"][0], ylabel=data["axes"][1], zlim=(norm.vmin, norm.vmax))
    ax.set_title(data["title"], y=0.96)
    ax.view_init(elev=28, azim=-58)
    ax.set_box_aspect((1, 1.15, 0.62), zoom=0.8 if canvas.narrow() else 1.0)
    ax.tick_params(pad=-2, length=0)
    for axis in "xyz":
        ax.locator_params(axis=axis, nbins=5)
    ax.xaxis.labelpad = ax.yaxis.labelpad = -4
    if data["limits"]:
        canvas.percent(ax.zaxis)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.pane.set_facecolor("white")
        axis._axinfo["grid"].update(color="0.9", linewidth=0.4)
    _colour_bar(ax, data, shrink=0.6, pad=0.02)
    return fig


class _Arrow(FancyArrowPatch):
    """An arrow between two points of a three-dimensional figure, its head of the page's size."""

    def __init__(self, start: Sequence[float], end: Sequence[float]):
        super().__init__((0, 0), (0, 0), arrowstyle="-|>", mutation_scale=8, linewidth=0.9,
                         color="black", shrinkA=4, shrinkB=4, zorder=3)  # fmt: skip
        self.set_path_effects([effects.withStroke(linewidth=2, foreground="white")])
        self._ends = np.array([start, end])

    def do_3d_projection(self, renderer=None) -> float:
        """Put the arrow where the axes' projection has its ends."""
        x, y, z = proj3d.proj_transform(*self._ends.T, self.axes.M)
        self.set_positions((x[0], y[0]), (x[1], y[1]))
        return float(min(z))


def _mark_3d(ax: Axes, name: str, mark: dict, colour, extent: float) -> None:
    """Draw a model at its own value, joined to the surface."""
    x, y = mark["at"]
    z, cell = _shown(mark), mark["cell"][0]
    note = "   " + _note(name, mark, extent).replace("\n", "\n   ")
    ax.plot([x, x], [y, y], [cell, z], color="black", linewidth=0.6, linestyle=":", zorder=3)
    ax.plot([x], [y], [z], MARKERS.get(name, "o"), markerfacecolor=colour, zorder=5, **EDGE)
    ax.text(x, y, z, note, fontsize=canvas.small(), zorder=6, path_effects=HALO)


# --- flatness ---------------------------------------------------------------------------------


@styled
def figure_flatness(data: dict) -> Figure:
    """Draw the metric along every line, aligned and LoX: one panel per kind of direction.

    Thin lines are single directions, the bold one is their mean; the dashed line is the threshold.
    """
    fig, axes = canvas.panels(len(data["panels"]), 1.35, 2.1, sharey=True)
    for ax, panel in zip(axes, data["panels"], strict=True):
        for i, (model, curves) in enumerate(panel["curves"].items()):
            lines, x = np.array(curves), np.array(panel["places"])
            colour = ARM_COLOURS.get(model, OKABE_ITO[i])
            style = {"color": colour, "linestyle": LINES[i]}
            if len(lines) > 1:
                ax.plot(x, lines.T, color=colour, linewidth=0.4, alpha=0.6)
            ax.plot(x, lines.mean(0), linewidth=1.6, label=model, **style)
        ax.axhline(data["threshold"], color="0.6", linewidth=0.7, linestyle=":", zorder=0)
        canvas.title(ax, panel["title"])
        ax.set_xlabel(panel["xlabel"])
        ax.margins(x=0.02)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        canvas.share_axis(ax)
    axes[0].set_ylabel("attack success rate")
    canvas.legend_below(fig, axes[0])
    return fig
