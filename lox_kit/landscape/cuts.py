"""Straight cuts through a landscape, along an axis or from model to model, and their cliffs.

A cut holds only what was measured on its line: the cells and models that lie on it, and for a cut
between two models what `measure_way` found between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from lox_kit.models import Model
from lox_kit.store import Store
from lox_kit.threads import Stop, never

from .flat import Flat
from .flatness import Scans, cliff_distance, finite
from .grid import Grid, Index
from .landscape import Landscape
from .metrics import Metric, Reading
from .survey import Survey

ASR_CLIFF, MARGIN_CLIFF = 0.5, 0.0
ON_LINE = 1e-6  # in steps of the grid: nearer to the line than this is on it


def cut_through(
    landscape: Landscape,
    start: Sequence[float],
    toward: Sequence[float],
    *,
    way: Mapping[tuple[float, ...], Reading] | None = None,
    label: str = "",
) -> dict:
    """Return what is measured on the line through two points of a plane, as the figures draw it.

    Parameters
    ----------
    start, toward : (a, b)
        Distances are measured from `start`, and are positive towards `toward`.
    way : mapping of (a, b) to Reading, optional
        What else was measured, from `measure_way`.
    label : str
        Of the axis along the cut.

    Returns
    -------
    dict
        Plain data: label; start; places, the distances in ascending order, in units of the plane's
        axes; at, the points; value, low and high (the 95 % interval over the prompts) of each, None
        where not finite; span, how far the grid and the models on the line go; threshold; cliffs,
        "ahead" and "behind" the start.

        A cliff is where the success rate first exceeds one half, or where a margin first falls
        below zero. It has distance (half way between `before` and `behind`; 0 if the start is over
        the cliff, None if no place is), low and high (its 95 % interval, bootstrapped over the
        prompts as in `cliff_distance`), before and behind (the last place before the cliff and the
        first one after it), reach (the last place in that direction) and, of a start that is over
        the cliff, until (the way back: value, low and high, as above). It is None where the start
        was not measured, or where it is not over the cliff and nothing else was measured in that
        direction.

    Raises
    ------
    ValueError
        If the two points are the same, or the landscape is over a line.
    """
    grid, limits = landscape.grid, landscape.source["limits"]
    if len(grid.axes) != 2:
        raise ValueError("a cut needs a landscape over a plane; this one is over a line.")
    first, along = np.array(start, float), np.subtract(toward, start, dtype=float)
    if not (length := float(np.hypot(*along))) > 0:
        raise ValueError(f"from {start} to {toward}: a cut needs two different points.")
    along /= length
    places, at, found = _on_line(landscape, first, along, dict(way or {}))
    ends = np.array(list(product(*(axis.values[[0, -1]] for axis in grid.axes))))
    span = [*places, *((ends - first) @ along)]
    outcomes = np.array([r.per_prompt for r in found])
    return {
        "label": label,
        "start": first.tolist(),
        "places": places.tolist(),
        "at": at.tolist(),
        **{n: [finite(getattr(r, n)) for r in found] for n in ("value", "low", "high")},
        "span": [float(min(span)), float(max(span))],
        "threshold": ASR_CLIFF if limits else MARGIN_CLIFF,
        "cliffs": {
            "ahead": _cliff(places, outcomes, limits),
            "behind": _cliff(0.0 - places, outcomes, limits),
        },
    }


def measure_way(
    flat: Flat,
    metric: Metric,
    model: Model,
    start: Sequence[float],
    end: Sequence[float],
    cells: int = 17,
    *,
    store: Store | None = None,
    keep_on: str = "device",
    stop: Stop = never,
) -> Iterator[tuple[tuple[float, ...], Reading]]:
    """Yield point and reading of evenly spaced points from one point of a plane to another.

    Parameters
    ----------
    flat, metric, model, store, keep_on, stop : see `landscape.evaluate`
    cells : int
        How many, both ends included.
    """
    shares = np.linspace(0, 1, cells)[:, None]
    points = ((1 - shares) * start + shares * end).tolist()
    with Survey(flat, metric, model, store=store, keep_on=keep_on) as survey:
        yield from survey.measure({tuple(p): tuple(p) for p in points}, stop)


def nearest_cell(grid: Grid, at: Sequence[float]) -> Index:
    """Return the cell of a grid nearest to a point along each axis."""
    return tuple(int(abs(axis.values - x).argmin()) for axis, x in zip(grid.axes, at, strict=True))


def _on_line(
    landscape: Landscape, start: np.ndarray, along: np.ndarray, way: Mapping[tuple, Reading]
) -> tuple[np.ndarray, np.ndarray, list[Reading]]:
    """Return what is measured on a line, in order: places, points (n, 2), readings."""
    marks = landscape.marks.values()
    cells = {landscape.grid.at(index): cell for index, cell in landscape.cells.items()}
    known = cells | {m.at: m.cell for m in marks} | way
    at, readings = np.array(list(known)).reshape(-1, 2), list(known.values())
    steps = np.array([axis.step for axis in landscape.grid.axes])
    near = ON_LINE * steps.min()
    places = (at - start) @ along
    places[abs(places) < near] = 0.0
    off = abs(start + places[:, None] * along - at) / steps
    order = np.argsort(np.round(places / near), kind="stable")  # a cell before what lies on it
    order = order[(off[order] < ON_LINE).all(1)]
    order = order[np.diff(places[order], prepend=-np.inf) > near]
    return places[order], at[order], [readings[i] for i in order]


def _cliff(places: np.ndarray, outcomes: np.ndarray, limits: object) -> dict | None:
    """Return the cliff at places >= 0, or None; outcomes are (n_places, n_prompts)."""
    order = np.argsort(places)
    order = order[places[order] >= 0]
    if not len(order) or places[order[0]] != 0:
        return None
    sign, threshold = (1.0, ASR_CLIFF) if limits else (-1.0, -MARGIN_CLIFF)
    walked = Scans(places[order], sign * outcomes[None, order])
    number, reach = cliff_distance(walked, threshold).to_dict(), float(walked.places[-1])
    around = {"before": reach, "behind": None, "reach": reach}
    if number["value"] == 0:
        back = Scans(walked.places, -walked.per_prompt)
        around["until"] = cliff_distance(back, -threshold).to_dict()
    if number["value"] is not None:
        first = int((walked.curves[0] > threshold).argmax())
        around["before"], around["behind"] = walked.places[[max(first - 1, 0), first]].tolist()
    elif len(order) == 1:
        return None
    return {"distance": number.pop("value"), **number, **around}
