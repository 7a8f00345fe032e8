"""Curves as plotly JSON: safety against alpha, rank and an attack's steps; R along the layers."""

from __future__ import annotations

from collections.abc import Sequence

from lox_kit.figures.attacks import is_there, lab_lines, lab_panels, run_title
from lox_kit.figures.canvas import MEASURE_STYLES, OKABE_ITO, columns, shares_at
from lox_kit.figures.defences import SHORT
from lox_kit.figures.rank import CURVES, r_styles
from lox_kit.figures.rank_data import ALL, place, rank_curve_points, ticks_shown

from . import canvas
from .canvas import LEGEND_BELOW, SHARES, TITLE, Spec

AXES = (("x", "y"), ("x2", "y2"), ("x3", "y3"))  # of an attack's loss, ASR and helpfulness
BAND = 0.13  # opacity
POINTS = {"mode": "lines+markers", "marker": {"size": 7}}


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
        shares, line = [p[measure] for p in points], canvas.screen_line(MEASURE_STYLES[measure], 2)
        shown = POINTS | {"name": name, "error_y": canvas.error_bars(*columns(shares))}
        what = f"{name} at α = %{{x}}"
        traces.append(canvas.shares_trace(x, shares, "x", "y", line, what, **shown))
    layout = canvas.common_layout(
        size,
        xaxis=canvas.axis(f"alpha, at k = {data['k']}", range=[-0.03 * most, 1.03 * most]),
        yaxis=SHARES,
        legend={"y": 1.02, "yanchor": "bottom"},
        shapes=[canvas.upright(alpha, "x", "paper", dash="dash")],
    )
    return {"data": traces, "layout": layout}


# --- rank, and R along the layers -------------------------------------------------------------


def rank_spec(
    data: dict, size: int = 12, *, ranks: Sequence[int] = (), most: int | None = None
) -> Spec:
    """Return the rank curve on the left and R on the right as plotly JSON.

    Parameters
    ----------
    data : dict
        From `rank_data.rank_and_r_data`.
    size : int
        Height of the text in pixels.
    ranks : sequence of int
        Ranks that are going to be measured: the axis has their places from the beginning.
    most : int, optional
        The largest k that can be marked.
    """
    data = canvas.escaped(data)
    points, aligned, safe = rank_curve_points(data)
    ranks = sorted({*ranks, *(p["r"] for p in points)})
    most = max([*ranks, data["k"], most or 0, 1])
    traces = _curve_traces(points, aligned, safe, most)
    for line, style in zip(data["lines"], r_styles(data), strict=True):
        traces += _r_traces(data, line, style)
    return {"data": traces, "layout": _rank_layout(data, safe, ranks, most, size)}


def _curve_traces(points: list[dict], aligned: dict, safe: list[dict], most: int) -> list[dict]:
    """Return each measure against rank: its band, its curve, and the aligned model's level.

    The last trace is a ring around the point of the safety rank.
    """
    bands, curves, levels = [], [], []
    for measure, (name, style) in CURVES.items():
        x, shares = shares_at(points, "place", measure)
        line, what = canvas.screen_line(style, 2), f"{name} at r = %{{x}}"
        bands.append(canvas.band_trace(x, shares, "x", "y", style["color"], 0.15))
        curves.append(canvas.shares_trace(x, shares, "x", "y", line, what, name=name, **POINTS))
        level = [aligned[measure]] * 2 if measure in aligned else []
        ends, line = [place(0), place(most)][: len(level)], line | {"dash": "dash", "width": 1.2}
        about = {"what": f"aligned, {name}", "name": f"aligned: {name}"}
        levels.append(canvas.shares_trace(ends, level, "x", "y", line, **about))
    x, y = [p["place"] for p in safe], [p["measures"]["asr"]["value"] for p in safe]
    marker = {"size": 16, "color": "rgba(0,0,0,0)", "line": {"color": OKABE_ITO[0], "width": 2.5}}
    ring = {"mode": "markers", "marker": marker, "hoverinfo": "skip"}
    return [*bands, *curves, *levels, canvas.line_trace(x, y, "x", "y", {}, **ring)]


def _r_traces(data: dict, line: dict, style: dict) -> list[dict]:
    """Return R of each kind, thin, and the median or the one kind shown, bold."""
    name = f"R<sub>ft</sub>, {line['attack']}" if line["attack"] else "R<sub>align</sub>"
    middle = "median" if data["kind"] == ALL else data["kind"]
    places = list(range(len(line["median"])))
    layers = [""] * len(places)
    for layer, at in data["ticks"].items():
        layers[at] = f"layer {layer}" if layer.isdigit() else layer
    # What is outside the layers is a dot of the median's; a gap parts the kinds.
    kinds = {kind: values for kind, values in line["kinds"].items() if kind not in data["ticks"]}
    x = [*places, None] * len(kinds)
    y = [r for values in kinds.values() for r in (*values, None)]
    text = [f"{kind}, {layer}" for kind in kinds for layer in (*layers, "")]
    said = "%{text}: %{y:.3f}<extra></extra>"
    faint = {"opacity": 0.4, "text": text, "hovertemplate": f"{name}, {said}"}
    bold = {"mode": "lines+markers", "marker": {"size": 6}, "name": name, "text": layers}
    bold["hovertemplate"] = f"{name}, {middle}, {said}"
    thin, thick = {"color": style["color"], "width": 0.8}, canvas.screen_line(style, 2.2)
    return [
        canvas.line_trace(x, y, "x2", "y2", thin, **faint),
        canvas.line_trace(places, line["median"], "x2", "y2", thick, **bold),
    ]


def _rank_layout(data: dict, safe: list[dict], ranks: list[int], most: int, size: int) -> dict:
    """Return axes, marks and words."""
    at_ranks = canvas.ticked({place(r): str(r) for r in ranks})
    at_layers = canvas.ticked(ticks_shown(data))
    across = {"range": [-0.2, place(most) + 0.2], **at_ranks}
    layout = canvas.common_layout(
        size,
        grid={"rows": 1, "columns": 2, "pattern": "independent"},
        xaxis=canvas.axis("directions of ΔW added to the base, r", **across),
        yaxis=SHARES,
        xaxis2=canvas.axis("layer", tickangle=0, showgrid=False, **at_layers),
        yaxis2=canvas.axis(f"R at k = {data['k']}", range=[0, 1.02], dtick=0.25),
        legend=LEGEND_BELOW,
        shapes=[canvas.upright(place(data["k"]), "x", "y domain", dash="dot")],
        annotations=_words(data, safe, most),
    )
    layout["margin"] |= {"t": 3.4 * size, "b": 9.5 * size}
    return layout


def _words(data: dict, safe: list[dict], most: int) -> list[dict]:
    """Return the words in the figure: k, what is on the right, the safety rank."""
    kind = "every kind thin, their median bold" if data["kind"] == ALL else data["kind"]
    words = [
        {"text": f"k = {data['k']}", "x": place(data["k"]), **TITLE},
        {"text": kind, "xref": "x2 domain", "x": 0.5, **TITLE},
    ]
    if not data["rows"]:
        middle = {"xref": "x domain", "yref": "y domain", "x": 0.5, "y": 0.5}
        words.append({"text": "not measured yet", **middle})
    for p in safe:
        late = p["place"] > place(most) / 2
        here = {"x": p["place"], "y": p["measures"]["asr"]["value"], "yshift": 8}
        side = {"xanchor": "right" if late else "left", "xshift": -8 if late else 8}
        words.append({"text": f"safety rank {p['r']}", **here, **side, "yanchor": "bottom"})
    return words


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
    data = canvas.escaped(data)
    panels = lab_panels(data["runs"])
    traces = []
    for i, arm, style in lab_lines(data["runs"]):
        traces += _traces(data["runs"][i], i, arm, style, panels)
    return {"data": traces, "layout": _lab_layout(data, panels, size)}


def _traces(run: dict, i: int, arm: str, style: dict, panels: dict[str, str]) -> list[dict]:
    """Return the loss and the shares of one model in the i-th run, with bands in the first."""
    way, line = run["arms"][arm], canvas.screen_line(style, 1.5 * style["linewidth"])
    group = f"{i}: {run['attack']}" if i else arm
    at = f" at k = {run['k']}, α = {run['alpha']:g}" if group == "LoX" else ""
    shown = {"name": group + at, "legendgroup": group}
    what = f"{run['attack']}, {arm}, step %{{x}}"
    steps = list(range(1, len(way["losses"]) + 1))
    loss = canvas.line_trace(steps, way["losses"], *AXES[0], line, **shown)
    loss["showlegend"] = i == 0 or arm == "LoX"
    traces = [loss | {"hovertemplate": f"{what}: loss %{{y:.3f}}<extra></extra>"}]
    shown |= {"showlegend": False, "mode": "lines+markers"}
    shown["marker"] = {"size": 4 + 2 * style["linewidth"]}
    for axes, measure in zip(AXES[1:], panels, strict=True):
        steps, shares = shares_at(way["points"], "step", measure)
        if i == 0:
            traces.append(canvas.band_trace(steps, shares, *axes, style["color"], BAND))
        traces.append(canvas.shares_trace(steps, shares, *axes, line, what, **shown))
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
    across = canvas.axis("optimiser step", range=[-0.02 * steps, 1.02 * steps])
    layout = canvas.common_layout(
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
        shapes=[canvas.upright(data["at"], x, "paper", dash="dot") for x, _ in AXES],
    )
    # the run's title above those of the plots; below them two lines of the legend
    layout["margin"] |= {"t": 4.6 * size, "b": 6.4 * size, "l": 3.4 * size}
    return layout
