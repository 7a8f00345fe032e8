"""The alpha axis with plotly: ASR, refusal and helpfulness against alpha, as `figure_alpha`."""

from __future__ import annotations

from lox_kit.figures.canvas import MEASURE_STYLES, columns
from lox_kit.figures.defences import SHORT

from .canvas import (
    SHARES,
    Spec,
    axis,
    common_layout,
    error_bars,
    screen_line,
    shares_trace,
    upright,
)


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
