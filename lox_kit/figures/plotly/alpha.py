"""The alpha axis with plotly: ASR, refusal and helpfulness against alpha, as `figure_alpha`."""

from __future__ import annotations

from lox_kit.figures.canvas import LINES, OKABE_ITO
from lox_kit.figures.defences import FIELDS, SHORT

from .canvas import DASH, GREY, Spec, axis_title, common_layout, line_trace, plain_axis

MEASURES = ("asr", "refusal", "helpfulness")  # in the order, and so the colours, of figure_alpha


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
    for i, measure in enumerate(MEASURES):
        value, low, high = ([p[measure][f] for p in points] for f in FIELDS)
        style = {"color": OKABE_ITO[i], "dash": DASH[LINES[i]], "width": 2}
        bars = {  # rounding: the ends can pass by 1e-17
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, h - v) for v, h in zip(value, high, strict=True)],
            "arrayminus": [max(0.0, v - w) for v, w in zip(value, low, strict=True)],
            "thickness": 1.2,
            "width": 0,
        }
        ends = [list(pair) for pair in zip(low, high, strict=True)]
        hover = f"{SHORT[measure]} at α = %{{x}}: %{{y:.0%}} [%{{customdata[0]:.0%}}, "
        traces.append(
            {
                **line_trace(x, value, "x", "y", style),
                "mode": "lines+markers",
                "marker": {"size": 7},
                "name": SHORT[measure],
                "error_y": bars,
                "customdata": ends,
                "hovertemplate": hover + "%{customdata[1]:.0%}]<extra></extra>",
            }
        )
    layout = common_layout(size)
    top = most if most is not None else max([*x, alpha or 0.0, 1.0])
    layout["xaxis"] = plain_axis(range=[-0.03 * top, 1.03 * top])
    layout["xaxis"]["title"] = axis_title(f"alpha, at k = {data['k']}", size)
    layout["yaxis"] = plain_axis(range=[-0.04, 1.04], tickformat=".0%", dtick=0.25)
    layout["legend"] = {"orientation": "h", "x": 0.5, "xanchor": "center", "y": 1.02}
    layout["legend"] |= {"yanchor": "bottom", "itemclick": False, "itemdoubleclick": False}
    layout["shapes"] = [] if alpha is None else [_upright(alpha)]
    return {"data": traces, "layout": layout}


def _upright(x: float) -> dict:
    """Return a dashed line from bottom to top at x."""
    line = {"color": GREY, "width": 1.5, "dash": "dash"}
    return {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line}
