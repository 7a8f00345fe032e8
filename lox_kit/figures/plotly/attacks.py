"""The attack lab's figure as plotly JSON: loss, ASR and helpfulness along an attack."""

from __future__ import annotations

from html import escape

from lox_kit.figures.attacks import ARM_WIDTHS, LAB_ARMS, OVERLAYS, lab_panels, run_title
from lox_kit.figures.canvas import ARM_COLOURS

from .canvas import (
    DASH,
    GREY,
    SHARES,
    Spec,
    axis_title,
    band_trace,
    common_layout,
    legend_below,
    line_trace,
    note,
    plain_axis,
    rgba,
    upright,
)

LOSS, ASR, HELP = range(3)  # the plots, left to right
AXES = (("x", "y"), ("x2", "y2"), ("x3", "y3"))
WIDTHS = ((0, 0.29), (0.37, 0.65), (0.72, 1))
BAND = 0.13  # opacity
# The first run's traces, of the aligned model and then of LoX: its loss, and for each share the
# band and the line. Those of the runs that are laid over it follow, three to a model.
FIRST = {
    (arm, part): 5 * i + j
    for i, arm in enumerate(LAB_ARMS)
    for j, part in enumerate(("loss", "asr band", "asr", "help band", "help"))
}


def lab_spec(data: dict, size: int = 12) -> Spec:
    """Return the three plots side by side, with an upright line at the step looked at.

    Parameters
    ----------
    data : dict
        As `AttackLabState.data`, see `figures.figure_attack_lab`; the run on the controls is
        the first one, and may be empty.
    size : int
        Height of the text in pixels.
    """
    runs, measures = data["runs"], lab_panels(data["runs"])
    traces = [trace for arm in LAB_ARMS for trace in _first(runs[0], arm, measures)]
    for i, run in enumerate(runs[1:]):
        traces += [trace for arm in LAB_ARMS for trace in _over(run, arm, measures, i)]
    return {"data": traces, "layout": _lab_layout(data, measures, size)}


# --- traces -----------------------------------------------------------------------------------


def _first(run: dict, arm: str, measures: dict[str, str]) -> list[dict]:
    """Return one model's lines in the run on the controls, with their bands."""
    colour = ARM_COLOURS[arm]
    line = {"color": colour, "width": 1.5 * ARM_WIDTHS[arm]}
    at = f" at k = {run['k']}, α = {run['alpha']:g}" if arm == "LoX" else ""
    shown = {"name": arm + at, "legendgroup": arm}
    traces = [_losses(run, arm, line) | shown | {"showlegend": True}]
    for plot, measure in enumerate(measures, start=1):
        share = _shares(run, arm, measure, plot, line) | {"mode": "lines+markers"}
        traces.append(_band(run, arm, measure, plot, colour))
        traces.append(
            share | shown | {"marker": {"size": 4 + 2 * ARM_WIDTHS[arm], "color": colour}}
        )
    return traces


def _over(run: dict, arm: str, measures: dict[str, str], i: int) -> list[dict]:
    """Return one model's lines in a run that is laid over the first, thin and dashed."""
    line = {
        "color": ARM_COLOURS[arm],
        "width": 0.8 * ARM_WIDTHS[arm],
        "dash": DASH[OVERLAYS[i % len(OVERLAYS)]],
    }
    shown = {"name": f"{i + 1}: {escape(run['attack'])}", "legendgroup": f"run {i + 1}"}
    traces = [_losses(run, arm, line) | shown | {"showlegend": arm == "LoX"}]
    for plot, measure in enumerate(measures, start=1):
        traces.append(_shares(run, arm, measure, plot, line) | shown)
    return traces


def _losses(run: dict, arm: str, line: dict) -> dict:
    """Return the loss of every step made so far."""
    losses = run["arms"][arm]["losses"]
    said = f"{escape(run['attack'])}, {arm}, step %{{x}}: loss %{{y:.3f}}<extra></extra>"
    steps = list(range(1, len(losses) + 1))
    return line_trace(steps, losses, *AXES[LOSS], line) | {"hovertemplate": said}


def _shares(run: dict, arm: str, measure: str, plot: int, line: dict) -> dict:
    """Return one share at the steps measured so far."""
    points = _measured(run, arm, measure)
    shares = [p["measures"][measure] for p in points]
    said = [f"{s['value']:.0%} [{s['low']:.0%}, {s['high']:.0%}], {s['count']} of {s['n']}"
            for s in shares]  # fmt: skip
    hover = f"{escape(run['attack'])}, {arm}, step %{{x}}: %{{customdata}}<extra></extra>"
    steps, values = [p["step"] for p in points], [s["value"] for s in shares]
    return line_trace(steps, values, *AXES[plot], line) | {
        "customdata": said,
        "hovertemplate": hover,
    }


def _band(run: dict, arm: str, measure: str, plot: int, colour: str) -> dict:
    """Return the 95 % interval of a share as an area."""
    points = _measured(run, arm, measure)
    steps = [p["step"] for p in points]
    low, high = ([p["measures"][measure][f] for p in points] for f in ("low", "high"))
    return band_trace(steps, low, high, *AXES[plot], rgba(colour, BAND))


def _measured(run: dict, arm: str, measure: str) -> list[dict]:
    """Return the points that have this measure."""
    return [p for p in run["arms"][arm]["points"] if measure in p["measures"]]


# --- layout -----------------------------------------------------------------------------------


def _lab_layout(data: dict, measures: dict[str, str], size: int) -> dict:
    """Return axes, titles and the line at the step looked at."""
    runs, steps = data["runs"], max(run["steps"] for run in data["runs"])
    losses = [x for run in runs for arm in run["arms"].values() for x in arm["losses"]]
    ends = {LOSS: {"range": [0, 1.05 * max(losses, default=1.0)]}, ASR: SHARES, HELP: SHARES}
    layout = common_layout(size)
    layout["hovermode"], layout["legend"] = "closest", legend_below(size)
    layout["legend"]["tracegroupgap"] = 0
    # the run's title above those of the plots; below them two lines of the legend
    layout["margin"] |= {"t": 4.6 * size, "b": 6.4 * size, "l": 3.4 * size}
    titles = ("loss (nats per token)", *measures.values())
    there = any(arm["losses"] or arm["points"] for arm in runs[0]["arms"].values())
    title = escape(run_title(runs[0])) + ("" if there else " · not run yet")
    above = {"xref": "paper", "xanchor": "center", "y": 1, "yref": "paper", "yanchor": "bottom"}
    notes = [note(title, size, x=0.5, yshift=2.6 * size, **above)]
    for plot, ((x, y), domain) in enumerate(zip(AXES, WIDTHS, strict=True)):
        places = (x.replace("x", "xaxis"), y.replace("y", "yaxis"))
        span = [-0.02 * steps, 1.02 * steps]
        layout[places[0]] = plain_axis(domain=list(domain), anchor=y, range=span, nticks=6)
        layout[places[0]]["title"] = axis_title("optimiser step", size)
        layout[places[1]] = plain_axis(domain=[0, 1], anchor=x, **ends[plot])
        notes.append(note(titles[plot], size, x=sum(domain) / 2, yshift=0.6 * size, **above))
    layout["annotations"] = notes
    line = {"color": GREY, "width": 1.5, "dash": "dot"}
    layout["shapes"] = [upright(data["at"], x, "paper", **line) for x, _ in AXES]
    return layout
