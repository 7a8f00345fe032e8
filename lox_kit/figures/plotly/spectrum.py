"""The spectrum explorer with plotly: energy map, singular values, and energy against k.

Data, colours and labels are those of `figures.spectrum`. The figure is first made as plain plotly
JSON (`explorer_spec`), which a panel compares with what it shows, to send only what changed.
"""

from __future__ import annotations

import numpy as np

from lox_kit.extrapolation import map_layout
from lox_kit.figures.canvas import OKABE_ITO
from lox_kit.figures.spectrum import energy_curves, median_curve, spectrum_styles

from .canvas import (
    DASH,
    GREY,
    LIGHT,
    Spec,
    axis_title,
    common_layout,
    escaped,
    legend_below,
    line_trace,
    note,
    plain_axis,
    upright,
)

MOST_NAMED = 12  # curves in a legend; the rest are named where one hovers


def explorer(data: dict):
    """Return the plotly figure: energy map, singular values, and energy against k.

    Parameters
    ----------
    data : dict
        From `explorer_data`.
    """
    import plotly.graph_objects as go

    return go.Figure(explorer_spec(data)).update_layout(height=580)


def explorer_spec(data: dict, size: int = 12) -> Spec:
    """Return the explorer as plotly JSON, its text `size` pixels high."""
    data = escaped(data)
    maps = _map_traces(data, size)
    values = _value_traces(data)
    layout = common_layout(size) | _explorer_axes(data, maps, size)
    layout |= {"shapes": _marks(data, maps), "annotations": _notes(data, maps, size)}
    layout["legend"] = legend_below(size)
    layout["margin"] = layout["margin"] | {"b": 10 * size}  # the axis's title, and the legend
    first = [*maps, *_energy_traces(data), _selected_trace(data)]  # as many at every setting
    return {"data": first + values, "layout": layout}


def _map_traces(data: dict, size: int) -> list[dict]:
    """Return one heat map of the layers and one of what is outside them (`map_layout`)."""
    traces = []
    for names, columns, rows in map_layout(data["energy"]):
        outside = columns == ["outside"]
        if outside:  # one row below the layers
            names, columns, rows = [[n for row in names for n in row]], rows, ["outside"]
        z = [[data["energy"].get(n) for n in row] for row in names]
        few = sum(map(len, z)) <= 80
        traces.append(
            {
                "type": "heatmap",
                "z": z,
                "x": columns,
                "y": rows,
                "customdata": [[n or "" for n in row] for row in names],
                "xaxis": "x2" if outside else "x",
                "yaxis": "y2" if outside else "y",
                "coloraxis": "coloraxis",
                "texttemplate": "%{z:.0%}" if few else "",
                "textfont": {"size": size - 1},
                "hovertemplate": "%{customdata}<br>%{z:.1%} of ‖ΔW‖²<extra></extra>",
                "xgap": 1,
                "ygap": 1,
                "hoverongaps": False,
            }
        )
    return traces


def _value_traces(data: dict) -> list[dict]:
    """Return singular values over noise edge: one trace a colour, its matrices parted by gaps."""
    styles = spectrum_styles(data)
    groups: dict[str, list[dict]] = {}
    for layer in data["layers"]:
        if layer["norm"]:
            groups.setdefault(styles[layer["name"]][0], []).append(layer)
    traces = []
    for i, (label, layers) in enumerate(groups.items()):
        x, y, text = [], [], []
        for layer in layers:
            S = np.array(layer["S"])
            x += [*range(1, len(S) + 1), None]
            y += [*(S / layer["noise_edge"]).tolist(), None]
            text += [layer["name"]] * (len(S) + 1)
        style = styles[layers[0]["name"]][1]
        line = {"color": style["color"], "dash": DASH[style["linestyle"]], "width": 1.4}
        traces.append(
            {
                **line_trace(x, y, "x3", "y3", line),
                "name": label,
                "text": text,
                "showlegend": len(data["layers"]) > 1 and i < MOST_NAMED,
                "hovertemplate": "%{text}<br>direction %{x}: %{y:.2f} × noise edge<extra></extra>",
            }
        )
    return traces


def _selected_trace(data: dict) -> dict:
    """Return the selected matrix once more, bold."""
    layer = next(x for x in data["layers"] if x["name"] == data["selected"])
    edge = layer["noise_edge"]
    y = [s / edge for s in layer["S"]] if edge else []
    style = spectrum_styles(data)[layer["name"]][1]
    line = {"color": style["color"], "dash": DASH[style["linestyle"]], "width": 3}
    curve = line_trace(list(range(1, len(y) + 1)), y, "x3", "y3", line)
    return curve | {"name": "selected", "hoverinfo": "skip"}


def _energy_traces(data: dict) -> list[dict]:
    """Return the energy of every matrix shown in grey, their median in bold, and the chosen k."""
    curves = energy_curves(data)
    x, y, text = [], [], []
    for name, share in curves.items():
        x += [*range(1, len(share) + 1), None]
        y += [*share.tolist(), None]
        text += [name] * (len(share) + 1)
    each = line_trace(x, y, "x3", "y4", {"color": LIGHT, "width": 1})
    median = median_curve(curves)
    line = {"color": OKABE_ITO[0], "width": 2.5}
    bold = line_trace(list(range(1, len(median) + 1)), median.tolist(), "x3", "y4", line)
    k = data["k"]
    there = 1 <= k <= len(median)
    dot = line_trace([k] if there else [], [float(median[k - 1])] if there else [], "x3", "y4", {})
    dot |= {"mode": "markers", "marker": {"color": OKABE_ITO[1], "size": 9}}
    shown = "%{text}<br>top %{x}: %{y:.1%} of ‖ΔW‖²<extra></extra>"
    middle = "median, top %{x}: %{y:.1%}<extra></extra>"
    return [
        each | {"name": "each matrix", "text": text, "hovertemplate": shown},
        bold | {"name": "median", "hovertemplate": middle},
        dot | {"name": "k", "hovertemplate": middle},
    ]


def _explorer_axes(data: dict, maps: list[dict], size: int) -> dict:
    """Return the axes: maps on the left, values above energy on the right, over one k axis."""
    bare = {"showgrid": False, "zeroline": False, "ticks": ""}
    most = max(len(x["S"]) for x in data["layers"])
    two, wide = len(maps) == 2, _map_width(maps)
    axes = {
        "xaxis3": plain_axis(domain=[0.54, 1], range=[0.5, most + 0.5], anchor="y4")
        | {"title": axis_title("direction; directions kept, k", size)},
        "yaxis3": plain_axis(domain=[0.47, 1], type="log", range=_decades(data), anchor="x3")
        | {"title": axis_title("singular value / noise edge", size), "dtick": 1},
        "yaxis4": plain_axis(domain=[0, 0.4], range=[0, 1.02], tickformat=".0%", anchor="x3")
        | {"title": axis_title("energy in the top k", size)},
        "coloraxis": {
            "colorscale": "Viridis",
            "cmin": 0,
            "cmax": 1,
            "showscale": not maps[0]["texttemplate"],  # else each cell has its number
            "colorbar": {
                "x": 0.375,
                "y": 1,
                "yanchor": "top",
                "len": 1,
                "thickness": 10,
                "outlinewidth": 0,
                "tickformat": ".0%",
                "ticklabelposition": "outside right",
            },
        },
    }
    for trace in maps:
        lower = trace["xaxis"] == "x2"
        x, y = ("xaxis2", "yaxis2") if lower else ("xaxis", "yaxis")
        # categories are text: plotly would take "0", "1" for numbers and space them as such
        axes[x] = {**bare, "type": "category", "domain": wide, "anchor": y.replace("axis", "")}
        axes[y] = {
            **bare,
            "type": "category",
            "autorange": "reversed",
            "domain": ([0, 0.1] if lower else [0.1 + 0.0135 * size, 1]) if two else [0, 1],
            "anchor": x.replace("axis", ""),
        }
        axes[x] |= {"tickangle": 0 if lower else -35, "fixedrange": True, "dtick": 1}
        axes[y] |= {"fixedrange": True, "dtick": -(-len(trace["y"]) // 16)}
        if not lower:
            axes[y]["title"] = axis_title("layer", size)
    return axes


def _map_width(maps: list[dict]) -> list[float]:
    """Return the domain of the maps: narrower where a colour bar stands beside them."""
    return [0, 0.42 if maps[0]["texttemplate"] else 0.37]


def _decades(data: dict) -> list[float]:
    """Return the log10 range of the values shown: from 0.01, or higher, to above the largest."""
    tops = [x["S"][0] / x["noise_edge"] for x in data["layers"] if x["norm"]]
    return [-2, float(np.ceil(np.log10(max([*tops, 1.0])) * 4 + 1) / 4)]


def _marks(data: dict, maps: list[dict]) -> list[dict]:
    """Return the noise edge, the line at k through both curves, and a frame on the chosen cell."""
    edge = {"type": "line", "xref": "x3 domain", "x0": 0, "x1": 1, "yref": "y3", "y0": 1, "y1": 1}
    marks = [
        edge | {"line": {"color": GREY, "width": 1.2}},
        upright(data["k"], "x3", "paper", color=GREY, width=1.2, dash="dash"),
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


def _notes(data: dict, maps: list[dict], size: int) -> list[dict]:
    """Return the words in the figure: the map's title, the noise edge, the energy at k."""
    curves = median_curve(energy_curves(data))
    k = data["k"]
    above = {"xref": "paper", "yref": "paper", "y": 1, "yanchor": "bottom", "yshift": 4}
    corner = {"xref": "x3 domain", "yref": "y3", "x": 1, "y": 0, "xanchor": "right"}
    small = {"size": size - 1, "color": GREY}
    middle = sum(_map_width(maps)) / 2
    notes = [
        note(f"energy of ΔW in the top {k}", size, x=middle, xanchor="center", **above),
        note("noise edge", size, **corner, yanchor="top", font=small),
    ]
    if 1 <= k <= len(curves):
        right = k > 0.75 * len(curves)
        here = {"xref": "x3", "yref": "y4", "x": k, "y": float(curves[k - 1]), "yshift": -4}
        side = {"xanchor": "right" if right else "left", "xshift": -8 if right else 8}
        what = "median " if len(data["layers"]) > 1 else ""
        text = f"k = {k}: {what}{curves[k - 1]:.0%}"
        notes.append(note(text, size, **here, **side, yanchor="top"))
    return notes
