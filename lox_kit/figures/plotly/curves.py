"""Safety along one axis as plotly JSON: against alpha, or as an attack goes on."""

from __future__ import annotations

from lox_kit.figures.attacks import is_there, lab_lines, lab_panels, run_title
from lox_kit.figures.canvas import MEASURE_STYLES, columns, shares_at
from lox_kit.figures.defences import SHORT

from .canvas import (
    LEGEND_BELOW,
    SHARES,
    Spec,
    axis,
    band_trace,
    common_layout,
    error_bars,
    escaped,
    line_trace,
    screen_line,
    shares_trace,
    upright,
)

AXES = (("x", "y"), ("x2", "y2"), ("x3", "y3"))  # of an attack's loss, ASR and helpfulness
BAND = 0.13  # opacity


def alpha_spec(data: dict, alpha: float, *, most: float, size: int) -> Spec:
    """Return ASR, refusal and helpfulness against alpha, as plotly JSON.

    Parameters
    ----------
    data : dict
        From `studies.alpha_curve`: shares with their 95 % intervals at each alpha measured.
    alpha : float
        Where the dial stands, marked by a line.
    most : float
        Where the axis ends.
    size : int
        Height of the text, pixels.
    """
    points = sorted(data["points"], key=lambda p: p["alpha"])
    x = [p["alpha"] for p in points]
    traces = []
    for measure, name in SHORT.items():
        shares, line = [p[measure] for p in points], screen_line(MEASURE_STYLES[measure], 2)
        marks = {"mode": "lines+markers", "marker": {"size": 7}, "name": name}
        marks["error_y"] = error_bars(*columns(shares))
        traces.append(shares_trace(x, shares, "x", "y", line, f"{name} at α = %{{x}}", **marks))
    layout = common_layout(
        size,
        xaxis=axis(f"alpha, at k = {data['k']}", range=[-0.03 * most, 1.03 * most]),
        yaxis=SHARES,
        legend={"y": 1.02, "yanchor": "bottom"},
        shapes=[upright(alpha, "x", "paper", dash="dash")],
    )
    return {"data": traces, "layout": layout}


# --- an attack --------------------------------------------------------------------------------


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
    data = escaped(data)
    panels = lab_panels(data["runs"])
    traces = []
    for i, arm, style in lab_lines(data["runs"]):
        traces += _traces(data["runs"][i], i, arm, style, panels)
    return {"data": traces, "layout": _lab_layout(data, panels, size)}


def _traces(run: dict, i: int, arm: str, style: dict, panels: dict[str, str]) -> list[dict]:
    """Return the loss and the shares of one model in the i-th run, with bands in the first."""
    way, line = run["arms"][arm], screen_line(style, 1.5 * style["linewidth"])
    group = f"{i}: {run['attack']}" if i else arm
    at = f" at k = {run['k']}, α = {run['alpha']:g}" if group == "LoX" else ""
    shown = {"name": group + at, "legendgroup": group}
    what = f"{run['attack']}, {arm}, step %{{x}}"
    steps = list(range(1, len(way["losses"]) + 1))
    loss = line_trace(steps, way["losses"], *AXES[0], line, **shown)
    loss["showlegend"] = i == 0 or arm == "LoX"
    traces = [loss | {"hovertemplate": f"{what}: loss %{{y:.3f}}<extra></extra>"}]
    shown |= {"showlegend": False, "mode": "lines+markers"}
    shown["marker"] = {"size": 4 + 2 * style["linewidth"]}
    for axes, measure in zip(AXES[1:], panels, strict=True):
        steps, shares = shares_at(way["points"], "step", measure)
        if i == 0:
            traces.append(band_trace(steps, shares, *axes, style["color"], BAND))
        traces.append(shares_trace(steps, shares, *axes, line, what, **shown))
    return traces


def _lab_layout(data: dict, panels: dict[str, str], size: int) -> dict:
    """Return axes, titles and the line at the step looked at."""
    runs, steps = data["runs"], max(run["steps"] for run in data["runs"])
    title = run_title(runs[0])
    if not any(way["points"] for way in runs[0]["arms"].values()):
        title += f" · {'trained' if is_there(runs[0]) else 'not run yet'}: press Run"
    above = {"y": 1, "yref": "paper", "yanchor": "bottom", "x": 0.5}
    words = [{"text": title, **above, "xref": "paper", "yshift": 2.6 * size}]
    for (x, _), name in zip(AXES, ("loss (nats per token)", *panels.values()), strict=True):
        words.append({"text": name, **above, "xref": f"{x} domain", "yshift": 0.6 * size})
    across = axis("optimiser step", range=[-0.02 * steps, 1.02 * steps])
    layout = common_layout(
        size,
        grid={"rows": 1, "columns": 3, "pattern": "independent", "xgap": 0.25},
        xaxis=across,
        xaxis2=across,
        xaxis3=across,
        yaxis={"range": [0, None], "minallowed": 0},
        yaxis2=SHARES,
        yaxis3=SHARES,
        legend=LEGEND_BELOW | {"tracegroupgap": 0},
        annotations=words,
        shapes=[upright(data["at"], x, "paper", dash="dot") for x, _ in AXES],
    )
    # the run's title above those of the plots; below them two lines of the legend
    layout["margin"] |= {"t": 4.6 * size, "b": 6.4 * size, "l": 3.4 * size}
    return layout
