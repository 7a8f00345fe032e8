"""The rows of the landscape viewer's table: values and cliffs, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lox_kit.landscape import Landscape, Point, cut_through, nearest_cell


def cliff_rows(
    landscape: Landscape,
    points: Mapping[str, Point],
    cut: dict,
    line: tuple[Sequence[float], Sequence[float]],
    name: str,
) -> list[dict]:
    """Return the cliffs on both sides of a cut's start, and those of every model's cell that way.

    Parameters
    ----------
    points : mapping of name to Point
        The plane's models.
    cut : dict
        From `landscape.cut_through`.
    line : (a, b), (a, b)
        Two points of the cut: that way the models' cliffs are, too.
    name : str
        Of the cut's own row, the first.

    Returns
    -------
    list of dict
        name, at (the start), value (with its interval, or None where it is not measured), distance
        (of a model from the plane), ahead and behind (cliffs as `landscape.cut_through` has them).
    """
    rows = [{"name": name, **_start(cut), "distance": None, **cut["cliffs"]}]
    for model, point in points.items():
        at = landscape.grid.at(nearest_cell(landscape.grid, point.at))
        toward = [x + end - start for x, start, end in zip(at, *line, strict=True)]
        sides = cut_through(landscape, at, toward)["cliffs"]
        mark = landscape.marks.get(model)
        reading = mark and (mark.own or mark.cell)
        value = reading and [reading.value, reading.low, reading.high]
        distance = {"value": value, "distance": point.distance}
        rows.append({"name": model, "at": list(at), **distance, **sides})
    return rows


def _start(cut: dict) -> dict:
    """Return where a cut starts, and what was measured there."""
    value = None
    if 0.0 in cut["places"]:
        i = cut["places"].index(0.0)
        value = [cut[n][i] for n in ("value", "low", "high")]
    return {"at": cut["start"], "value": value}
