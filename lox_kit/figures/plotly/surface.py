"""The landscape with plotly: surface and map side by side, linked, with what the model said.

Plain data in (`Landscape.to_dict`, `figures.map_data`), a `FigureWidget` out. `viewer` has the same
two views, with a cut below them.
"""

from __future__ import annotations

from html import escape
from textwrap import wrap

import numpy as np

from lox_kit.figures.canvas import LINES, OKABE_ITO
from lox_kit.figures.landscape import MARKERS, coordinates
from lox_kit.text import plain_numbers

from .canvas import (
    DASH,
    GREY,
    axis_title,
    common_layout,
    legend,
    legend_below,
    line_trace,
    note,
    plain_axis,
)

SYMBOLS = {"o": "circle", "^": "triangle-up", "s": "square", "D": "diamond"}
FLAT = {"triangle-up": "diamond"}  # scatter3d has no triangle
HERE = "#D55E00"
RING = {"size": 13, "color": "rgba(0,0,0,0)", "line": {"color": HERE, "width": 3}}
LIFT = 0.015  # of the height: what lies on the surface is drawn just above it
WIDE, LONG = 56, 6  # characters and lines of an answer where one hovers
SURFACE, MAP, HERE_ON_MAP, HERE_ON_SURFACE = range(4)  # places of traces


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

    fig, cells = go.FigureWidget(figure(data)), coordinates(data)
    for place in (SURFACE, MAP):
        fig.data[place].on_hover(lambda _, points, __: follow(fig, cells, points))
    return fig


def figure(data: dict):
    """Return the same as a plain plotly `Figure`: for a file, without the link."""
    import plotly.graph_objects as go

    data = {"trajectories": (), **data, "points": data["marks"]}
    a, b, values = coordinates(data)
    height = float(np.ptp(heights(data, values)))
    surface, cells = cell_traces(data, a, b, values)
    said = np.array(cells["customdata"], dtype=object)  # plotly makes one text of a list of lists
    surface |= {"text": said, "hovertemplate": "%{text}<extra></extra>"}
    traces = [surface, cells, *here_traces(None, None, None), dots(a, b, values)]
    traces += [*models(data, height), *way_traces(data, a, b, values, height)]
    layout = surface_layout(data, a, b, values, 12) | {"legend": legend_below(12), "height": 480}
    layout["title"], layout["margin"]["b"] = {"text": escape(data.get("title") or "")}, 90
    return go.Figure({"data": traces, "layout": layout})


def follow(fig, cells: tuple[np.ndarray, np.ndarray, np.ndarray], points) -> None:
    """Put both markers on the cell that is pointed at; `cells` is from `coordinates`."""
    if not points.xs:
        return
    a, b, values = cells
    i, j = int(abs(a - points.xs[0]).argmin()), int(abs(b - points.ys[0]).argmin())
    with fig.batch_update():
        for place in (HERE_ON_MAP, HERE_ON_SURFACE):
            fig.data[place].update(x=[a[i]], y=[b[j]])
        fig.data[HERE_ON_SURFACE].z = plain_numbers([values[i, j]])


# --- between the cells ------------------------------------------------------------------------


def facets(a: np.ndarray, b: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the height of straight facets between the measured cells, NaN outside of them.

    Parameters
    ----------
    a, b : arrays (n_a,), (n_b,)
    values : array (n_a, n_b)
        NaN where nothing was measured.
    at : array (n, 2)
        Where, in the plane's coordinates.
    """
    from scipy.interpolate import LinearNDInterpolator

    places = np.argwhere(np.isfinite(values)).astype(float)
    if len(places) < 3 or np.linalg.matrix_rank(places - places[0]) < 2:
        return np.full(len(at), np.nan)
    steps = (a[1] - a[0], b[1] - b[0])
    joined = LinearNDInterpolator(places, values[np.isfinite(values)])
    return joined((at - (a[0], b[0])) / steps)


def _nearest(values: np.ndarray) -> np.ndarray:
    """Return the value of the nearest measured cell everywhere."""
    from scipy.interpolate import griddata

    places = np.argwhere(np.isfinite(values))
    if not len(places):
        return values
    everywhere = np.argwhere(np.ones_like(values))
    known = values[tuple(places.T)]
    found = griddata(places, known, everywhere, method="nearest").reshape(values.shape)
    return np.where(np.isfinite(values), values, found)


# --- traces -----------------------------------------------------------------------------------


def cell_traces(
    data: dict, a: np.ndarray, b: np.ndarray, values: np.ndarray, *, hidden: bool = False
) -> list[dict]:
    """Return the surface, which says little, and the map, with what each cell says."""
    everywhere = np.array([(x, y) for x in a for y in b])
    z = values
    if not np.isfinite(values).all():
        between = facets(a, b, values, everywhere).reshape(values.shape)
        z = np.where(np.isfinite(values), values, between)
    said = [[_words(data, a, b, values, (i, j), hidden) for i in range(len(a))]
            for j in range(len(b))]  # fmt: skip
    shared = {"x": plain_numbers(a), "y": plain_numbers(b), "coloraxis": "coloraxis"}
    return [
        {
            "type": "surface",
            **shared,
            "z": plain_numbers(z.T),
            "visible": bool(np.isfinite(z).any()),
            "hovertemplate": "(%{x:.2f}, %{y:.2f}): %{z:.2f}<extra></extra>",
        },
        {
            "type": "heatmap",
            **shared,
            "z": plain_numbers(_nearest(values).T),
            "customdata": said,
            "hovertemplate": "%{customdata}<extra></extra>",
        },
    ]


def _words(data: dict, a, b, values: np.ndarray, cell: tuple[int, int], hidden: bool) -> str:
    """Return what one cell says where one hovers."""
    i, j = cell
    where = f"({a[i]:.2f}, {b[j]:.2f})"
    if np.isnan(values[cell]):
        return f"{where}<br>not measured"
    said = [where, f"{escape(data['metric'])}: {shown_value(data, values[cell])}"]
    if data.get("example") and not hidden:
        answer = data["example"]["answers"][i][j]
        said += [f"<b>{_wrapped(data['example']['prompt'])}</b>", _wrapped(answer or "(nothing)")]
    return "<br>".join(said)


def shown_value(data: dict, value: float) -> str:
    """Return a value for people: percent for a share, else two decimals."""
    return f"{value:.0%}" if data["limits"] else f"{value:.2f}"


def _wrapped(text: str) -> str:
    """Return a text in short lines, escaped."""
    lines = wrap(text, WIDE)
    return "<br>".join(escape(line) for line in lines[:LONG]) + " …" * (len(lines) > LONG)


def here_traces(x: float | None, y: float | None, z: float | None) -> list[dict]:
    """Return what marks one cell: a ring on the map, and a dot on the surface."""
    quiet = {"x": [x], "y": [y], "mode": "markers", "hoverinfo": "skip", "showlegend": False}
    dot = {"size": 6, "color": HERE}
    return [
        {"type": "scatter", **quiet, "marker": RING},
        {"type": "scatter3d", **quiet, "z": [z], "marker": dot},
    ]


def dots(a: np.ndarray, b: np.ndarray, values: np.ndarray) -> dict:
    """Return a dot on every measured cell, until all are."""
    places = np.argwhere(np.isfinite(values))
    x, y = plain_numbers(a[places[:, 0]]), plain_numbers(b[places[:, 1]])
    marker = {"size": 4, "color": "white", "line": {"color": GREY, "width": 1}}
    marks = line_trace(x, y, "x", "y", {}) | {"mode": "markers", "marker": marker}
    return marks | {"visible": bool(np.isnan(values).any()), "hoverinfo": "skip"}


def models(data: dict, height: float) -> list[dict]:
    """Return the models on map and surface, coloured by their own value once that is known."""
    z, colours, edges, said = [], [], [], []
    for name, point in data["points"].items():
        mark = data["marks"].get(name)
        shown = mark and (mark["own"] or mark["cell"])
        z.append(shown[0] + LIFT * height if shown else None)
        colours.append(_colour(data, shown[0]) if shown else "white")
        bright = not shown or (data["limits"] and shown[0] > sum(data["limits"]) / 2)
        edges.append("black" if bright else "white")
        words = [f"<b>{escape(name)}</b>"]
        if shown:
            value, low, high = (shown_value(data, v) for v in shown)
            words.append(f"{escape(data['metric'])}: {value} [{low}, {high}]")
            if mark["own"] and mark["cell"]:
                words.append(f"its cell: {shown_value(data, mark['cell'][0])}")
        said.append("<br>".join([*words, f"off the plane: {point['distance']:.2f}"]))
    x, y = ([point["at"][i] for point in data["points"].values()] for i in (0, 1))
    symbols = [SYMBOLS[MARKERS.get(name, "o")] for name in data["points"]]
    shared = {"x": x, "y": y, "mode": "markers", "customdata": said, "showlegend": False,
              "hovertemplate": "%{customdata}<extra></extra>"}  # fmt: skip
    edge = {"line": {"color": edges, "width": 2}, "color": colours}
    flat = [FLAT.get(s, s) for s in symbols]
    return [
        {"type": "scatter", **shared, "marker": {"size": 12, "symbol": symbols, **edge}},
        {"type": "scatter3d", **shared, "z": z, "marker": {"size": 6, "symbol": flat, **edge}},
    ]


def _colour(data: dict, value: float) -> str:
    """Return the colour of a value, as the figures of the paper have it."""
    from matplotlib.colors import to_hex

    from lox_kit.figures.landscape import colours

    cmap, norm = colours(data)
    return to_hex(cmap(norm(value)))


def way_traces(data: dict, a, b, values: np.ndarray, height: float) -> list[dict]:
    """Return every trajectory on map and surface."""
    traces = []
    for i, way in enumerate(data["trajectories"]):
        colour, at = OKABE_ITO[2 + i % 5], np.array(way["at"])
        x, y = at.T.tolist()
        name = f"{escape(way['name'])} ({way['explained']:.0%} of its length in the plane)"
        shared = {"x": x, "y": y, "mode": "lines+markers", "name": name, "showlegend": True,
                  "legendgroup": name,
                  "hovertemplate": f"{escape(way['name'])}<extra></extra>"}  # fmt: skip
        line = {"color": colour, "width": 2, "dash": DASH[LINES[i % 4]]}
        marks = {"size": 4, "color": colour, "line": {"color": "white", "width": 1}}
        z = plain_numbers(facets(a, b, values, at) + LIFT * height)
        space = {"z": z, "line": {"color": colour, "width": 5}, "showlegend": False}
        traces += [
            {"type": "scatter", **shared, "line": line, "marker": marks},
            {"type": "scatter3d", **shared, **space, "marker": {"size": 2.5, "color": colour}},
        ]
    return traces


# --- layout -----------------------------------------------------------------------------------


def heights(data: dict, values: np.ndarray) -> tuple[float, float]:
    """Return the range of heights: the metric's, or one around zero that holds all of them."""
    if data["limits"]:
        return tuple(data["limits"])
    most = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    return -(most or 1.0), most or 1.0


def surface_layout(
    data: dict, a: np.ndarray, b: np.ndarray, values: np.ndarray, size: int, *, bottom: float = 0.0
) -> dict:
    """Return axes, colours and labels of surface and map, which begin at `bottom`."""
    low, high = heights(data, values)
    percent = {"tickformat": ".0%"} if data["limits"] else {}
    first, second = (escape(name) for name in data["axes"])
    layout = common_layout(size)
    layout["hovermode"], layout["showlegend"] = "closest", bool(data["trajectories"])
    layout["legend"] = legend(size, y=0.995, yanchor="top", yref="container")
    layout["margin"]["t"] = 4 * size  # room for two lines of the legend
    layout["coloraxis"] = {
        "colorscale": "Cividis" if data["limits"] else "PuOr",
        "cmin": low,
        "cmax": high,
        "colorbar": {"title": {"text": escape(data["metric"]), "side": "right"}, "thickness": 14,
                     "x": 0.925, "y": 1.0, "yanchor": "top", "len": 1 - bottom, **percent},
    }  # fmt: skip
    in_space = {"backgroundcolor": "white", "gridcolor": "#dddddd", "zeroline": False,
                "showspikes": False, "nticks": 5,
                "tickfont": {"size": min(size, 13)}}  # fmt: skip
    layout["scene"] = {
        "domain": {"x": [0, 0.46], "y": [bottom, 1]},
        "xaxis": {**in_space, "title": {"text": "a"}, "range": _ends(a)},
        "yaxis": {**in_space, "title": {"text": "b"}, "range": _ends(b)},
        "zaxis": {**in_space, "title": {"text": ""}, "range": [low, high + 2 * LIFT * (high - low)],
                  **percent},
        "aspectmode": "manual",
        "aspectratio": {"x": 0.84, "y": 0.97, "z": 0.54},
        "camera": {"eye": {"x": 1.78, "y": -2.08, "z": 1.15},
                   "center": {"x": -0.06, "y": -0.05, "z": -0.12}},
    }  # fmt: skip
    layout["xaxis"] = plain_axis(domain=[0.55, 0.905], anchor="y", range=_ends(a), showgrid=False)
    layout["yaxis"] = plain_axis(domain=[bottom, 1], anchor="x", range=_ends(b), showgrid=False)
    layout["xaxis"]["title"] = axis_title(f"a, {first}", size)
    layout["yaxis"]["title"] = axis_title(f"b, {second}", size)
    layout["annotations"] = [_name(n, p, size) for n, p in data["points"].items()]
    return layout


def _ends(x: np.ndarray) -> list[float]:
    """Return the range of an axis: half a cell beyond the outermost ones."""
    half = (x[1] - x[0]) / 2
    return [float(x[0] - half), float(x[-1] + half)]


def _name(name: str, point: dict, size: int) -> dict:
    """Return the name of a model beside its marker on the map."""
    x, y = point["at"]
    place = {"x": x, "y": y, "xref": "x", "yref": "y", "yshift": 1.2 * size}
    box = {"font": {"size": size - 1}, "borderpad": 1, "bgcolor": "rgba(255,255,255,0.8)"}
    return note(escape(name), size, **place, **box)
