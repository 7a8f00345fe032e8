"""Figures of the attacks: the table of all of them, and the way along one."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .canvas import (
    ARM_COLOURS,
    LINES,
    MEASURES,
    OKABE_ITO,
    interval,
    new_figure,
    share_axis,
    share_line,
    shares_at,
    styled,
)

ROWS = ("asr", "helpfulness")


@styled
def figure_attack_table(data: dict) -> Figure:
    """Draw ASR and helpfulness after every attack, a column per attack, a dot per seed.

    Hollow dots are LoRA; grey ticks are the same model before the attack. Bars are 95 % Wilson
    intervals.
    """
    columns = _columns(data["rows"])
    arms = list(dict.fromkeys(r["arm"] for r in data["rows"]))
    seeds = sorted({r["seed"] for r in data["rows"]})
    size = (1.2 * len(columns) + 0.6, 3.9)
    fig, axes = new_figure(2, len(columns), figsize=size, sharex=True, sharey=True, squeeze=False)
    for column, (attack, prefix) in enumerate(columns):
        for ax, measure in zip(axes[:, column], ROWS, strict=True):
            name = prefix + measure if measure == "asr" else measure
            for row in data["rows"]:
                if name in row["measures"] and row["attack"] in (attack, None):
                    _dot(ax, row, row["measures"][name], arms, seeds)
            share_axis(ax)
            ax.tick_params(length=0)
            ax.spines[["left"]].set_visible(False)
            if column == 0:
                ax.set_ylabel(MEASURES[measure])
        asked = ",\nasked under it" if prefix else ""
        axes[0, column].set_title(fill(attack, 18) + asked, fontsize=8)
        names = [a.replace(" ", "\n") for a in arms]
        axes[1, column].set_xticks(range(len(arms)), names, fontsize=6, rotation=90)
        axes[1, column].set_xlim(-0.7, len(arms) - 0.3)
    ax = axes[0, 0]
    ax.plot([], [], "o", color="0.3", label="after full fine-tuning")
    if any(r["training"] == "LoRA" for r in data["rows"]):
        ax.plot([], [], "o", color="0.3", markerfacecolor="white", label="after LoRA fine-tuning")
    ax.plot([], [], "_", color="0.55", markersize=9, label="before")
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncol=3)
    return fig


def _columns(rows: list[dict]) -> list[tuple[str, str]]:
    """Return each attack, and once more with the prefix of what was asked under its persona."""
    found = []
    for attack in dict.fromkeys(r["attack"] for r in rows if r["attack"]):
        measured = {m for r in rows if r["attack"] == attack for m in r["measures"]}
        found += [(attack, "")] + [(attack, "persona_")] * ("persona_asr" in measured)
    return found


def _dot(ax: Axes, row: dict, share: dict, arms: list[str], seeds: list[int]) -> None:
    """Draw one entry: before as a tick, full training filled, LoRA hollow."""
    spread = (seeds.index(row["seed"]) - (len(seeds) - 1) / 2) * 0.3 / max(len(seeds), 3)
    x = arms.index(row["arm"])
    if row["attack"] is None:
        ax.plot(x, share["value"], "_", color="0.55", markersize=9, zorder=0)
        return
    lora = row["training"] == "LoRA"
    x += spread + (0.22 if lora else -0.12)
    interval(ax, x, share, colour=ARM_COLOURS.get(row["arm"], OKABE_ITO[4]), filled=not lora)


@styled
def figure_epochs(data: dict) -> Figure:
    """Draw ASR, helpfulness and task accuracy along an attack, a line per model and rate.

    Colours are models, line styles learning rates; bands are 95 % Wilson intervals.
    """
    measured = {m for line in data["lines"] for p in line["points"] for m in p["measures"]}
    panels = [m for m in (*ROWS, "task") if m in measured]
    models = list(dict.fromkeys(line["model"] for line in data["lines"]))
    rates = list(dict.fromkeys(line["learning_rate"] for line in data["lines"]))
    fig, axes = new_figure(
        1, len(panels), figsize=(7.0 * len(panels) / 3, 2.4), sharey=True, squeeze=False
    )
    for ax, measure in zip(axes[0], panels, strict=True):
        for line in data["lines"]:
            colour = OKABE_ITO[(1, 0, 2, 3, 4, 5)[models.index(line["model"]) % 6]]
            style = {"color": colour, "linestyle": LINES[rates.index(line["learning_rate"]) % 4]}
            arm = line["model"].rpartition(" + ")[2]  # "LoX" of "sandbox/aligned + LoX"
            style["label"] = f"{arm}, learning rate {line['learning_rate']:g}"
            share_line(
                ax, *shares_at(line["points"], "step", measure), markersize=2.5, band=0.12, **style
            )
        share_axis(ax)
        ax.set(title=MEASURES[measure], xlabel="optimiser step", xlim=(0, None))
    handles = axes[0, 0].get_legend_handles_labels()
    fig.legend(*handles, loc="outside lower center", ncol=min(len(data["lines"]), 2))
    return fig


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
    runs, panels = data["runs"], lab_panels(data["runs"])
    fig, axes = new_figure(1, 3, figsize=(7.0, 2.7))
    for i, arm, style in lab_lines(runs):
        run, size = runs[i], 2 + style["linewidth"]
        way, label = run["arms"][arm], arm if i == 0 else run_title(run) * (arm == "LoX")
        axes[0].plot(range(1, len(way["losses"]) + 1), way["losses"], label=label, **style)
        for ax, measure in zip(axes[1:], panels, strict=True):
            band, points = 0.12 * (i == 0), shares_at(way["points"], "step", measure)
            share_line(ax, *points, markersize=size, band=band, **style)
    steps = max(run["steps"] for run in runs)
    titles = ["loss (nats per token)", *panels.values()]
    for ax, title in zip(axes, titles, strict=True):
        ax.axvline(data["at"], color="0.35", linestyle=":", linewidth=0.8)
        ax.set(title=title, xlabel="optimiser step", xlim=(-0.02 * steps, 1.02 * steps))
    axes[0].set_ylim(0, None)
    for ax in axes[1:]:
        share_axis(ax)
    fig.suptitle(run_title(runs[0]), fontsize=8)
    legend, lines = axes[0].get_legend_handles_labels(), 2 if len(runs) == 1 else 1
    fig.legend(*legend, loc="outside lower center", ncol=lines)
    return fig
