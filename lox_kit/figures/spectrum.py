"""Figures of the safety subspace: singular values, energy, and where in the model they are."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, PercentFormatter

from lox_kit.extrapolation import kinds_of, map_layout, module_of, place_of

from . import canvas
from .canvas import OKABE_ITO, TWO_COLUMNS, styled


def spectrum_styles(data: dict) -> dict[str, tuple[str, dict]]:
    """Return a label, and colour and line style, for every matrix of a spectrum's data.

    One colour per kind of matrix; where only one kind of several layers is shown
    (`data["view"] == "kind"`), one per layer. `data["modules"]`, if given, fixes the order of kinds
    so that a part of the matrices keeps the colours they have among all.
    """
    names = [x["name"] for x in data["layers"]]
    if data.get("view") == "kind" and len(names) > 1:
        colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(names)))
        return {
            name: (f"layer {place_of(name)[0]}", {"color": to_hex(colour), "linestyle": "-"})
            for name, colour in zip(names, colours, strict=True)
        }
    modules = data.get("modules") or kinds_of(names)
    return {name: (m := module_of(name), canvas.line_style(modules.index(m))) for name in names}


def plot_spectrum(data: dict, *, ax: Axes) -> None:
    """Draw every matrix's singular values over its own noise edge, by kind of matrix."""
    styles = spectrum_styles(data)
    seen = set()
    for name, values in over_noise(data).items():
        label, style = styles[name]
        width = 1.8 if name == data.get("selected") else 0.8
        shown = None if label in seen else label
        seen.add(label)
        ax.plot(range(1, len(values) + 1), values, **style, label=shown, linewidth=width)
    ax.axhline(1.0, color="0.4", linewidth=0.8, zorder=0)
    words = {"color": "0.35", "fontsize": canvas.small(), "va": "bottom", "ha": "right"}
    ax.text(1.0, 1.0, "noise edge ", transform=ax.get_yaxis_transform(), **words)
    if data.get("k"):
        ax.axvline(data["k"], color="0.4", linestyle="--", linewidth=0.8, zorder=0)
    most = max(len(x["S"]) for x in data["layers"])
    ax.set(yscale="log", xlim=(1, min(64, most)), xlabel="direction")
    ax.set(ylabel="singular value of ΔW / noise edge", ylim=(1e-2, None))
    ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.legend(ncol=2, loc="upper right", borderaxespad=0, handlelength=1.6, labelspacing=0.2)


def plot_energy(data: dict, *, ax: Axes) -> None:
    """Draw the share of |dW|^2 in the top k against k: every matrix, and the median in bold."""
    curves = energy_curves(data)
    for share in curves.values():
        ax.plot(range(1, len(share) + 1), share, color="0.75", linewidth=0.6)
    median = median_curve(curves)
    shortest = len(median)
    ax.plot(range(1, shortest + 1), median, color=OKABE_ITO[0], linewidth=1.6, label="median")
    ax.plot([], [], color="0.75", linewidth=0.6, label="each matrix")
    k = data.get("k", 6)
    if 1 <= k <= shortest:
        at, beside = (k, median[k - 1]), {"xytext": (8, -9), "textcoords": "offset points"}
        ax.plot(*at, "o", color=OKABE_ITO[1])
        ax.annotate(f"k = {k}: {at[1]:.0%}", at, fontsize=canvas.small(), **beside)
    ax.set(xlim=(1, min(64, shortest)), ylim=(0, 1.0), xlabel="directions kept, k")
    canvas.percent(ax.yaxis)
    ax.set_ylabel("energy of ΔW in the top k")
    ax.legend(loc="lower right")


def over_noise(data: dict) -> dict[str, list[float]]:
    """Return the singular values of every matrix that alignment changed, over its noise edge."""
    return {
        x["name"]: (np.array(x["S"]) / x["noise_edge"]).tolist()
        for x in data["layers"]
        if x["norm"]
    }


def energy_curves(data: dict) -> dict[str, np.ndarray]:
    """Return the share of |dW|^2 in the top 1, 2, ... of every matrix that alignment changed."""
    return {
        x["name"]: np.minimum(np.cumsum(np.square(x["S"])) / x["norm"] ** 2, 1.0)
        for x in data["layers"]
        if x["norm"]
    }


def median_curve(curves: dict[str, np.ndarray]) -> np.ndarray:
    """Return the median over matrices at each k that all of them have; empty if there are none."""
    shortest = min(map(len, curves.values()), default=0)
    return np.median([c[:shortest] for c in curves.values()] or [[]], axis=0)


@styled
def figure_spectrum(data: dict) -> Figure:
    """Draw spectrum and energy side by side."""
    fig, axes = canvas.panels(2, 2.6, 2.6)
    plot_spectrum(data, ax=axes[0])
    plot_energy(data, ax=axes[1])
    return fig


@styled
def figure_energy_map(data: dict) -> Figure:
    """Draw the share of energy in the top k as a map: layers down, kinds of matrix across."""
    maps = _maps(data)
    height = min(0.9 + 0.28 * max(len(rows) for _, _, rows in maps), 8)
    fig = canvas.new_figure(TWO_COLUMNS * 0.75, height)
    widths = [len(columns) for _, columns, _ in maps]
    axes = fig.subplots(1, len(maps), squeeze=False, width_ratios=widths)
    _draw_maps(fig, axes[0], maps, data["k"], aspect=12)
    return fig


def _maps(data: dict) -> list[tuple[np.ndarray, list[str], list[str]]]:
    """Return each map's numbers, NaN where there is no matrix, and its columns and rows."""
    energy = data["energy"]
    return [
        (np.array([[energy.get(n, np.nan) for n in row] for row in names]), *heads)
        for names, *heads in map_layout(energy)
    ]


def _draw_maps(fig, axes, maps: list[tuple], k: int, *, aspect: float) -> None:
    """Draw the maps and their colour bar; rows are layers, or what is outside them."""
    images = [_heat(ax, *part) for ax, part in zip(axes, maps, strict=True)]
    depth = "" if maps[0][1] == ["outside"] else "layer"
    axes[0].set(title=f"energy of ΔW in the top {k}", ylabel=depth)
    bar = fig.colorbar(images[0], ax=axes, format=PercentFormatter(1.0), aspect=aspect)
    bar.outline.set_linewidth(0.5)


@styled
def figure_explorer(data: dict) -> Figure:
    """Draw the energy map, the singular values and the energy of some matrices, at one k."""
    wide = not canvas.narrow()
    fig = canvas.new_figure(TWO_COLUMNS, 4.0 if wide else 7.5)
    sides = {"ncols": 2, "width_ratios": (1, 1.15)} if wide else {"nrows": 2}
    left, right = fig.subfigures(**sides)
    maps = [(g.T, rows, [""]) if c == ["outside"] else (g, c, rows) for g, c, rows in _maps(data)]
    heights = [max(len(grid), 1.2) for grid, _, _ in maps]
    axes = left.subplots(len(maps), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_maps(left, axes, maps, data["k"], aspect=25)
    above, below = right.subplots(2, 1, sharex=True)
    plot_spectrum(data, ax=above)
    plot_energy(data, ax=below)
    above.set(xlabel="", ylabel="singular value / noise edge", ylim=(5e-3, None))
    above.legend(ncol=3, loc="lower left", borderaxespad=0, labelspacing=0.2)
    below.axvline(data["k"], color="0.4", linestyle="--", linewidth=0.8, zorder=0)
    return fig


def _heat(ax: Axes, grid: np.ndarray, columns: list[str], rows: list[str]):
    """Draw one heat map, with numbers in the cells while they are legible."""
    image = ax.imshow(grid, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    slant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(range(len(columns)), columns, **({"rotation": 90} if canvas.narrow() else slant))
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    style = {"ha": "center", "va": "center", "fontsize": canvas.small()}
    if grid.size <= 80:
        for i, j in np.argwhere(np.isfinite(grid)):  # a layer may lack a kind of matrix
            colour = "black" if grid[i, j] > 0.6 else "white"
            ax.text(j, i, f"{100 * grid[i, j]:.0f}", color=colour, **style)
    return image
