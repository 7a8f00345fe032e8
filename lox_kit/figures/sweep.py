"""Figures of a sweep: shares on the grid of k and alpha, and what can be had for what help."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from lox_kit.measures import Share
from lox_kit.studies import AttackTable, pooled

from . import canvas
from .canvas import OKABE_ITO, styled

POINTS = {
    "aligned": {"fmt": "s", "color": OKABE_ITO[1]},
    "setting": {"fmt": "o", "color": OKABE_ITO[0]},
    "all directions": {"fmt": "o", "color": OKABE_ITO[0], "markerfacecolor": "white"},
    "chosen": {"fmt": "*", "color": "black", "markersize": 9, "zorder": 5},
}
COSTS = {"helpfulness": "help before", "over_refusal": "over-refusal before"}


def grid_shares(data: dict, measure: str, attack: str | None) -> dict[tuple, Share]:
    """Return a sweep's shares by (k, alpha), of all seeds together; the aligned model's is (0, 0).

    A setting that was not tried has none.
    """
    table = AttackTable(tuple(data["rows"]), data["source"])
    arms = {"aligned": {"k": 0, "alpha": 0}, **table.source["arms"]}
    shares = {
        (a["k"], a["alpha"]): table.shares(measure, attack, "full", n) for n, a in arms.items()
    }
    return {at: pooled(found) for at, found in shares.items() if found}


@styled
def figure_sweep(data: dict) -> Figure:
    """Draw what alpha and k do: what they cost before an attack, and the ASR after each.

    As figure 5 of Perin et al. 2025, with the 95 % Wilson interval of every cell under its share.
    The titles have the aligned model's; a cell without a number was not tried.
    """
    attacks = list(dict.fromkeys(r["attack"] for r in data["rows"] if r["attack"]))
    shown = [(text, measure, None) for measure, text in COSTS.items()]
    shown += [(f"ASR after {attack}", "asr", attack) for attack in attacks]
    ks, alphas = (data["source"]["sweep"][axis] for axis in ("ks", "alphas"))
    least = min(0.6 + 0.42 * len(ks), 3.0)
    fig, axes = canvas.panels(len(shown), least, 0.6 + 0.3 * len(alphas))
    for ax, (text, measure, attack) in zip(axes, shown, strict=True):
        shares = grid_shares(data, measure, attack)
        values = {at: share.value for at, share in shares.items()}
        image = [[values.get((k, alpha), float("nan")) for k in ks] for alpha in alphas]
        mesh = ax.imshow(image, cmap="cividis", vmin=0, vmax=1, aspect="auto", origin="lower")
        for (k, alpha), share in shares.items():
            if k != 0:
                _write(ax, ks.index(k), alphas.index(alpha), share)
        canvas.title(ax, f"{text} (aligned {_short(values[0, 0])})")
        ax.set_xticks(range(len(ks)), ["all" if k is None else k for k in ks])
        ax.set_yticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        ax.set(xlabel="k", ylabel="alpha")
        ax.tick_params(length=0)
    fig.colorbar(mesh, ax=list(axes), format=PercentFormatter(1.0), fraction=0.03, pad=0.01)
    return fig


def _short(value: float) -> str:
    """Return a share with two digits, without its zero."""
    return f"{value:.2f}".removeprefix("0")


def _write(ax, x: int, y: int, share: Share) -> None:
    """Write a share and its interval into a cell, dark on what is light in grey as well."""
    low, high = (_short(end).replace("1.00", "1.0") for end in share.interval)  # it has to fit
    colour = "black" if share.value > 0.55 else "white"
    style = {"ha": "center", "color": colour, "fontsize": canvas.small()}
    ax.text(x, y, _short(share.value), va="bottom", **style)
    ax.text(x, y, f"{low}–{high}", va="top", **style)


@styled
def figure_choice(data: dict) -> Figure:
    """Draw every setting's worst ASR after the attacks against its help before them.

    With 95 % Wilson intervals; a line along the Pareto front, a star for the setting that was
    chosen, white inside where k is all, and a dotted line at the least help that was allowed.
    """
    fig, ax = canvas.one_panel()
    for point in data["points"]:
        kind = {"aligned": "aligned", data["chosen"]: "chosen"}.get(point["name"], "setting")
        if kind == "setting" and point["k"] is None:
            kind = "all directions"
        value, low, high = canvas.columns([point["help"], point["worst"]])
        (x, y), reach = value, canvas.bars(value, low, high)
        reach = {"xerr": reach[:, :1], "yerr": reach[:, 1:]}
        ax.errorbar(x, y, **reach, **POINTS[kind], elinewidth=0.4, label=kind)
    on_front = (point for point in data["points"] if point["name"] in data["front"])
    front = sorted((point["help"]["value"], point["worst"]["value"]) for point in on_front)
    ax.step(*zip(*front, strict=True), where="pre", color="0.5", linewidth=0.8, zorder=0)
    least = data["points"][0]["help"]["value"] - data["loss"]
    ax.axvline(least, color="black", linestyle=":", linewidth=0.8)
    canvas.share_axis(ax)
    ax.set(xlabel="help before the attacks", ylabel="largest ASR after one")
    canvas.percent(ax.xaxis, decimals=1)
    ax.locator_params(axis="x", nbins=4)
    canvas.legend_below(fig, ax)
    return fig
