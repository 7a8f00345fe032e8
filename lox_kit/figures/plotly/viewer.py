"""The landscape viewer's figure as plotly JSON: surface, map and a cut, from plain data."""

from __future__ import annotations

from html import escape
from textwrap import wrap

import numpy as np

from lox_kit.figures.canvas import LINES, OKABE_ITO
from lox_kit.figures.landscape import MARKERS, coordinates
from lox_kit.landscape import joined

from .canvas import DASH, GREY, Spec, axis_title, common_layout, plain_axis
from .surface import FLAT, SYMBOLS

HERE = "#D55E00"
LIFT = 0.015  # of the height: what lies on the surface is drawn just above it
WIDE, LONG = 56, 6  # characters and lines of an answer where one hovers
# places of the traces; the trajectories come after them
SURFACE, MAP, CUT, CUT_ON_MAP, CUT_ON_SURFACE, HERE_ON_MAP, HERE_ON_SURFACE, HERE_ON_CUT = range(8)
MEASURED, MODELS_ON_MAP, MODELS_ON_SURFACE, MEASURED_ON_CUT = 8, 9, 10, 11
CUT_TOP = 0.24  # of the figure's height
BETWEEN = "dots: measured · thin line: interpolated, straight facets between the nearest cells"


def viewer_spec(data: dict, size: int = 12, *, hidden: bool = False) -> Spec:
    """Return surface and map side by side, and the cut below them.

    Between measured cells the surface is joined by straight facets, and the map has the value of
    the nearest one; what is not measured says so where one hovers, and has no dot. On the cut the
    same facets are a thin line, and what is measured is dots with intervals.

    Parameters
    ----------
    data : dict
        As `LandscapeState.data`: a landscape's `to_dict`, `trajectories`, `points`, `cut`, `here`.
    size : int
        Height of the text in pixels.
    hidden : bool
        Leave the answers out.
    """
    a, b, values = coordinates(data)
    height = float(np.ptp(_range(data, values)))
    traces = [
        _surface(a, b, values),
        _map(data, a, b, values, hidden),
        *_cut_traces(data, height),
        *_here_traces(data, height),
        _dots(a, b, values),
        *_models(data, height),
        _measured_on_cut(data),
    ]
    for trace in traces:
        trace["showlegend"] = False  # the trajectories alone are named there
    for i, way in enumerate(data["trajectories"]):
        traces += _way(way, i, a, b, values, height)
    return {"data": traces, "layout": _viewer_layout(data, a, b, values, size)}


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
    places = np.argwhere(np.isfinite(values))
    steps = (a[1] - a[0], b[1] - b[0])
    return joined(places, values[tuple(places.T)])((at - (a[0], b[0])) / steps)


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


def _plain(values) -> list:
    """Return numbers as nested lists to six digits, None for NaN."""
    if np.ndim(values):
        return [_plain(v) for v in values]
    return None if np.isnan(values) else float(f"{values:.6g}")


# --- traces -----------------------------------------------------------------------------------


def _surface(a: np.ndarray, b: np.ndarray, values: np.ndarray) -> dict:
    """Return the surface; what it says is short, the answer stands below the figure."""
    everywhere = np.array([(x, y) for x in a for y in b])
    z = values
    if not np.isfinite(values).all():
        joined = facets(a, b, values, everywhere).reshape(values.shape)
        z = np.where(np.isfinite(values), values, joined)
    return {
        "type": "surface",
        "x": _plain(a),
        "y": _plain(b),
        "z": _plain(z.T),
        "visible": bool(np.isfinite(z).any()),
        "coloraxis": "coloraxis",
        "hovertemplate": "(%{x:.2f}, %{y:.2f}): %{z:.2f}<extra></extra>",
    }


def _map(data: dict, a: np.ndarray, b: np.ndarray, values: np.ndarray, hidden: bool) -> dict:
    """Return the map, with what each cell says."""
    said = [[_words(data, a, b, values, (i, j), hidden) for i in range(len(a))]
            for j in range(len(b))]  # fmt: skip
    return {
        "type": "heatmap",
        "x": _plain(a),
        "y": _plain(b),
        "z": _plain(_nearest(values).T),
        "customdata": said,
        "coloraxis": "coloraxis",
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _words(data: dict, a, b, values: np.ndarray, cell: tuple[int, int], hidden: bool) -> str:
    """Return what one cell says where one hovers."""
    i, j = cell
    where = f"({a[i]:.2f}, {b[j]:.2f})"
    if np.isnan(values[cell]):
        return f"{where}<br>not measured"
    said = [where, f"{escape(data['metric'])}: {shown_value(data, values[cell])}"]
    if data["example"] and not hidden:
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


def _cut_traces(data: dict, height: float) -> list[dict]:
    """Return the cut as a thin curve, and as a line on map and surface."""
    cut = data["cut"]
    x, y = [at[0] for at in cut["at"]], [at[1] for at in cut["at"]]
    value = np.array(cut["value"], dtype=float)
    line = {"color": HERE, "width": 2}
    said = [
        f"({a:.2f}, {b:.2f}): {shown_value(data, v)}{'' if m else ', interpolated'}"
        for a, b, v, m in zip(x, y, value, cut["measured"], strict=True)
    ]
    curve = {
        "type": "scatter",
        "x": _plain(cut["places"]),
        "y": _plain(value),
        "xaxis": "x2",
        "yaxis": "y2",
        "mode": "lines",
        "line": line | {"width": 1},
        "customdata": said,
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    flat = {"type": "scatter", "x": x, "y": y, "mode": "lines", "line": line | {"dash": "dot"}}
    space = {"type": "scatter3d", "x": x, "y": y, "z": _plain(value + LIFT * height)}
    quiet = {"hoverinfo": "skip"}
    return [curve, flat | quiet, space | {"mode": "lines", "line": line | {"width": 5}} | quiet]


def _measured_on_cut(data: dict) -> dict:
    """Return a dot with its interval for everything on the cut that was measured."""
    cut = data["cut"]
    measured = np.array(cut["measured"], dtype=bool)
    numbers = (np.array(cut[n], dtype=float)[measured] for n in ("places", "value", "low", "high"))
    places, value, low, high = numbers
    bars = {
        "type": "data",
        "symmetric": False,
        "array": _plain(np.clip(high - value, 0, None)),
        "arrayminus": _plain(np.clip(value - low, 0, None)),
        "thickness": 1.2,
        "width": 0,
    }
    if not np.isfinite(high - low).all():
        bars = {"visible": False}  # one prompt: a margin has no interval
    return {
        "type": "scatter",
        "x": _plain(places),
        "y": _plain(value),
        "xaxis": "x2",
        "yaxis": "y2",
        "mode": "markers",
        "marker": {"size": 7, "color": HERE},
        "error_y": bars,
        "hoverinfo": "skip",  # the curve says it
    }


def _here_traces(data: dict, height: float) -> list[dict]:
    """Return the cell that is looked at, in all three views."""
    here = data["here"]
    (x, y), value = here["at"], here["value"]
    z = None if value is None else value + LIFT * height
    ring = {"size": 13, "color": "rgba(0,0,0,0)", "line": {"color": HERE, "width": 3}}
    quiet = {"mode": "markers", "hoverinfo": "skip"}
    dot = {"size": 6, "color": HERE}
    on_cut = here["place"] is not None and value is not None
    return [
        {"type": "scatter", "x": [x], "y": [y], "marker": ring, **quiet},
        {"type": "scatter3d", "x": [x], "y": [y], "z": [z], "marker": dot, **quiet},
        {
            "type": "scatter",
            "x": [here["place"]] if on_cut else [],
            "y": [value] if on_cut else [],
            "xaxis": "x2",
            "yaxis": "y2",
            "marker": ring,
            **quiet,
        },
    ]


def _dots(a: np.ndarray, b: np.ndarray, values: np.ndarray) -> dict:
    """Return a dot on every measured cell, until all are."""
    places = np.argwhere(np.isfinite(values))
    return {
        "type": "scatter",
        "x": _plain(a[places[:, 0]]),
        "y": _plain(b[places[:, 1]]),
        "visible": bool(np.isnan(values).any()),
        "mode": "markers",
        "marker": {"size": 4, "color": "white", "line": {"color": GREY, "width": 1}},
        "hoverinfo": "skip",
    }


def _models(data: dict, height: float) -> list[dict]:
    """Return the models on map and surface, coloured by their own value once that is known."""
    x, y, z, colours, edges, said, symbols = [], [], [], [], [], [], []
    for name, point in data["points"].items():
        mark = data["marks"].get(name)
        shown = mark and (mark["own"] or mark["cell"])
        x.append(point["at"][0])
        y.append(point["at"][1])
        z.append(shown[0] + LIFT * height if shown else None)
        colours.append(_colour(data, shown[0]) if shown else "white")
        bright = not shown or (data["limits"] and shown[0] > sum(data["limits"]) / 2)
        edges.append("black" if bright else "white")
        symbols.append(SYMBOLS[MARKERS.get(name, "o")])
        words = [f"<b>{escape(name)}</b>"]
        if shown:
            value, low, high = (shown_value(data, v) for v in shown)
            words.append(f"{escape(data['metric'])}: {value} [{low}, {high}]")
        said.append("<br>".join([*words, f"off the plane: {point['distance']:.2f}"]))
    shared = {"x": x, "y": y, "mode": "markers", "customdata": said,
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


def _way(way: dict, i: int, a, b, values: np.ndarray, height: float) -> list[dict]:
    """Return one trajectory on map and surface."""
    colour, at = OKABE_ITO[2 + i % 5], np.array(way["at"])
    x, y = at.T.tolist()
    name = f"{escape(way['name'])} ({way['explained']:.0%} of its length in the plane)"
    shared = {"x": x, "y": y, "mode": "lines+markers", "name": name, "showlegend": True,
              "legendgroup": name,
              "hovertemplate": f"{escape(way['name'])}<extra></extra>"}  # fmt: skip
    line = {"color": colour, "width": 2, "dash": DASH[LINES[i % 4]]}
    marks = {"size": 4, "color": colour, "line": {"color": "white", "width": 1}}
    z = facets(a, b, values, at) + LIFT * height
    space = {"z": _plain(z), "line": {"color": colour, "width": 5}, "showlegend": False}
    return [
        {"type": "scatter", **shared, "line": line, "marker": marks},
        {"type": "scatter3d", **shared, **space, "marker": {"size": 2.5, "color": colour}},
    ]


# --- layout -----------------------------------------------------------------------------------


def _range(data: dict, values: np.ndarray) -> tuple[float, float]:
    """Return the range of heights: the metric's, or one around zero that holds all of them."""
    if data["limits"]:
        return tuple(data["limits"])
    most = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    return -(most or 1.0), most or 1.0


def _viewer_layout(data: dict, a, b, values: np.ndarray, size: int) -> dict:
    """Return axes, colours and labels."""
    low, high = _range(data, values)
    share = bool(data["limits"])
    percent = {"tickformat": ".0%"} if share else {}
    first, second = (escape(name) for name in data["axes"])
    top = 0.37  # above it surface and map, below it the cut
    layout = common_layout(size)
    layout["hovermode"], layout["showlegend"] = "closest", bool(data["trajectories"])
    layout["legend"] = {"orientation": "h", "x": 0.5, "xanchor": "center", "y": 0.995,
                        "yanchor": "top", "yref": "container", "font": {"size": size - 1},
                        "itemclick": False, "itemdoubleclick": False}  # fmt: skip
    layout["margin"]["t"] = 4 * size  # room for two lines of the legend
    layout["coloraxis"] = {
        "colorscale": "Cividis" if share else "PuOr",
        "cmin": low,
        "cmax": high,
        "colorbar": {"title": {"text": escape(data["metric"]), "side": "right"}, "thickness": 14,
                     "x": 0.925, "y": 1.0, "yanchor": "top", "len": 1 - top, **percent},
    }  # fmt: skip
    in_space = {"backgroundcolor": "white", "gridcolor": "#dddddd", "zeroline": False,
                "showspikes": False, "nticks": 5,
                "tickfont": {"size": min(size, 13)}}  # fmt: skip
    layout["scene"] = {
        "domain": {"x": [0, 0.46], "y": [top, 1]},
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
    layout["yaxis"] = plain_axis(domain=[top, 1], anchor="x", range=_ends(b), showgrid=False)
    layout["xaxis"]["title"], layout["yaxis"]["title"] = (
        axis_title(f"a, {first}", size), axis_title(f"b, {second}", size))  # fmt: skip
    layout["xaxis2"] = plain_axis(domain=[0, 1], anchor="y2", range=_span(data))
    layout["xaxis2"]["title"] = axis_title(escape(data["cut"]["label"]), size)
    pad = 0.04 * (high - low)
    layout["yaxis2"] = plain_axis(
        domain=[0, CUT_TOP], anchor="x2", range=[low - pad, high + pad], **percent
    )
    layout["shapes"] = [_threshold(data), *_cliffs(data)]
    layout["annotations"] = [_name(n, p, size) for n, p in data["points"].items()]
    if not all(data["cut"]["measured"]):
        layout["annotations"].append(_note(size))
    return layout


def _ends(x: np.ndarray) -> list[float]:
    """Return the range of an axis: half a cell beyond the outermost ones."""
    half = (x[1] - x[0]) / 2
    return [float(x[0] - half), float(x[-1] + half)]


def _span(data: dict) -> list[float]:
    """Return the range of the cut's axis, the same whatever has been measured of it."""
    low, high = data["cut"]["span"]
    pad = 0.03 * ((high - low) or 1.0)
    return [low - pad, high + pad]


def _threshold(data: dict) -> dict:
    """Return the dotted line that the cliff is where the cut passes."""
    y, line = data["cut"]["threshold"], {"color": GREY, "width": 1.2, "dash": "dot"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": "y2", "y0": y, "y1": y,
            "line": line}  # fmt: skip


def _cliffs(data: dict) -> list[dict]:
    """Return the cut's cliffs: a line at each, and its interval as far as the cut goes."""
    shapes, above = [], {"xref": "x2", "yref": "y2 domain", "y0": 0, "y1": 1}
    for side, sign in (("ahead", 1), ("behind", -1)):
        cliff = data["cut"]["cliffs"][side]
        if cliff is None or cliff["low"] is None or cliff["distance"] == 0:
            continue
        low, high = (sign * (cliff["reach"] if cliff[n] is None else cliff[n])
                     for n in ("low", "high"))  # fmt: skip
        shapes.append({"type": "rect", **above, "x0": low, "x1": high, "layer": "below",
                       "line": {"width": 0}, "fillcolor": "rgba(213,94,0,0.12)"})  # fmt: skip
        if cliff["distance"] is not None:
            x = sign * cliff["distance"]
            line = {"color": HERE, "width": 1.2, "dash": "dash"}
            shapes.append({"type": "line", **above, "x0": x, "x1": x, "line": line})
    return shapes


def _note(size: int) -> dict:
    """Return what is measured on the cut and what is not, above it."""
    return {"x": 1, "y": CUT_TOP, "xref": "paper", "yref": "paper", "xanchor": "right",
            "yanchor": "bottom", "text": BETWEEN, "showarrow": False,
            "font": {"size": size - 1, "color": GREY}}  # fmt: skip


def _name(name: str, point: dict, size: int) -> dict:
    """Return the name of a model beside its marker on the map."""
    x, y = point["at"]
    return {"x": x, "y": y, "xref": "x", "yref": "y", "text": escape(name), "showarrow": False,
            "yshift": 1.2 * size, "font": {"size": size - 1}, "borderpad": 1,
            "bgcolor": "rgba(255,255,255,0.8)"}  # fmt: skip
