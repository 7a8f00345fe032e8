"""Figures of rank: how many directions safety needs, and how much of them an attack leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .canvas import LINES, OKABE_ITO, TWO_COLUMNS, interval, new_figure, share_axis, styled
from .rank_result import RankCurve
from .spectrum_plots import map_layout
from .subspace import SafetySubspace

# --- several pairs: the safety rank -----------------------------------------------------------

RANK_PANELS = {
    "asr": "attack success rate",
    "refusal": "refusal of forbidden",
    "helpfulness": "help with allowed",
}


@styled
def figure_rank_curve(data: dict) -> Figure:
    """Draw ASR, refusal and helpfulness of `W_base + Proj_r(dW)` against r, every pair.

    The aligned models stand apart. Bars are 95 % Wilson intervals; the legend gives each pair's
    safety rank. What was not measured has no panel.
    """
    pairs = list(dict.fromkeys(row["pair"] for row in data["rows"]))
    ranks = sorted({row["r"] for row in data["rows"]} - {None})
    panels = [m for m in RANK_PANELS if all(m in row["measures"] for row in data["rows"])]
    fig, axes = new_figure(1, len(panels), figsize=TWO_COLUMNS, sharey=True, squeeze=False)
    for ax, measure in zip(axes[0], panels, strict=True):
        for i, pair in enumerate(pairs):
            _rank_line(ax, data["rows"], pair, measure, ranks, i, len(pairs), data["safety_rank"])
        places = [*range(len(ranks)), len(ranks) + 0.4]
        ax.set_xticks(places, [*map(str, ranks), "aligned"])
        ax.axvline(len(ranks) - 0.3, color="0.8", linewidth=0.6)
        ax.set(title=RANK_PANELS[measure], xlabel="directions of ΔW, r", ylim=(-0.03, 1.03))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        ax.grid(axis="y", color="0.9", linewidth=0.5)
        ax.set_axisbelow(True)
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
    for place, share in [*zip(x, points, strict=True), (len(ranks) + 0.4 + shift, shares[None])]:
        interval(ax, place, share, colour=style["color"], filled=True)


# --- one pair: the rank curve, and R of its attacks -------------------------------------------

ALL = "all"
CURVES = {"asr": ("ASR", 0), "helpfulness": ("help with allowed", 2)}  # label; colour and line
ATTACK_COLOURS = tuple(OKABE_ITO[i] for i in (1, 3, 4, 5, 2, 0))
R_ALIGN = "$R_\\mathrm{align}$"
APART = 0.13  # of the layers: between the last one and what is outside them


def rank_and_r_data(
    subspace: SafetySubspace,
    curve: RankCurve | None,
    r_ft: Mapping[str, np.ndarray],
    *,
    k: int,
    kind: str = ALL,
) -> dict:
    """Return what `figure_rank_and_r` and `interactive_rank.rank_spec` are drawn from.

    Parameters
    ----------
    curve : RankCurve, optional
        Of this pair alone, as far as it has been measured.
    r_ft : mapping of attack to array (n_layers, at least k + 1)
        From `SafetySubspace.r_ft_curve`.
    k : int
        Directions in R_align and R_ft.
    kind : str
        "all", or one kind of matrix: `kinds_shown(subspace)` lists them.

    Raises
    ------
    ValueError
        If `k` is not stored or an R_ft does not go so far, there is no such kind, or the curve is
        of several pairs.
    """
    kinds = kinds_shown(subspace)
    if kind not in kinds:
        raise ValueError(f"kind={kind!r}: use one of {', '.join(kinds)}.")
    check_pairs(curve)
    for name, values in r_ft.items():
        if k >= values.shape[1]:
            raise ValueError(
                f"k={k}: the R_ft of {name} go to k={values.shape[1] - 1}: measure them with "
                f"most={k}."
            )
    layers = _layers(subspace, r_ft, k)
    shown = [x for x in layers if kind in (ALL, x["kind"])]
    rows = [{"r": row["r"], "measures": row["measures"]} for row in curve.rows] if curve else []
    return {
        "figure": "rank_and_r",
        "pair": [str(subspace.info[n]) for n in ("base", "aligned")],
        "k": k,
        "kind": kind,
        "rows": rows,
        "safety_rank": _safety_rank(curve),
        "depths": sorted({x["depth"] for x in layers} - {None}),
        "outside": [x["kind"] for x in layers if x["depth"] is None],
        "layers": shown,
        "ratios": {name: _ratios(shown, name) for name in r_ft},
    }


def check_pairs(curve: RankCurve | None) -> None:
    """Raise ValueError if a curve is of several pairs."""
    if curve and len(curve.pairs) > 1:
        raise ValueError(
            f"the curve is of {len(curve.pairs)} pairs ({', '.join(curve.pairs)}) and this figure "
            "of one: draw them with figure_rank_curve, or measure one with rank_curve."
        )


def kinds_shown(names: Sequence[str]) -> list[str]:
    """Return "all", and the kinds of these matrices: a column, or what is outside the layers."""
    return list(dict.fromkeys([ALL, *(kind for _, kind, _ in _places(names))]))


def _places(names: Sequence[str]) -> list[tuple[str, str, int | None]]:
    """Return each matrix's name, kind and depth, in the order of the energy map."""
    found = []
    for rows, columns, heads in map_layout(names):
        outside = columns == ["outside"]
        for row, head in zip(rows, heads, strict=True):
            for name, column in zip(row, columns, strict=True):
                if name:
                    place = (head, None) if outside else (column, int(head))
                    found.append((name, *place))
    return found


def _layers(subspace: SafetySubspace, r_ft: Mapping[str, np.ndarray], k: int) -> list[dict]:
    """Return R of every matrix at one k, with its kind and depth."""
    at = {name: i for i, name in enumerate(subspace)}
    r_align = subspace.r_align(k)
    return [
        {
            "name": name,
            "kind": kind,
            "depth": depth,
            "r_align": _plain(r_align[at[name]]),
            "r_ft": {attack: _plain(values[at[name], k]) for attack, values in r_ft.items()},
        }
        for name, kind, depth in _places(list(subspace))
    ]


def _plain(value: float) -> float:
    """Return a number to six digits."""
    return float(f"{value:.6g}")


def _safety_rank(curve: RankCurve | None) -> int | None:
    """Return the safety rank as far as it is known."""
    if not curve or None not in {row["r"] for row in curve.rows}:
        return None
    return curve.safety_rank(curve.pairs[0])


def _ratios(layers: list[dict], attack: str) -> dict | None:
    """Return median, quartiles and ends of R_ft / R_align; None where no matrix has an R_align."""
    found = {x["name"]: x["r_ft"][attack] / x["r_align"] for x in layers if x["r_align"]}
    if not found:
        return None
    low, median, high = np.percentile(list(found.values()), [25, 50, 75])
    ends = {word: pick(found, key=found.get) for word, pick in (("least", min), ("most", max))}
    return {
        "median": _plain(median),
        "low": _plain(low),
        "high": _plain(high),
        **{word: [name, _plain(found[name])] for word, name in ends.items()},
        "n": len(found),
    }


def place(r: float) -> float:
    """Return where a rank stands on its axis: log2(1 + r), so that the small ones have room."""
    return float(np.log2(1 + r))


def layer_place(data: dict, layer: dict) -> float:
    """Return where a matrix stands on the axis of layers; what is outside comes after them."""
    if layer["depth"] is not None:
        return layer["depth"]
    step = max(1.4, APART * len(data["depths"]))
    return max(data["depths"], default=-1) + step * (1 + data["outside"].index(layer["kind"]))


def layer_ticks(data: dict) -> dict[float, str]:
    """Return what the axis of layers says, and where: about a dozen depths, and all outside."""
    every = max(1, round(len(data["depths"]) / 12))
    ticks = {float(d): str(d) for d in data["depths"][::every]}
    for kind in data["outside"]:
        label = kind.replace("_tokens", "")
        ticks[layer_place(data, {"depth": None, "kind": kind})] = label
    return ticks


def r_of(layer: dict, attack: str | None) -> float:
    """Return a matrix's R_ft after an attack, or its R_align."""
    return layer["r_align"] if attack is None else layer["r_ft"][attack]


def r_line(data: dict, attack: str | None) -> tuple[list, list]:
    """Return x and y of R along the layers, the median where several kinds are shown.

    What is outside the layers is not joined to them: None stands between.
    """
    found: dict[tuple, list[float]] = {}
    for layer in data["layers"]:
        key = (layer["depth"] is None, layer_place(data, layer))
        found.setdefault(key, []).append(r_of(layer, attack))
    x, y = [], []
    for (outside, at), values in sorted(found.items()):
        if outside:
            x.append(None)
            y.append(None)
        x.append(at)
        y.append(_plain(np.median(values)))
    return x, y


def r_threads(data: dict, attack: str | None) -> tuple[list, list, list]:
    """Return x, y and names of each kind's own line, parted by None; none if it is alone."""
    x, y, names = [], [], []
    if data["kind"] != ALL:
        return x, y, names
    for kind in dict.fromkeys(layer["kind"] for layer in data["layers"]):
        own = sorted(
            (layer_place(data, layer), r_of(layer, attack), layer["name"])
            for layer in data["layers"]
            if layer["kind"] == kind and layer["depth"] is not None
        )
        for at, value, name in own:
            x.append(at)
            y.append(value)
            names.append(name)
        x.append(None)
        y.append(None)
        names.append("")
    return x, y, names


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
        value, low, high = (
            [p["measures"][measure][f] for p in known] for f in ("value", "low", "high")
        )
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
        label = R_ALIGN if attack is None else f"$R_\\mathrm{{ft}}$, {_text(attack)}"
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
    ax.set_yticks(range(len(names)), map(_text, names))
    ax.set_xlabel(r"$R_\mathrm{ft} / R_\mathrm{align}$")
    ends = [found["most"][1] for found in data["ratios"].values() if found]
    ax.set(xlim=(0, 1.05 * max([1.0, *ends])), ylim=(len(names) - 0.5, -0.5))
    ax.tick_params(axis="y", length=0)
    return ax


def _text(name: str) -> str:
    """Return a name as matplotlib is to show it: a dollar is no formula."""
    return name.replace("$", r"\$")


def _numbers(values: list) -> list[float]:
    """Return the list with NaN for None, which parts a line."""
    return [np.nan if v is None else v for v in values]
