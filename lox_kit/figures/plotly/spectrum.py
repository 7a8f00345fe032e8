"""The spectrum explorer with plotly: energy map, singular values, and energy against k.

Data, colours and labels are those of `figures.spectrum`. The figure is made as plain plotly JSON,
which a panel compares with what it shows, to send only what changed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lox_kit.extrapolation import map_layout
from lox_kit.figures.canvas import OKABE_ITO
from lox_kit.figures.spectrum import energy_curves, median_curve, over_noise, spectrum_styles

from . import canvas
from .canvas import GREY, LEGEND_BELOW, LIGHT, TITLE, Spec

MOST_NAMED = 12  # curves in a legend; the rest are named where one hovers
MAP_WIDTH = 0.36  # of the figure; the colour bar stands beside it


def explorer_spec(data: dict, size: int = 12) -> Spec:
    """Return the explorer as plotly JSON, its text `size` pixels high.

    Parameters
    ----------
    data : dict
        From `explorer_data`.
    """
    data = canvas.escaped(data)
    maps, curves = list(_map_traces(data, size)), energy_curves(data)
    median = median_curve(curves).tolist()
    first = [*maps, *_energy_traces(curves, median, data["k"])]  # as many at every setting
    layout = canvas.common_layout(
        size,
        **_map_axes(maps, size),
        **_curve_axes(data),
        shapes=_marks(data, maps),
        annotations=_notes(data, median, size),
        legend=LEGEND_BELOW,
    )
    layout["margin"]["b"] = 10 * size  # the axis's title, and the legend
    return {"data": first + _value_traces(data), "layout": layout}


def _map_traces(data: dict, size: int) -> Iterator[dict]:
    """Yield one heat map of the layers and one of what is outside them (`map_layout`)."""
    for names, columns, rows in map_layout(data["energy"]):
        outside = columns == ["outside"]
        if outside:  # one row below the layers
            names, columns, rows = [[n for row in names for n in row]], rows, ["outside"]
        yield {
            "type": "heatmap",
            "z": [[data["energy"].get(n) for n in row] for row in names],
            "x": columns,
            "y": rows,
            "customdata": [[n or "" for n in row] for row in names],
            "xaxis": "x2" if outside else "x",
            "yaxis": "y2" if outside else "y",
            "coloraxis": "coloraxis",
            "texttemplate": "%{z:.0%}" if len(rows) * len(columns) <= 80 else "",
            "textfont": {"size": size - 1},
            "hovertemplate": "%{customdata}<br>%{z:.1%} of ‖ΔW‖²<extra></extra>",
            "xgap": 1,
            "ygap": 1,
            "hoverongaps": False,
        }


def _value_traces(data: dict) -> list[dict]:
    """Return singular values over noise edge: the selected matrix in bold, then all by colour."""
    styles, values = spectrum_styles(data), over_noise(data)
    chosen = {data["selected"]: values.get(data["selected"], [])}
    line = canvas.screen_line(styles[data["selected"]][1], 3)
    traces = [canvas.curves_trace(chosen, "x3", "y3", line, hoverinfo="skip")]
    groups: dict[str, dict[str, list]] = {}
    for name, curve in values.items():
        groups.setdefault(styles[name][0], {})[name] = curve
    for i, (label, curves) in enumerate(groups.items()):
        line = canvas.screen_line(styles[next(iter(curves))][1], 1.4)
        shown = {"name": label, "showlegend": len(data["layers"]) > 1 and i < MOST_NAMED}
        shown["hovertemplate"] = "%{text}<br>direction %{x}: %{y:.2f} × noise edge<extra></extra>"
        traces.append(canvas.curves_trace(curves, "x3", "y3", line, **shown))
    return traces


def _energy_traces(curves: dict[str, np.ndarray], median: list[float], k: int) -> list[dict]:
    """Return the energy of every matrix shown in grey, their median in bold, and the chosen k."""
    x, y = ([k], [median[k - 1]]) if 1 <= k <= len(median) else ([], [])
    each = {"hovertemplate": "%{text}<br>top %{x}: %{y:.1%} of ‖ΔW‖²<extra></extra>"}
    thin, bold = {"color": LIGHT, "width": 1}, {"color": OKABE_ITO[0], "width": 2.5}
    middle = {"hovertemplate": "median, top %{x}: %{y:.1%}<extra></extra>", "showlegend": False}
    dot = {"name": "k", "mode": "markers", "marker": {"color": OKABE_ITO[1], "size": 9}}
    return [
        canvas.curves_trace(curves, "x3", "y4", thin, **each),
        canvas.curves_trace({"median": median}, "x3", "y4", bold, **middle),
        canvas.line_trace(x, y, "x3", "y4", {}, **dot, **middle),
    ]


# --- layout -----------------------------------------------------------------------------------


def _map_axes(maps: list[dict], size: int) -> dict:
    """Return the axes and colours of the maps, on the left: the layers above what is outside."""
    bar = {"x": MAP_WIDTH, "thickness": 10, "outlinewidth": 0, "tickformat": ".0%"}
    axes = {"coloraxis": {"colorscale": "Viridis", "cmin": 0, "cmax": 1, "colorbar": bar}}
    # categories are text: plotly would take "0", "1" for numbers and space them as such
    bare = {"type": "category", "showline": False, "showgrid": False, "ticks": ""}
    bare["fixedrange"] = True
    for trace in maps:
        x, y = trace["xaxis"], trace["yaxis"]
        lower = x == "x2"
        upper = [0.1 + 0.0135 * size, 1] if len(maps) == 2 else [0, 1]
        heights = [0, 0.1] if lower and len(maps) == 2 else upper
        across = {"domain": [0, MAP_WIDTH], "anchor": y, "tickangle": 0 if lower else -35}
        down = {"domain": heights, "anchor": x, "autorange": "reversed"}
        axes[x.replace("x", "xaxis")] = {**bare, **across, "dtick": 1}
        axes[y.replace("y", "yaxis")] = {**bare, **down, "dtick": -(-len(trace["y"]) // 16)}
        if not lower:
            axes["yaxis"]["title"] = {"text": "layer"}
    return axes


def _curve_axes(data: dict) -> dict:
    """Return the axes on the right: values above energy, over one k axis."""
    most = max(len(x["S"]) for x in data["layers"])
    tops = [values[0] for values in over_noise(data).values()]
    decades = [-2, float(np.ceil(np.log10(max([*tops, 1.0])) * 4 + 1) / 4)]
    across, above = {"domain": [0.54, 1], "anchor": "y4"}, {"domain": [0.47, 1], "anchor": "x3"}
    below = {"domain": [0, 0.4], "anchor": "x3"}
    value, energy = "singular value / noise edge", "energy in the top k"
    return {
        "xaxis3": canvas.axis("direction; directions kept, k", range=[0.5, most + 0.5], **across),
        "yaxis3": canvas.axis(value, type="log", range=decades, dtick=1, **above),
        "yaxis4": canvas.axis(energy, range=[0, 1.02], tickformat=".0%", **below),
    }


def _marks(data: dict, maps: list[dict]) -> list[dict]:
    """Return the noise edge, the line at k through both curves, and a frame on the chosen cell."""
    marks = [
        canvas.level(1, "x3 domain", "y3"),
        canvas.upright(data["k"], "x3", "paper", dash="dash"),
    ]
    for trace in maps:
        for i, row in enumerate(trace["customdata"]):
            if data["selected"] in row:
                j = row.index(data["selected"])
                frame = {"type": "rect", "line": {"color": OKABE_ITO[1], "width": 3}}
                frame |= {"xref": trace["xaxis"], "x0": j - 0.5, "x1": j + 0.5}
                frame |= {"yref": trace["yaxis"], "y0": i - 0.5, "y1": i + 0.5}
                marks.append(frame)
    return marks


def _notes(data: dict, median: list[float], size: int) -> list[dict]:
    """Return the words in the figure: the map's title, the noise edge, the energy at k."""
    k, small = data["k"], {"size": size - 1, "color": GREY}
    corner = {"xref": "x3 domain", "yref": "y3", "x": 1, "y": 0, "xanchor": "right"}
    title = f"energy of ΔW in the top {k}"
    notes = [
        {"text": title, "xref": "paper", "x": MAP_WIDTH / 2, "xanchor": "center", **TITLE},
        {"text": "noise edge", **corner, "yanchor": "top", "font": small},
    ]
    if 1 <= k <= len(median):
        right = k > 0.75 * len(median)
        here = {"xref": "x3", "yref": "y4", "x": k, "y": median[k - 1], "yshift": -4}
        side = {"xanchor": "right" if right else "left", "xshift": -8 if right else 8}
        what = "median " if len(data["layers"]) > 1 else ""
        text = f"k = {k}: {what}{median[k - 1]:.0%}"
        notes.append({"text": text, **here, **side, "yanchor": "top"})
    return notes
