"""Surface and map of a landscape as plotly JSON: the cells, the models, the trajectories."""

from __future__ import annotations

from textwrap import wrap

import numpy as np
from matplotlib.colors import to_hex

from lox_kit.figures.landscape import MARKERS, colours, way_style
from lox_kit.text import plain_numbers

from . import canvas
from .canvas import GREY

SYMBOLS = {"o": "circle", "^": "triangle-up", "s": "square", "D": "diamond"}
FLAT = {"triangle-up": "diamond"}  # scatter3d has no triangle
LIFT = 0.015  # of the height: what lies on the surface is drawn just above it
WIDE, LONG = 56, 6  # characters and lines of an answer where one hovers
SURFACE, MAP = range(2)  # places of traces


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
    from scipy.interpolate import NearestNDInterpolator

    known = np.isfinite(values)
    if not known.any():
        return values
    return NearestNDInterpolator(np.argwhere(known), values[known])(*np.indices(values.shape))


# --- traces -----------------------------------------------------------------------------------


def cell_traces(data: dict, a: np.ndarray, b: np.ndarray, values: np.ndarray) -> list[dict]:
    """Return the surface, which says little, and the map, with what each cell says."""
    z = values
    if not np.isfinite(values).all():
        between = facets(a, b, values, np.array([(x, y) for x in a for y in b]))
        z = np.where(np.isfinite(values), values, between.reshape(values.shape))
    said = [[_words(data, a, b, values, (i, j)) for i in range(len(a))] for j in range(len(b))]
    shared = {"x": plain_numbers(a), "y": plain_numbers(b), "coloraxis": "coloraxis"}
    surface = {"type": "surface", "z": plain_numbers(z.T), "visible": bool(np.isfinite(z).any())}
    surface["hovertemplate"] = "(%{x:.2f}, %{y:.2f}): %{z:.2f}<extra></extra>"
    cells = {"type": "heatmap", "z": plain_numbers(_nearest(values).T), **canvas.hover(said)}
    return [shared | surface, shared | cells]


def _words(data: dict, a, b, values: np.ndarray, cell: tuple[int, int]) -> str:
    """Return what one cell says where one hovers."""
    i, j = cell
    where = f"({a[i]:.2f}, {b[j]:.2f})"
    if np.isnan(values[cell]):
        return f"{where}<br>not measured"
    said = [where, f"{data['metric']}: {shown_value(data, values[cell])}"]
    if example := data.get("example"):
        answer = example["answers"][i][j]
        said += [f"<b>{_wrapped(example['prompt'])}</b>", _wrapped(answer or "(nothing)")]
    return "<br>".join(said)


def shown_value(data: dict, value: float) -> str:
    """Return a value for people: percent for a share, else two decimals."""
    return f"{value:.0%}" if data["limits"] else f"{value:.2f}"


def _wrapped(text: str) -> str:
    """Return a text in short lines."""
    lines = wrap(text, WIDE)
    return "<br>".join(lines[:LONG]) + " …" * (len(lines) > LONG)


def both_views(x: list, y: list, z: list, flat: dict, space: dict, **shared) -> list[dict]:
    """Return points or a line twice: on the map, and at height z on the surface."""
    return [
        canvas.line_trace(x, y, "x", "y", {}, **shared) | flat,
        {"type": "scatter3d", "x": x, "y": y, "z": z, "showlegend": False, **shared, **space},
    ]


def dots(a: np.ndarray, b: np.ndarray, values: np.ndarray) -> dict:
    """Return a dot on every measured cell, until all are."""
    places = np.argwhere(np.isfinite(values))
    x, y = plain_numbers(a[places[:, 0]]), plain_numbers(b[places[:, 1]])
    marker = {"size": 4, "color": "white", "line": {"color": GREY, "width": 1}}
    shown = {"visible": bool(np.isnan(values).any()), "hoverinfo": "skip"}
    return canvas.line_trace(x, y, "x", "y", {}, mode="markers", marker=marker, **shown)


def models(data: dict, height: float) -> list[dict]:
    """Return the models on map and surface, coloured by their own value once that is known."""
    cmap, norm = colours(data)
    z, faces, edges, said = [], [], [], []
    for name, point in data["points"].items():
        mark = data["marks"].get(name)
        shown = mark and (mark["own"] or mark["cell"])
        z.append(shown[0] + LIFT * height if shown else None)
        faces.append(to_hex(cmap(norm(shown[0]))) if shown else "white")
        bright = not shown or (data["limits"] and shown[0] > sum(data["limits"]) / 2)
        edges.append("black" if bright else "white")
        words = [f"<b>{name}</b>"]
        if shown:
            value, low, high = (shown_value(data, v) for v in shown)
            words.append(f"{data['metric']}: {value} [{low}, {high}]")
            if mark["own"] and mark["cell"]:
                words.append(f"its cell: {shown_value(data, mark['cell'][0])}")
        said.append("<br>".join([*words, f"off the plane: {point['distance']:.2f}"]))
    x, y = ([point["at"][i] for point in data["points"].values()] for i in (0, 1))
    symbols = [SYMBOLS[MARKERS.get(name, "o")] for name in data["points"]]
    edge = {"line": {"color": edges, "width": 2}, "color": faces}
    flat = {"marker": {"size": 12, "symbol": symbols, **edge}}
    space = {"marker": {"size": 6, "symbol": [FLAT.get(s, s) for s in symbols], **edge}}
    return both_views(x, y, z, flat, space, mode="markers", **canvas.hover(said))


def way_traces(data: dict, a, b, values: np.ndarray, height: float) -> list[dict]:
    """Return every trajectory on map and surface."""
    traces = []
    for i, way in enumerate(data["trajectories"]):
        style, at = way_style(i, way), np.array(way["at"])
        name = f"{way['name']} ({way['explained']:.0%} of its length in the plane)"
        shared = {"name": name, "legendgroup": name, "mode": "lines+markers"}
        shared["hovertemplate"] = f"{way['name']}<extra></extra>"
        line, colour = canvas.screen_line(style, 2), style["color"]
        marker = {"size": 4, "color": colour, "line": {"color": "white", "width": 1}}
        space = {"line": {"color": colour, "width": 5}, "marker": {"size": 2.5, "color": colour}}
        z = plain_numbers(facets(a, b, values, at) + LIFT * height)
        traces += both_views(*at.T.tolist(), z, {"line": line, "marker": marker}, space, **shared)
    return traces


# --- layout -----------------------------------------------------------------------------------


def surface_layout(
    data: dict, a: np.ndarray, b: np.ndarray, values: np.ndarray, size: int, bottom: float
) -> dict:
    """Return axes, colours and labels of surface and map, which begin at `bottom`."""
    norm = colours(data)[1]
    low, high = norm.vmin, norm.vmax
    percent = {"tickformat": ".0%"} if data["limits"] else {}
    first, second = (f"{n}, {name}" for n, name in zip("ab", data["axes"], strict=True))
    in_space = {"backgroundcolor": "white", "gridcolor": "#dddddd", "zeroline": False,
                "showspikes": False, "nticks": 5,
                "tickfont": {"size": min(size, 13)}}  # fmt: skip
    beside = {"thickness": 14, "x": 0.925, "y": 1.0, "yanchor": "top", "len": 1 - bottom}
    label = {"font": {"size": size - 1}, "borderpad": 1, "bgcolor": "rgba(255,255,255,0.8)"}
    layout = canvas.common_layout(
        size,
        showlegend=bool(data["trajectories"]),
        legend={"y": 0.995, "yanchor": "top", "yref": "container"},
        coloraxis={
            "colorscale": "Cividis" if data["limits"] else "PuOr",
            "cmin": low,
            "cmax": high,
            "colorbar": {"title": {"text": data["metric"], "side": "right"}, **beside, **percent},
        },
        scene={
            "domain": {"x": [0, 0.46], "y": [bottom, 1]},
            "xaxis": {**in_space, "title": {"text": "a"}, "range": _ends(a)},
            "yaxis": {**in_space, "title": {"text": "b"}, "range": _ends(b)},
            "zaxis": {**in_space, "title": {"text": ""}, **percent,
                      "range": [low, high + 2 * LIFT * (high - low)]},
            "aspectmode": "manual",
            "aspectratio": {"x": 0.84, "y": 0.97, "z": 0.54},
            "camera": {"eye": {"x": 1.27, "y": -1.49, "z": 0.83},
                       "center": {"x": -0.04, "y": -0.03, "z": -0.14}},
        },
        xaxis=canvas.axis(first, domain=[0.55, 0.905], range=_ends(a), showgrid=False),
        yaxis=canvas.axis(second, domain=[bottom, 1], range=_ends(b), showgrid=False),
        annotations=[
            {"text": name, "x": p["at"][0], "y": p["at"][1], "yshift": 1.2 * size, **label}
            for name, p in data["points"].items()
        ],
    )  # fmt: skip
    if not np.isfinite(values).any():
        text = "nothing is measured yet: press <b>Run</b>"
        place = {"xref": "paper", "yref": "paper", "x": 0.23, "y": (1 + bottom) / 2}
        layout["annotations"].append({"text": text, "xanchor": "center", **place})
    layout["margin"]["t"] = 4 * size  # room for two lines of the legend
    return layout


def _ends(x: np.ndarray) -> list[float]:
    """Return the range of an axis: half a cell beyond the outermost ones."""
    half = (x[1] - x[0]) / 2
    return [float(x[0] - half), float(x[-1] + half)]
