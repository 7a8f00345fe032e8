"""Figures of the attacks: the table of all of them, and the way along one."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import fill

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import canvas
from .canvas import ARM_COLOURS, LINES, MARKS, MEASURES, OKABE_ITO, styled

TABLE_COLOURS = {"asr": OKABE_ITO[1], "helpfulness": OKABE_ITO[5]}  # the lighter, in grey too


@styled
def figure_attack_table(data: dict) -> Figure:
    """Draw ASR and helpfulness of every arm, a panel per attack, a mark per seed.

    An arm's upper line is full fine-tuning, its lower one, hollow, is LoRA; grey ticks are the same
    model before the attack. Bars are 95 % Wilson intervals.
    """
    rows, columns = data["rows"], _columns(data["rows"])
    arms = list(dict.fromkeys(r["arm"] for r in rows))
    seeds = sorted({r["seed"] for r in rows})
    ways = sorted({r["training"] for r in rows if r["attack"]}, reverse=True)  # full, LoRA
    lanes = {way: (i - (len(ways) - 1) / 2) * 0.44 for i, way in enumerate(ways)}  # of an arm's row
    height = 0.75 + len(arms) * (0.16 + 0.17 * len(ways))
    fig, axes = canvas.panels(len(columns), 1.08, height, sharey=True)
    for ax, (attack, prefix) in zip(axes, columns, strict=True):
        for y, arm in enumerate(arms):
            there = [r for r in rows if r["arm"] == arm and r["attack"] in (attack, None)]
            for row in there:
                _entry(ax, y, row, prefix, seeds, lanes)
            for way, lane in lanes.items():
                if not any(r["attack"] and r["training"] == way for r in there):
                    middle = {"ha": "center", "va": "center", "fontsize": canvas.small()}
                    ax.text(0.5, y + lane, "not run", color="0.6", **middle)
            if y:
                ax.axhline(y - 0.5, color="0.9", linewidth=0.5)
        asked = ", asked under it" if prefix else ""
        canvas.title(ax, attack + asked)
        ax.set(xlim=(-0.06, 1.06), ylim=(len(arms) - 0.5, -0.5), xticks=(0, 0.5, 1))
        canvas.percent(ax.xaxis)
        ax.set_yticks(range(len(arms)), [a.replace(" ", "\n") for a in arms])
        ax.tick_params(length=0)
    _attack_legend(fig, axes[0], seeds, ways)
    return fig


def _entry(ax: Axes, y: int, row: dict, prefix: str, seeds: list[int], lanes: dict) -> None:
    """Draw the shares of one entry in an arm's row: before as ticks in every lane."""
    seed, here = seeds.index(row["seed"]), lanes.values()
    if row["attack"]:
        here = [lanes[row["training"]]]
    spread = (seed - (len(seeds) - 1) / 2) * 0.3 / max(len(seeds), 3)
    for measure, colour in TABLE_COLOURS.items():
        name = prefix + measure if measure == "asr" else measure
        share = row["measures"].get(name)
        for at in (y + lane + spread for lane in here if share):
            if not row["attack"]:
                ax.plot(share["value"], at, "|", color="0.6", markersize=4, zorder=0)
                continue
            ax.hlines(at, share["low"], share["high"], color=colour, linewidth=0.7)
            inside = "white" if row["training"] == "LoRA" else colour
            ax.plot(share["value"], at, MARKS[seed % len(MARKS)], color=colour,
                    markerfacecolor=inside, markersize=3, markeredgewidth=0.7)  # fmt: skip


def _attack_legend(fig: Figure, ax: Axes, seeds: list[int], ways: list[str]) -> None:
    """Say what colours, marks and fillings are."""
    for measure, colour in TABLE_COLOURS.items():
        ax.plot([], [], "-", color=colour, label=MEASURES[measure])
    if "LoRA" in ways:
        ax.plot([], [], "o", color="0.3", markersize=3, label="full (above)")
        ax.plot([], [], "o", color="0.3", markersize=3, markerfacecolor="white", label="LoRA")
    for i, seed in enumerate(seeds if len(seeds) > 1 else []):
        ax.plot([], [], MARKS[i % len(MARKS)], color="0.3", markersize=3, label=f"seed {seed}")
    ax.plot([], [], "|", color="0.6", markersize=5, label="before")
    canvas.legend_below(fig, ax)


def _columns(rows: list[dict]) -> list[tuple[str, str]]:
    """Return each attack, and once more with the prefix of what was asked under its persona."""
    found = []
    for attack in dict.fromkeys(r["attack"] for r in rows if r["attack"]):
        measured = {m for r in rows if r["attack"] == attack for m in r["measures"]}
        found += [(attack, "")] + [(attack, "persona_")] * ("persona_asr" in measured)
    return found


@styled
def figure_epochs(data: dict) -> Figure:
    """Draw ASR, helpfulness and task accuracy along an attack, a line per model and rate.

    Colours and marks are models, line styles learning rates. Bands are 95 % Wilson intervals; where
    there are several seeds, lines are means and bands go from the least to the most of them.
    """
    measured = {m for line in data["lines"] for p in line["points"] for m in p["measures"]}
    shown = [m for m in (*TABLE_COLOURS, "task") if m in measured]
    groups: dict[tuple, list[list[dict]]] = {}  # of seeds, whose lines are alike but for it
    for i, line in enumerate(data["lines"]):
        key = line["model"], line["learning_rate"], "seeds" if "seed" in line else i
        groups.setdefault(key, []).append(line["points"])
    models, rates, _ = (list(dict.fromkeys(names)) for names in zip(*groups, strict=True))
    fig, axes = canvas.panels(len(shown), 1.8, 2.2, sharey=True)
    for ax, measure in zip(axes, shown, strict=True):
        for (model, rate, _), points in groups.items():
            i, line = models.index(model), LINES[rates.index(rate) % 4]
            colour = OKABE_ITO[(1, 0, 2, 3, 4, 5)[i % 6]]
            style = {"color": colour, "linestyle": line, "marker": MARKS[i % len(MARKS)]}
            arm = model.rpartition(" + ")[2]  # "LoX" of "sandbox/aligned + LoX"
            style["label"] = f"{arm}, learning rate {rate:g}"
            steps, shares = canvas.shares_at(over_seeds(points, measure), "step", measure)
            canvas.share_line(ax, steps, shares, markersize=2.5, band=0.12, **style)
        canvas.share_axis(ax)
        ax.set(title=MEASURES[measure], xlabel="optimiser step", xlim=(0, None))
    canvas.legend_below(fig, axes[0])
    return fig


def over_seeds(seeds: list[list[dict]], measure: str) -> list[dict]:
    """Return the points of one seed, or their means, from the least to the most of several."""
    if len(seeds) == 1:
        return seeds[0]
    curves = [{p["step"]: p["measures"][measure]["value"] for p in points} for points in seeds]
    found = []
    for step in sorted(set.intersection(*map(set, curves))):
        values = [curve[step] for curve in curves]
        share = {"value": sum(values) / len(values), "low": min(values), "high": max(values)}
        found.append({"step": step, "measures": {measure: share}})
    return found


# --- aligned and LoX under one attack ---------------------------------------------------------

LAB_ARMS = ("aligned", "LoX")
ARM_WIDTHS = {"aligned": 2.2, "LoX": 1.2}  # both are seen where one lies on the other
OVERLAYS = (":", "--", "-.")  # line styles of the runs that are laid over the first one


def run_title(run: dict) -> str:
    """Return what a run of the attack lab is, on one line."""
    return (
        f"{run['attack']} · learning rate {run['learning_rate']:g} · {run['steps']} steps · "
        f"{run['training']} · seed {run['seed']} · k = {run['k']}, α = {run['alpha']:g}"
    )


def is_there(run: dict) -> bool:
    """Whether anything is known of a run of the attack lab."""
    return any(arm["losses"] or arm["points"] for arm in run["arms"].values())


def lab_panels(runs: list[dict]) -> dict[str, str]:
    """Return the shares drawn of these runs, with the titles of their plots.

    Under an attack with a persona, safety is what is left of it under that persona; where runs
    with and without one are compared, it is that without.
    """
    points = [p for run in runs for arm in run["arms"].values() for p in arm["points"]]
    under = bool(points) and all("persona_asr" in p["measures"] for p in points)
    asr = {"persona_asr": "ASR under the persona"} if under else {"asr": MEASURES["asr"]}
    return asr | {"helpfulness": MEASURES["helpfulness"]}


def lab_lines(runs: list[dict]) -> Iterator[tuple[int, str, dict]]:
    """Yield the place of the run, the model and the style of every line.

    The first run is drawn in full, the others are thin and dashed.
    """
    for i, run in enumerate(runs):
        for arm in run["arms"]:
            width = ARM_WIDTHS[arm] * (0.6 if i else 1)
            line = OVERLAYS[(i - 1) % len(OVERLAYS)] if i else "-"
            yield i, arm, {"color": ARM_COLOURS[arm], "linestyle": line, "linewidth": width}


@styled
def figure_attack_lab(data: dict) -> Figure:
    """Draw loss, ASR and helpfulness along an attack, for the aligned model and its LoX.

    The first run is drawn in full, with 95 % Wilson bands; the others are thin and dashed. A
    dotted line stands at the step `data["at"]`. Each of `data["runs"]` says what it is (attack,
    learning_rate, steps, training, seed, k, alpha) and has `studies.Way.to_dict` in `arms`.
    """
    runs, shown = data["runs"], lab_panels(data["runs"])
    fig, axes = canvas.panels(3, 1.8, 2.2)
    for i, arm, style in lab_lines(runs):
        run, size = runs[i], 2 + style["linewidth"]
        way, label = run["arms"][arm], arm if i == 0 else run_title(run) * (arm == "LoX")
        axes[0].plot(range(1, len(way["losses"]) + 1), way["losses"], label=label, **style)
        for ax, measure in zip(axes[1:], shown, strict=True):
            band, points = 0.12 * (i == 0), canvas.shares_at(way["points"], "step", measure)
            canvas.share_line(ax, *points, markersize=size, band=band, **style)
    steps = max(run["steps"] for run in runs)
    titles = ["loss (nats per token)", *shown.values()]
    for ax, text in zip(axes, titles, strict=True):
        ax.axvline(data["at"], color="0.35", linestyle=":", linewidth=0.8)
        canvas.title(ax, text)
        ax.set(xlabel="optimiser step", xlim=(-0.02 * steps, 1.02 * steps))
    axes[0].set_ylim(0, None)
    for ax in axes[1:]:
        canvas.share_axis(ax)
    across = int(fig.get_figwidth() / canvas.em() / 0.07)
    fig.suptitle(fill(run_title(runs[0]), across), fontsize=plt.rcParams["axes.titlesize"])
    canvas.legend_below(fig, axes[0])
    return fig
