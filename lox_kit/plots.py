"""Paper figures with matplotlib: plain data in, axes out, files that do not change by themselves.

Every figure is drawn from plain data that `save_figure` writes beside it as JSON, and `redraw`
makes it again from that file alone.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from . import __version__
from .attack_plots import figure_attack_lab, figure_attack_table, figure_epochs
from .canvas import (
    LINES,
    OKABE_ITO,
    ONE_COLUMN,
    STYLE,
    TWO_COLUMNS,
    interval,
    new_figure,
    share_axis,
    styled,
)
from .folders import write_whole
from .judging_plots import figure_interval, figure_judges, interval_data, judges_data
from .landscape_plots import figure_flatness, figure_landscape_3d, figure_landscape_map
from .rank_data import rank_and_r_data
from .rank_plots import figure_rank_and_r, figure_rank_curve
from .spectrum_plots import (
    ORDER,
    energy_curves,
    energy_map_data,
    figure_energy_map,
    figure_explorer,
    figure_spectrum,
    kinds_of,
    map_layout,
    median_curve,
    module_of,
    place_of,
    plot_energy,
    plot_spectrum,
    spectrum_data,
    spectrum_styles,
)

__all__ = [  # every figure is found here
    "DRAW",
    "LINES",
    "OKABE_ITO",
    "ONE_COLUMN",
    "ORDER",
    "SHORT",
    "STYLE",
    "TWO_COLUMNS",
    "draw",
    "energy_curves",
    "energy_map_data",
    "figure_alpha",
    "figure_attack_lab",
    "figure_attack_table",
    "figure_defences",
    "figure_energy_map",
    "figure_epochs",
    "figure_explorer",
    "figure_flatness",
    "figure_interval",
    "figure_judges",
    "figure_landscape_3d",
    "figure_landscape_map",
    "figure_rank_and_r",
    "figure_rank_curve",
    "figure_spectrum",
    "interval_data",
    "judges_data",
    "kinds_of",
    "map_layout",
    "median_curve",
    "module_of",
    "place_of",
    "plot_energy",
    "plot_spectrum",
    "rank_and_r_data",
    "redraw",
    "save_figure",
    "spectrum_data",
    "spectrum_styles",
]

# --- defences ---------------------------------------------------------------------------------

SHORT = {"asr": "ASR", "refusal": "refusal", "helpfulness": "helpfulness"}
FIELDS = ("value", "low", "high")
PANELS = {
    "asr": "attack success rate",
    "refusal": "refusal of forbidden",
    "helpfulness": "help with allowed",
    "task": "attack task solved",
}


@styled
def figure_defences(data: dict) -> Figure:
    """Draw each arm's shares before and after the attack, one panel per measure, every seed.

    Bars are 95 % Wilson intervals; the prompts are the same for all.
    """
    rows = data["rows"]
    arms = list(dict.fromkeys(r["arm"] for r in rows))
    seeds = sorted({r["seed"] for r in rows})
    fig, axes = new_figure(1, len(PANELS), figsize=TWO_COLUMNS, sharey=True)
    for ax, (measure, title) in zip(axes, PANELS.items(), strict=True):
        for row in rows:
            share, after = row["measures"][measure], row["moment"] == "after"
            spread = (seeds.index(row["seed"]) - (len(seeds) - 1) / 2) * 0.26 / max(len(seeds), 3)
            x = arms.index(row["arm"]) + (0.19 if after else -0.19) + spread
            interval(ax, x, share, colour=OKABE_ITO[1] if after else OKABE_ITO[0], filled=after)
        names = [a.replace(" ", "\n") for a in arms]
        ax.set_xticks(range(len(arms)), names, fontsize=6)
        ax.set(title=title, xlim=(-0.6, len(arms) - 0.4))
        share_axis(ax)
        ax.tick_params(length=0)
        ax.spines[["left"]].set_visible(False)
    for label, colour, filled in (
        ("before the attack", OKABE_ITO[0], False),
        ("after", OKABE_ITO[1], True),
    ):
        face = colour if filled else "white"
        axes[0].plot([], [], "o", color=colour, markerfacecolor=face, label=label)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=2)
    return fig


@styled
def figure_alpha(data: dict) -> Figure:
    """Draw ASR, refusal and helpfulness without an attack, against alpha."""
    fig, ax = new_figure(1, 1, figsize=ONE_COLUMN)
    for i, measure in enumerate(("asr", "refusal", "helpfulness")):
        x = [p["alpha"] for p in data["points"]]
        value, low, high = (np.array([p[measure][f] for p in data["points"]]) for f in FIELDS)
        style = {"color": OKABE_ITO[i], "linestyle": LINES[i], "marker": "o"}
        bars = np.clip([value - low, high - value], 0, None)  # rounding: the ends can pass by 1e-17
        ax.errorbar(x, value, bars, label=SHORT[measure], elinewidth=0.8, **style)
    ax.set(xlabel=f"alpha, at k = {data['k']}", ylim=(-0.03, 1.03))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=3, columnspacing=1.0)
    return fig


# --- files ------------------------------------------------------------------------------------

DRAW = {
    "spectrum": figure_spectrum,
    "energy_map": figure_energy_map,
    "explorer": figure_explorer,
    "defences": figure_defences,
    "alpha": figure_alpha,
    "attack_lab": figure_attack_lab,
    "attack_table": figure_attack_table,
    "epochs": figure_epochs,
    "rank_curve": figure_rank_curve,
    "rank_and_r": figure_rank_and_r,
    "judges": figure_judges,
    "interval": figure_interval,
    "landscape_map": figure_landscape_map,
    "landscape_3d": figure_landscape_3d,
    "flatness": figure_flatness,
}
_MAKER = f"lox_kit {__version__}"
METADATA = {  # no dates: an unchanged figure is an unchanged file
    "pdf": {"CreationDate": None, "Creator": _MAKER},
    "svg": {"Date": None, "Creator": _MAKER},
    "png": {"Software": _MAKER},
}


def save_figure(data: dict, name: str, folder: str | Path = "figures") -> list[Path]:
    """Draw a figure from its data and write JSON, PDF, SVG and PNG; return their paths.

    The same data give the same bytes: no dates are written.

    Raises
    ------
    ValueError
        If the data do not say which figure they are.
    """
    _check_figure(data)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = [folder / f"{name}.{kind}" for kind in ("json", *METADATA)]
    write_whole(made[0], json.dumps(data, indent=1) + "\n")
    draw(data, *made[1:])
    return made


def draw(data: dict, *files: str | Path) -> None:
    """Draw a figure from its data into these files, each a .pdf, .svg or .png.

    Raises
    ------
    ValueError
        If the data do not say which figure they are, or a file is of another kind.
    """
    _check_figure(data)
    kinds = [Path(file).suffix.removeprefix(".").lower() for file in files]
    for file, kind in zip(files, kinds, strict=True):
        if kind not in METADATA:
            raise ValueError(f"{file}: figures are written as {', '.join(METADATA)}.")
    with plt.style.context(STYLE):
        fig = DRAW[data["figure"]](data)
        for file, kind in zip(files, kinds, strict=True):
            page = io.BytesIO()
            fig.savefig(page, format=kind, metadata=METADATA[kind])
            write_whole(file, page.getvalue())


def _check_figure(data: dict) -> None:
    """Raise ValueError if the data do not say which figure they are."""
    if data.get("figure") not in DRAW:
        raise ValueError(f"figure={data.get('figure')!r}: use one of {', '.join(DRAW)}.")


def redraw(file: str | Path) -> list[Path]:
    """Draw a figure again from the JSON that `save_figure` left beside it."""
    file = Path(file)
    return save_figure(json.loads(file.read_text()), file.stem, file.parent)
