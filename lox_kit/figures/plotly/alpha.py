"""The alpha axis with plotly: ASR, refusal and helpfulness against alpha, as `figure_alpha`."""

from __future__ import annotations

from lox_kit.figures.canvas import LINES, OKABE_ITO, columns
from lox_kit.figures.defences import SHORT

from .canvas import (
    DASH,
    GREY,
    SHARES,
    Spec,
    axis_title,
    common_layout,
    error_bars,
    legend,
    line_trace,
    plain_axis,
    upright,
)


def alpha_spec(
    data: dict, alpha: float | None = None, *, most: float | None = None, size: int = 12
) -> Spec:
    """Return ASR, refusal and helpfulness against alpha, as plotly JSON.

    Parameters
    ----------
    data : dict
        From `studies.alpha_curve`: shares with their 95 % intervals at each alpha measured.
    alpha : float, optional
        Where the dial stands, marked by a line.
    most : float, optional
        Where the axis ends.
    size : int
        Height of the text, pixels.
    """
    points = sorted(data["points"], key=lambda p: p["alpha"])
    x = [p["alpha"] for p in points]
    traces = []
    for i, (measure, name) in enumerate(SHORT.items()):
        value, low, high = columns(p[measure] for p in points).tolist()
        line = {"color": OKABE_ITO[i], "dash": DASH[LINES[i]], "width": 2}
        hover = f"{name} at α = %{{x}}: %{{y:.0%}} [%{{customdata[0]:.0%}}, "
        traces.append(
            {
                **line_trace(x, value, "x", "y", line),
                "mode": "lines+markers",
                "marker": {"size": 7},
                "name": name,
                "showlegend": True,
                "error_y": error_bars(value, low, high),
                "customdata": [list(pair) for pair in zip(low, high, strict=True)],
                "hovertemplate": hover + "%{customdata[1]:.0%}]<extra></extra>",
            }
        )
    layout = common_layout(size)
    top = most if most is not None else max([*x, alpha or 0.0, 1.0])
    layout["xaxis"] = plain_axis(range=[-0.03 * top, 1.03 * top])
    layout["xaxis"]["title"] = axis_title(f"alpha, at k = {data['k']}", size)
    layout["yaxis"] = plain_axis(**SHARES)
    layout["legend"] = legend(size, y=1.02, yanchor="bottom", font={"size": size})
    mark = {"color": GREY, "width": 1.5, "dash": "dash"}
    layout["shapes"] = [] if alpha is None else [upright(alpha, "x", "paper", **mark)]
    return {"data": traces, "layout": layout}
