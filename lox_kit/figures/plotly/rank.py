"""The rank panel's figure as plotly JSON: the rank curve, and R along the layers."""

from __future__ import annotations

from collections.abc import Sequence

from lox_kit.figures.canvas import OKABE_ITO, shares_at
from lox_kit.figures.rank import CURVES, r_styles
from lox_kit.figures.rank_data import ALL, place, rank_curve_points, ticks_shown

from .canvas import (
    LEGEND_BELOW,
    SHARES,
    TITLE,
    Spec,
    axis,
    band_trace,
    common_layout,
    escaped,
    line_trace,
    screen_line,
    shares_trace,
    ticked,
    upright,
)


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
    data = escaped(data)
    points, aligned, safe = rank_curve_points(data)
    ranks = sorted({*ranks, *(p["r"] for p in points)})
    most = max([*ranks, data["k"], most or 0, 1])
    traces = [*_curve_traces(points, aligned, most), _ring(safe)]
    for line, style in zip(data["lines"], r_styles(data), strict=True):
        traces += _r_traces(data, line, style)
    return {"data": traces, "layout": _rank_layout(data, safe, ranks, most, size)}


def _curve_traces(points: list[dict], aligned: dict, most: int) -> list[dict]:
    """Return each measure against rank: its band, its curve, and the aligned model's level."""
    bands, curves, levels = [], [], []
    for measure, (label, style) in CURVES.items():
        x, shares = shares_at(points, "place", measure)
        bands.append(band_trace(x, shares, "x", "y", style["color"], 0.15))
        shown = {"name": label, "mode": "lines+markers", "marker": {"size": 7}}
        line = screen_line(style, 2)
        curves.append(shares_trace(x, shares, "x", "y", line, f"{label} at r = %{{x}}", **shown))
        level = [aligned[measure]] * 2 if measure in aligned else []
        ends, line = [place(0), place(most)][: len(level)], {**line, "dash": "dash", "width": 1.2}
        about = {"what": f"aligned, {label}", "name": f"aligned: {label}"}
        levels.append(shares_trace(ends, level, "x", "y", line, **about))
    return [*bands, *curves, *levels]


def _ring(safe: list[dict]) -> dict:
    """Return a ring around the point of the safety rank."""
    x, shares = shares_at(safe, "place", "asr")
    marker = {"size": 16, "color": "rgba(0,0,0,0)", "line": {"color": OKABE_ITO[0], "width": 2.5}}
    ring = {"mode": "markers", "marker": marker, "hoverinfo": "skip"}
    return line_trace(x, [s["value"] for s in shares], "x", "y", {}, **ring)


def _r_traces(data: dict, line: dict, style: dict) -> list[dict]:
    """Return R of each kind, thin, and the median or the one kind shown, bold."""
    name = f"R<sub>ft</sub>, {line['attack']}" if line["attack"] else "R<sub>align</sub>"
    middle = "median" if data["kind"] == ALL else data["kind"]
    places = list(range(len(line["median"])))
    layers = [""] * len(places)
    for layer, at in data["ticks"].items():
        layers[at] = f"layer {layer}" if layer.isdigit() else layer
    x, y, text = [], [], []
    for kind, values in line["kinds"].items():
        if kind in data["ticks"]:  # outside the layers: a dot of the median's
            continue
        x += [*places, None]  # a gap parts the kinds
        y += [*values, None]
        text += [f"{kind}, {layer}" for layer in [*layers, ""]]
    said = "%{text}: %{y:.3f}<extra></extra>"
    faint = {"opacity": 0.4, "text": text, "hovertemplate": f"{name}, {said}"}
    bold = {"mode": "lines+markers", "marker": {"size": 6}, "name": name, "text": layers}
    bold["hovertemplate"] = f"{name}, {middle}, {said}"
    thin = {"color": style["color"], "width": 0.8}
    return [
        line_trace(x, y, "x2", "y2", thin, **faint),
        line_trace(places, line["median"], "x2", "y2", screen_line(style, 2.2), **bold),
    ]


# --- layout -----------------------------------------------------------------------------------


def _rank_layout(data: dict, safe: list[dict], ranks: list[int], most: int, size: int) -> dict:
    """Return axes, marks and words."""
    layout = common_layout(
        size,
        grid={"rows": 1, "columns": 2, "pattern": "independent"},
        xaxis=axis(
            "directions of ΔW added to the base, r",
            range=[-0.2, place(most) + 0.2],
            **ticked({place(r): str(r) for r in ranks}),
        ),
        yaxis=SHARES,
        xaxis2=axis("layer", tickangle=0, showgrid=False, **ticked(ticks_shown(data))),
        yaxis2=axis(f"R at k = {data['k']}", range=[0, 1.02], dtick=0.25),
        legend=LEGEND_BELOW,
        shapes=[upright(place(data["k"]), "x", "y domain", dash="dot")],
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
