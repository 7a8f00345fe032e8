"""Straight cuts through a landscape at any angle, and the cliff as they show it.

What is measured on a line are the cells it meets and the models on it. Where it passes between
cells it has the height of straight facets between the nearest measured ones, marked as such.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from .flatness import Scans, cliff_distance
from .grid import Grid, Index
from .landscape import Cell, Landscape
from .metrics import Reading

ASR_CLIFF, MARGIN_CLIFF = 0.5, 0.0
ON_LINE = 1e-6  # in steps of the grid: nearer to a cell or a model than this is on it


@dataclasses.dataclass(frozen=True, eq=False)
class Cut:
    """A metric along a straight line through a landscape, in order.

    Attributes
    ----------
    start : (float, float)
    places : np.ndarray, shape (n,)
        Signed distance from the start, in units of the plane's axes: of the measured cells and
        models on the line, and of where it crosses the grid's rows and columns between cells.
    at : np.ndarray, shape (n, 2)
    measured : np.ndarray of bool, shape (n,)
        False where the numbers are those of facets between measured cells.
    value : np.ndarray, shape (n,)
    low, high : np.ndarray, shape (n,)
        95 % interval over the prompts; NaN where it is not measured.
    per_prompt : np.ndarray, shape (n, n_prompts)
    span : (float, float)
        How far the line can be known: over the grid, and to models beyond it.
    """

    start: tuple[float, float]
    places: np.ndarray
    at: np.ndarray
    measured: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    per_prompt: np.ndarray
    span: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Cliff:
    """Where a metric first passes its threshold on the way from a cut's start.

    Attributes
    ----------
    distance : float
        Half way between `before` and `behind`; 0 if the start is over, infinite if no place is.
    low, high : float
        Its 95 % interval, bootstrapped over the prompts as in `landscape.cliff_distance`.
    before, behind : float
        Distances of the last place before the cliff and of the first one behind it.
    reach : float
        How far the cut goes that way.
    measured : bool
        Whether both places around it are; where there is no cliff, whether every place is.
    """

    distance: float
    low: float
    high: float
    before: float
    behind: float
    reach: float
    measured: bool

    def to_dict(self) -> dict[str, float | bool | None]:
        """Return plain data, None for infinite."""
        fields = dataclasses.asdict(self).items()
        return {n: v if np.isfinite(v) else None for n, v in fields}


def heading(angle: float) -> tuple[float, float]:
    """Return the direction of an angle in degrees: 0 is along a, 90 along b."""
    radians = np.deg2rad(angle)
    return float(np.cos(radians)), float(np.sin(radians))


def way(start: Sequence[float], end: Sequence[float]) -> tuple[float, float]:
    """Return the direction from one point to another, such as from one model to another."""
    return end[0] - start[0], end[1] - start[1]


def cut_through(landscape: Landscape, start: Sequence[float], direction: Sequence[float]) -> Cut:
    """Return what is known of a plane's landscape along a line through a point.

    A cell on the line that is not measured is left out, as is what lies between no measured cells.

    Parameters
    ----------
    start : (a, b)
    direction : (float, float)
        Of any length: from `heading` or `way`.

    Raises
    ------
    ValueError
        If the direction has no length, or the landscape is over a line.
    """
    grid = landscape.grid
    if len(grid.axes) != 2:
        raise ValueError("a cut needs a landscape over a plane; this one is over a line.")
    length = float(np.hypot(*direction))
    if not length > 0:
        raise ValueError(f"direction {tuple(direction)}: a cut needs one that leads somewhere.")
    start, toward = np.array(start, float), np.array(direction, float) / length
    toward[abs(toward) < 1e-9] = 0.0  # the cosine of 90 degrees
    span = _span(grid, start, toward)
    places = _places(landscape, start, toward, span)
    span = (min(span[0], *places), max(span[1], *places))
    return _cut(landscape, start, toward, places, span)


def cliff_on(cut: Cut, limits: object, forward: bool = True) -> Cliff | None:
    """Return the cliff on one side of a cut's start, or None where the start has no value.

    It is where the success rate first exceeds one half; where a margin first falls below zero.

    Parameters
    ----------
    limits : the metric's `limits`
        None for a margin, which is better high; a success rate is better low.
    forward : bool
        Towards larger places, or towards smaller ones.
    """
    places = cut.places if forward else 0.0 - cut.places
    order = np.argsort(places)
    order = order[places[order] >= 0]
    if not len(order) or places[order[0]] != 0:
        return None
    sign, threshold = (1.0, ASR_CLIFF) if limits else (-1.0, -MARGIN_CLIFF)
    walked = Scans(places[order], sign * cut.per_prompt[None, order])
    number, measured = cliff_distance(walked, threshold), cut.measured[order]
    reach = float(walked.places[-1])
    if np.isinf(number.value):
        before, behind, around = reach, np.inf, measured
    else:
        first = int((walked.curves[0] > threshold).argmax())
        around = measured[max(first - 1, 0) : first + 1]
        before, behind = (float(walked.places[i]) for i in (max(first - 1, 0), first))
    ends = (number.value, number.low, number.high)
    return Cliff(*ends, before, behind, reach, bool(around.all()))


def cut_data(cut: Cut, limits: object, label: str = "") -> dict:
    """Return a cut as the figures draw it: its numbers, and the cliffs on both sides.

    Parameters
    ----------
    limits : the metric's `limits`
    label : str
        Of the axis along the cut.
    """
    return {
        "label": label,
        "start": list(cut.start),
        "places": cut.places.tolist(),
        "at": cut.at.tolist(),
        "measured": cut.measured.tolist(),
        **{n: _numbers(getattr(cut, n)) for n in ("value", "low", "high")},
        "span": list(cut.span),
        "threshold": ASR_CLIFF if limits else MARGIN_CLIFF,
        "cliffs": both_cliffs(cut, limits),
    }


def both_cliffs(cut: Cut, limits: object) -> dict[str, dict | None]:
    """Return the cliffs ahead of and behind a cut's start as plain data; see `cliff_on`."""
    found = {side: cliff_on(cut, limits, side == "ahead") for side in ("ahead", "behind")}
    return {side: cliff and cliff.to_dict() for side, cliff in found.items()}


def nearest_cell(grid: Grid, at: Sequence[float]) -> Index:
    """Return the cell of a grid nearest to a point along each axis."""
    return tuple(int(abs(axis.values - x).argmin()) for axis, x in zip(grid.axes, at, strict=True))


def joined(places: np.ndarray, known: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function of straight facets between known places, NaN outside of them.

    Parameters
    ----------
    places : array (n, 2)
    known : array (n, ...)
        What is known at each.
    """
    from scipy.interpolate import LinearNDInterpolator

    if len(places) < 3 or np.linalg.matrix_rank(places - places[0]) < 2:
        return lambda at: np.full((len(at), *known.shape[1:]), np.nan)
    return LinearNDInterpolator(places.astype(float), known)


# --- along the line -----------------------------------------------------------------------------


def _span(grid: Grid, start: np.ndarray, toward: np.ndarray) -> tuple[float, float]:
    """Return where the line enters and leaves the grid; (0, 0) if it misses it."""
    low, high = -np.inf, np.inf
    for i, axis in enumerate(grid.axes):
        ends = axis.values[[0, -1]] - start[i]
        if toward[i]:
            first, last = sorted(ends / toward[i])
            low, high = max(low, first), min(high, last)
        elif ends[0] > ON_LINE * axis.step or ends[1] < -ON_LINE * axis.step:
            return 0.0, 0.0
    return (float(low), float(high)) if high > low else (0.0, 0.0)


def _places(
    landscape: Landscape, start: np.ndarray, toward: np.ndarray, span: tuple[float, float]
) -> np.ndarray:
    """Return where on the line something is to be known: the start, rows and columns, models."""
    grid = landscape.grid
    steps = np.array([axis.step for axis in grid.axes])
    near = ON_LINE * steps.min()
    found = [np.zeros(1), _models_on(landscape, start, toward)]
    for i, axis in enumerate(grid.axes):
        if toward[i]:
            crossed = (axis.values - start[i]) / toward[i]
            found.append(crossed[(crossed >= span[0] - near) & (crossed <= span[1] + near)])
    places = np.sort(np.concatenate(found))
    places[abs(places) < near] = 0.0
    return places[np.diff(places, prepend=-np.inf) > near]


def _models_on(landscape: Landscape, start: np.ndarray, toward: np.ndarray) -> np.ndarray:
    """Return the places of the models that lie on the line."""
    steps = [axis.step for axis in landscape.grid.axes]
    at = np.array([mark.at for mark in landscape.marks.values()]).reshape(-1, 2)
    places = (at - start) @ toward
    off = abs(start + places[:, None] * toward - at) / steps
    return places[(off < ON_LINE).all(1)]


def _cut(
    landscape: Landscape, start: np.ndarray, toward: np.ndarray, places: np.ndarray, span
) -> Cut:
    """Return the cut with what is measured at these places, and what facets say of the others."""
    at = start + places[:, None] * toward
    n_prompts = len(next(iter(landscape.cells.values())).per_prompt) if landscape.cells else 0
    per_prompt = np.full((len(at), n_prompts), np.nan)
    numbers = np.full((3, len(at)), np.nan)  # value, low, high
    steps = _in_steps(landscape.grid, at)
    measured = np.zeros(len(at), dtype=bool)
    for i, step in enumerate(steps):
        if found := _reading(landscape, at[i], step):
            at[i], reading = found
            measured[i], per_prompt[i] = True, reading.per_prompt
            numbers[:, i] = reading.value, reading.low, reading.high
    between = ~measured & (steps != steps.round()).any(1)
    if between.any() and landscape.cells:
        per_prompt[between] = _facets(landscape)(steps[between])
        numbers[0, between] = per_prompt[between].mean(1)
    known = np.isfinite(numbers[0])
    numbers, per_prompt = numbers[:, known], per_prompt[known]
    start = (float(start[0]), float(start[1]))
    return Cut(start, places[known], at[known], measured[known], *numbers, per_prompt, span)


def _reading(
    landscape: Landscape, point: np.ndarray, step: np.ndarray
) -> tuple[tuple, Cell | Reading] | None:
    """Return what was measured at a point and where exactly: a cell, or a model's place."""
    if (step == step.round()).all() and (cell := landscape.cell(*map(int, step))):
        return cell.at, cell
    for mark in landscape.marks.values():
        if (abs(_in_steps(landscape.grid, np.array(mark.at)) - step) < 2 * ON_LINE).all():
            return mark.at, mark.cell
    return None


def _in_steps(grid: Grid, at: np.ndarray) -> np.ndarray:
    """Return points (..., 2) in steps from the first cell: whole numbers exactly on a cell's."""
    steps = at / [a.step for a in grid.axes] - [a.first for a in grid.axes]
    return np.where(abs(steps - steps.round()) < ON_LINE, steps.round(), steps)


@lru_cache(maxsize=1)
def _facets(landscape: Landscape) -> Callable[[np.ndarray], np.ndarray]:
    """Return the facets between the measured cells, prompt by prompt; kept for the next cut."""
    cells = landscape.cells.values()
    return joined(np.array([c.index for c in cells]), np.array([c.per_prompt for c in cells]))


def _numbers(values: np.ndarray) -> list[float | None]:
    """Return numbers as plain data, None for what is not finite."""
    return [float(v) if np.isfinite(v) else None for v in values]
