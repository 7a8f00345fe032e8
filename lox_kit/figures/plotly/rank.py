"""The rank panel's figure as plotly JSON: the rank curve, and R along the layers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lox_kit.figures.canvas import LINES, OKABE_ITO
from lox_kit.figures.rank import CURVES, attack_style
from lox_kit.figures.rank_data import ALL, layer_ticks, place, r_line, r_threads

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

# places of traces: two bands, two curves, two levels, the ring, R_align of each kind and the
# median; after them two more for every attack
VALUES, SAFE, ALIGN, FIRST_ATTACK = (2, 3), 6, 8, 9
SHOWN = "%{text}: %{customdata}<extra></extra>"


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
    points = sorted((row for row in data["rows"] if row["r"] is not None), key=lambda p: p["r"])
    aligned = next((row["measures"] for row in data["rows"] if row["r"] is None), {})
    ranks = sorted({*ranks, *(p["r"] for p in points)})
    most = max([*ranks, data["k"], most or 0, 1])
    traces = [
        *(_band(points, measure) for measure in CURVES),
        *(_values(points, measure) for measure in CURVES),
        *(_level(aligned, measure, most) for measure in CURVES),
        _safe(data, points),
        *_r_traces(data, None, 0),
    ]
    for i, attack in enumerate(data["ratios"]):
        traces += _r_traces(data, attack, i)
    return {"data": traces, "layout": _rank_layout(data, ranks, most, size)}


# --- the rank curve ---------------------------------------------------------------------------


def _known(points: list[dict], measure: str) -> list[tuple[int, dict]]:
    """Return each rank with its share of one measure."""
    return [(p["r"], p["measures"][measure]) for p in points if measure in p["measures"]]


def _band(points: list[dict], measure: str) -> dict:
    """Return Wilson's intervals as a band."""
    known = _known(points, measure)
    low, high = ([s[end] for _, s in known] for end in ("low", "high"))
    fill = rgba(OKABE_ITO[CURVES[measure][1]], 0.15)
    return band_trace([place(r) for r, _ in known], low, high, "x", "y", fill)


def _values(points: list[dict], measure: str) -> dict:
    """Return one measure against rank."""
    label, i = CURVES[measure]
    known = _known(points, measure)
    line = {"color": OKABE_ITO[i], "dash": DASH[LINES[i]], "width": 2}
    return {
        **line_trace([place(r) for r, _ in known], [s["value"] for _, s in known], "x", "y", line),
        "mode": "lines+markers",
        "marker": {"size": 7},
        "name": label,
        "showlegend": True,
        "text": [f"{label} at r = {r}" for r, _ in known],
        "customdata": [_said(s) for _, s in known],
        "hovertemplate": SHOWN,
    }


def _level(aligned: dict, measure: str, most: int) -> dict:
    """Return the aligned model's level, dashed."""
    label, i = CURVES[measure]
    share = aligned.get(measure)
    ends = [place(0), place(most)] if share else []
    line = {"color": OKABE_ITO[i], "dash": "dash", "width": 1.2}
    return {
        **line_trace(ends, [share["value"] for _ in ends], "x", "y", line),
        "name": f"aligned: {label}",
        "showlegend": True,
        "text": [f"aligned, {label}" for _ in ends],
        "customdata": [_said(share) for _ in ends],
        "hovertemplate": SHOWN,
    }


def _said(share: dict) -> str:
    """Return a share for people."""
    value, low, high = (f"{share[f]:.0%}" for f in ("value", "low", "high"))
    return f"{value} [{low}, {high}] of {share['n']}"


def _safe(data: dict, points: list[dict]) -> dict:
    """Return a ring around the point of the safety rank."""
    found = data["safety_rank"]
    at = [p for p in points if found is not None and p["r"] == found]
    y = [p["measures"]["asr"]["value"] for p in at]
    ring = {"size": 16, "color": "rgba(0,0,0,0)", "line": {"color": OKABE_ITO[0], "width": 2.5}}
    point = line_trace([place(p["r"]) for p in at], y, "x", "y", {})
    return point | {"mode": "markers", "marker": ring, "hoverinfo": "skip"}


# --- R ----------------------------------------------------------------------------------------


def _r_traces(data: dict, attack: str | None, i: int) -> list[dict]:
    """Return R of each kind, thin, and the median or the one kind shown, bold."""
    style = {"color": "#000000", "linestyle": "-"} if attack is None else attack_style(i)
    name = "R<sub>align</sub>" if attack is None else f"R<sub>ft</sub>, {escape(attack)}"
    x, y, names = r_threads(data, attack)
    faint = {
        **line_trace(x, y, "x2", "y2", {"color": style["color"], "width": 0.8}),
        "opacity": 0.4,
        "text": [escape(n) for n in names],
        "hovertemplate": f"{name}, %{{text}}: %{{y:.3f}}<extra></extra>",
    }
    x, y = r_line(data, attack)
    line = {"color": style["color"], "dash": DASH[style["linestyle"]], "width": 2.2}
    middle = "median" if data["kind"] == ALL else escape(data["kind"])
    ticks = _names(data)
    bold = {
        **line_trace(x, y, "x2", "y2", line),
        "mode": "lines+markers",
        "marker": {"size": 6, "color": style["color"]},
        "name": name,
        "showlegend": True,
        "text": [ticks.get(at, "") for at in x],
        "hovertemplate": f"{name}, {middle}, %{{text}}: %{{y:.3f}}<extra></extra>",
    }
    return [faint, bold]


def _names(data: dict) -> dict[float, str]:
    """Return what is at each place of the axis of layers."""
    outside = {at: escape(word) for at, word in layer_ticks(data).items() if not word.isdigit()}
    return {float(d): f"layer {d}" for d in data["depths"]} | outside


# --- layout -----------------------------------------------------------------------------------


def _rank_layout(data: dict, ranks: list[int], most: int, size: int) -> dict:
    """Return axes, marks and words."""
    layout = common_layout(size)
    layout["hovermode"] = "closest"
    layout["legend"] = legend_below(size)
    layout["margin"] = layout["margin"] | {"t": 3.4 * size, "b": 9.5 * size}
    layout["xaxis"] = plain_axis(
        domain=[0, 0.45], anchor="y", range=[-0.2, place(most) + 0.2], **_rank_ticks(ranks, size)
    )
    layout["xaxis"]["title"] = axis_title("directions of ΔW added to the base, r", size)
    layout["yaxis"] = plain_axis(domain=[0, 1], anchor="x", **SHARES)
    ticks = layer_ticks(data)
    pad = 0.03 * (max(ticks) - min(ticks)) + 0.2
    layout["xaxis2"] = plain_axis(
        domain=[0.55, 1],
        anchor="y2",
        range=[min(ticks) - pad, max(ticks) + pad],
        tickvals=list(ticks),
        ticktext=[escape(word) for word in ticks.values()],
        tickangle=0,
        showgrid=False,
    )
    layout["xaxis2"]["title"] = axis_title("layer", size)
    layout["yaxis2"] = plain_axis(domain=[0, 1], anchor="x2", range=[0, 1.02], dtick=0.25)
    layout["yaxis2"]["title"] = axis_title(f"R at k = {data['k']}", size)
    at_k = {"color": GREY, "width": 1.5, "dash": "dot"}
    layout["shapes"] = [upright(place(data["k"]), "x", "y domain", **at_k), *_edge(data)]
    layout["annotations"] = _words(data, most, size)
    return layout


def _rank_ticks(ranks: list[int], size: int) -> dict:
    """Return ticks at the ranks, numbers only where there is room for them."""
    labels, last = [], -1.0
    for r in ranks:
        room = place(r) - last >= 0.022 * size
        labels.append(str(r) if room else "")
        last = place(r) if room else last
    return {"tickvals": [place(r) for r in ranks], "ticktext": labels, "tickangle": 0}


def _edge(data: dict) -> list[dict]:
    """Return a line between the layers and what is outside them."""
    outside = [at for at, word in layer_ticks(data).items() if not word.isdigit()]
    if not outside or not data["depths"]:
        return []
    at = (max(data["depths"]) + min(outside)) / 2
    return [upright(at, "x2", "y2 domain", color="#dddddd", width=1)]


def _words(data: dict, most: int, size: int) -> list[dict]:
    """Return the words in the figure: k, what is on the right, the safety rank."""
    above = {"yref": "paper", "y": 1, "yanchor": "bottom", "yshift": 4}
    kind = "every kind thin, their median bold" if data["kind"] == ALL else escape(data["kind"])
    words = [
        note(f"k = {data['k']}", size, xref="x", x=place(data["k"]), **above),
        note(kind, size, xref="paper", x=0.775, xanchor="center", **above),
    ]
    if not data["rows"]:
        words.append(note("not measured yet", size, xref="x domain", yref="y domain", x=0.5, y=0.5))
    found = data["safety_rank"]
    if found is not None:
        asr = next(row["measures"]["asr"]["value"] for row in data["rows"] if row["r"] == found)
        late = place(found) > place(most) / 2
        here = {"xref": "x", "x": place(found), "yref": "y", "y": asr, "yshift": 8}
        side = {"xanchor": "right" if late else "left", "xshift": -8 if late else 8}
        words.append(note(f"safety rank {found}", size, **here, **side, yanchor="bottom"))
    return words
