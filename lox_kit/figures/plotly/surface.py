"""The landscape with plotly: surface and map side by side, linked, with what the model said.

Plain data in (`Landscape.to_dict`, `figures.map_data`), a `FigureWidget` out.
"""

from __future__ import annotations

import numpy as np

from lox_kit.figures.landscape import MARKERS, coordinates

from .canvas import escaped

SYMBOLS = {"o": "circle", "^": "triangle-up", "s": "square", "D": "diamond"}
FLAT = {"triangle-up": "diamond"}  # scatter3d has no triangle
HERE = "here"  # the traces that show which cell is pointed at


def landscape(data: dict):
    """Return surface and map of a landscape as one plotly `FigureWidget`.

    Hovering a cell shows coordinates, value and what the model answered there to one prompt, the
    one on which the cells differ most. Pointing at a cell of the map marks it on the surface, and
    the other way round (in a notebook: that needs the kernel).

    Parameters
    ----------
    data : dict
        From `Landscape.to_dict` or `figures.map_data`.
    """
    import plotly.graph_objects as go

    fig = go.FigureWidget(figure(data))
    for trace in fig.data:
        if trace.name == "cells":
            trace.on_hover(lambda _, points, __: follow(fig, points))
    return fig


def figure(data: dict):
    """Return the same as a plain plotly `Figure`: for a file, without the link."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    data = escaped(data)
    a, b, values = coordinates(data)
    fig = make_subplots(1, 2, specs=[[{"type": "scene"}, {"type": "xy"}]], column_widths=[0.5, 0.5])
    text, shared = _hover(data, a, b, values), {"coloraxis": "coloraxis", "name": "cells"}
    common = {"x": a, "y": b, "z": values.T, "text": text, "hoverinfo": "text", **shared}
    fig.add_trace(go.Surface(**common), 1, 1)
    fig.add_trace(go.Heatmap(**common), 1, 2)
    for name, mark in data["marks"].items():
        _add_mark(fig, name, mark, data)
    for way in data.get("trajectories", ()):
        x, y = zip(*way["at"], strict=True)
        fig.add_trace(go.Scatter(x=x, y=y, mode="lines+markers", name=way["name"],
                                 marker={"size": 4}), 1, 2)  # fmt: skip
    ring = {"size": 11, "color": "rgba(0,0,0,0)", "line": {"color": "#D55E00", "width": 3}}
    here = {"mode": "markers", "name": HERE, "hoverinfo": "skip", "showlegend": False}
    solid = {"size": 6, "color": "#D55E00"}
    fig.add_trace(go.Scatter3d(x=[None], y=[None], z=[None], marker=solid, **here), 1, 1)
    fig.add_trace(go.Scatter(x=[None], y=[None], marker=ring, **here), 1, 2)
    return fig.update_layout(**_layout(data))


def follow(fig, points) -> None:
    """Put both markers on the cell that is pointed at."""
    if not points.xs:
        return
    cells = next(t for t in fig.data if t.name == "cells")
    a, b = np.asarray(cells.x, float), np.asarray(cells.y, float)
    i, j = int(abs(a - points.xs[0]).argmin()), int(abs(b - points.ys[0]).argmin())
    value = np.asarray(cells.z, float)[j, i]
    with fig.batch_update():
        for trace in fig.data:
            if trace.name == HERE:
                trace.x, trace.y = [a[i]], [b[j]]
                if trace.type == "scatter3d":
                    trace.z = [None if np.isnan(value) else value]


def _hover(data: dict, a: np.ndarray, b: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return what each cell says when it is pointed at, rows along b."""
    example = data.get("example")
    rows = []
    for j, y in enumerate(b):
        row = []
        for i, x in enumerate(a):
            value = values[i, j]
            lines = [f"({x:.2f}, {y:.2f})", f"{data['metric']}: {value:.2f}"]
            if np.isnan(value):
                lines = [lines[0], "not measured"]
            elif example:
                lines += [f"<b>{example['prompt']}</b>", example["answers"][i][j] or "(nothing)"]
            row.append("<br>".join(lines))
        rows.append(row)
    return np.array(rows, dtype=object)  # plotly makes one text of a list of lists


def _add_mark(fig, name: str, mark: dict, data: dict) -> None:
    """Add one model to both views, coloured by its own value."""
    import plotly.graph_objects as go

    (x, y), own = mark["at"], mark["own"] or mark["cell"]
    symbol = SYMBOLS[MARKERS.get(name, "o")]
    text = (
        f"<b>{name}</b><br>{data['metric']}: {own[0]:.2f} [{own[1]:.2f}, {own[2]:.2f}]<br>"
        f"its cell: {mark['cell'][0]:.2f}<br>off the plane: {mark['distance']:.2f}"
    )
    line = {"color": "white", "width": 2}
    marker = {"size": 9, "color": [own[0]], "coloraxis": "coloraxis", "line": line}
    shared = {"mode": "markers+text", "hovertext": text, "hoverinfo": "text", "name": name,
              "showlegend": False, "text": [name], "textposition": "top center"}  # fmt: skip
    at = {"x": [x], "y": [y]}
    in_space = {**marker, "symbol": FLAT.get(symbol, symbol), "size": 6}
    fig.add_trace(go.Scatter3d(**at, z=[own[0]], marker=in_space, **shared), 1, 1)
    font = {"color": "#D55E00"}
    on_map = {**marker, "symbol": symbol, "size": 11}
    fig.add_trace(go.Scatter(**at, marker=on_map, textfont=font, **shared), 1, 2)


def _layout(data: dict) -> dict:
    """Return axes, colours and sizes."""
    limits = data["limits"]
    scale = {"colorscale": "Cividis", "cmin": 0, "cmax": 1} if limits else {"colorscale": "PuOr"}
    if not limits:
        most = max(abs(v) for row in data["values"] for v in row if v is not None) or 1.0
        scale |= {"cmin": -most, "cmax": most}
    first, second = data["axes"]
    return {
        "coloraxis": {**scale, "colorbar": {"title": {"text": data["metric"], "side": "right"}}},
        "scene": {
            "xaxis": {"title": {"text": first}},
            "yaxis": {"title": {"text": second}},
            "zaxis": {"title": {"text": ""}, "range": limits},
            "camera": {"eye": {"x": 1.4, "y": -1.6, "z": 0.9}},
        },
        "xaxis": {"title": {"text": first}},
        "yaxis": {"title": {"text": second}},
        "title": {"text": data.get("title") or None},
        "height": 480,
        "margin": {"l": 10, "r": 10, "t": 40, "b": 10},
        "legend": {"orientation": "h", "x": 0.6, "y": -0.12},
        "template": "plotly_white",
    }
