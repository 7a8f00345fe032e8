"""The safety landscape: a metric at every cell of a grid on a plane through weight space.

F(a, b) = metric(theta_aligned + a d1 + b d2)          (Perin et al. 2025, arXiv:2506.15606)
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import closing
from pathlib import Path

import numpy as np

from lox_kit import __version__
from lox_kit.folders import reading, write_whole
from lox_kit.models import Model
from lox_kit.store import Store
from lox_kit.text import plain_numbers
from lox_kit.threads import Stop, never, tell

from .flat import Flat
from .grid import Axis, Grid, Index, refinement
from .metrics import Metric, Reading
from .survey import Survey


@dataclasses.dataclass(frozen=True)
class Mark:
    """A model on the picture: its nearest point on the plane, and how far off it is."""

    at: tuple[float, ...]
    distance: float  # L2, from the plane
    cell: Reading  # of the weights at that point
    own: Reading | None  # of the checkpoint itself, if it was given

    def to_dict(self) -> dict:
        """Return its numbers for a figure."""
        pairs = (("cell", self.cell), ("own", self.own))
        readings = {n: r and plain_numbers([r.value, r.low, r.high]) for n, r in pairs}
        return {"at": list(self.at), "distance": self.distance, **readings}


OnCell = Callable[[tuple[float, ...], Reading, int, int], None]  # at, what, done, in all


@dataclasses.dataclass(frozen=True, eq=False)
class Landscape:
    """A metric over a grid; cells that were not measured are absent.

    Attributes
    ----------
    grid : Grid
    cells : dict of index to Reading
    marks : dict of name to Mark
        The models that the plane knows.
    axes : tuple of str
    prompts : tuple of str
        In the order of each cell's `answers` and `per_prompt`, for the success rate.
    complete : bool
        False if it was stopped; the same call resumes it.
    source : dict
        Metric, judge, plane's key, model, version.
    """

    grid: Grid
    cells: Mapping[Index, Reading]
    marks: Mapping[str, Mark]
    axes: tuple[str, ...]
    prompts: tuple[str, ...]
    complete: bool
    source: dict[str, object]

    @property
    def values(self) -> np.ndarray:
        """The metric, shape of the grid, NaN where nothing was measured."""
        values = np.full(self.grid.shape, np.nan)
        for index, cell in self.cells.items():
            values[index] = cell.value
        return values

    @property
    def telling_prompt(self) -> int:
        """Position of the prompt whose verdict differs most over the cells: the best example."""
        return int(np.var([c.per_prompt for c in self.cells.values()], axis=0).argmax())

    def to_dict(self) -> dict:
        """Return what the figures are drawn from: values, marks, one example answer per cell."""
        example = None
        if self.prompts and self.cells:
            i = self.telling_prompt
            answers = np.full(self.grid.shape, None)
            for index, cell in self.cells.items():
                answers[index] = cell.answers[i]
            answers = np.atleast_2d(answers).tolist()
            example = {"prompt": self.prompts[i], "answers": answers}
        return {
            **self.source,
            "axes": list(self.axes),
            "grid": [dataclasses.asdict(axis) for axis in self.grid.axes],
            "values": plain_numbers(np.atleast_2d(self.values)),
            "marks": {name: mark.to_dict() for name, mark in self.marks.items()},
            "example": example,
        }

    @classmethod
    def of(
        cls,
        flat: Flat,
        metric: Metric,
        grid: Grid,
        cells: Mapping[Index, Reading],
        marks: Mapping[str, Mark],
        wanted: int,
    ) -> Landscape:
        """Return what has been measured of a grid, of which so many cells are wanted."""
        source = {
            "metric": metric.label,
            "limits": list(metric.limits) if metric.limits else None,
            "judge": metric.judge_key,
            "n_prompts": len(metric.prompts),
            "plane": flat.key,
            "model": flat.origin_name,
            "version": __version__,
        }
        prompts = tuple(p.text for p in metric.prompts) if metric.judge_key else ()
        complete = len(cells) == wanted and len(marks) == len(flat.points)
        return cls(grid, cells, marks, flat.axes, prompts, complete, source)

    def save(self, file: str | Path) -> Path:
        """Write everything, answers included, as JSON."""
        data = dataclasses.asdict(self)
        data["cells"] = list(data["cells"].items())  # JSON takes no tuple for a key
        return write_whole(file, json.dumps(data) + "\n")

    @classmethod
    def load(cls, file: str | Path) -> Landscape:
        """Read what `save` wrote; ValueError if it is something else."""

        def read(fields: dict) -> Reading:
            lists = {name: tuple(fields[name]) for name in ("per_prompt", "answers")}
            return Reading(**fields | lists)

        with reading(file, "not a landscape"):
            data = json.loads(Path(file).read_text())
            data["grid"] = Grid(tuple(Axis(**axis) for axis in data["grid"]["axes"]))
            data["cells"] = {tuple(index): read(cell) for index, cell in data["cells"]}
            data["marks"] = {
                n: Mark(tuple(m["at"]), m["distance"], read(m["cell"]), m["own"] and read(m["own"]))
                for n, m in data["marks"].items()
            }
            return cls(**data | {name: tuple(data[name]) for name in ("axes", "prompts")})


def evaluate(
    flat: Flat,
    grid: Grid,
    metric: Metric,
    model: Model,
    *,
    checkpoints: Mapping[str, Model | str | Path] | None = None,
    budget: int | None = None,
    store: Store | None = None,
    executor: Executor | None = None,
    keep_on: str = "device",
    on_cell: OnCell | None = None,
    stop: Stop = never,
) -> Landscape:
    """Measure a metric at the cells of a grid, each kept in the store as it is finished.

    The resident model's weights are set in place for every cell, from a kept copy of the origin:
    summed in float32, rounded once. They are the origin's again, bit for bit, in the end and after
    an error. A finer grid (`Grid.finer`) reuses every cell that the store has.

    Parameters
    ----------
    flat : Plane or Line
    grid : Grid
        With as many axes.
    metric : Metric
        `Asr`, `RefusalMargin` or `Loss`.
    model : Model
        With the weights of the origin.
    checkpoints : mapping of name to Model or checkpoint, optional
        Of the plane's `points`: these are measured themselves too, one at a time. The models at
        the points on the plane always are.
    budget : int, optional
        Measure only so many cells: 5 a side, then where neighbours differ most.
    executor : concurrent.futures.Executor, optional
        Shares the cells among its workers: a process pool, Dask, MPI. They read model and plane
        from disk: from the store's folder, which other machines must see.
    keep_on : "device" or "cpu"
        Where the origin's copy and the directions are, see `Walk`. With "cpu" an accelerator holds
        one model at a time, the checkpoints among them; no cell differs by a bit.
    on_cell : callable, optional
        Called in this thread with every grid cell: coordinates, reading, cells done, cells in all.
        Those that the store has come first. Raising from it ends the run; what was finished is
        kept.
    stop : callable, optional
        Asked before each cell; once it is true, what has been measured is returned.

    Returns
    -------
    Landscape

    Raises
    ------
    ValueError
        If the model is not the origin, the grid has other axes than the plane, the budget does not
        hold the first pass, or the metric cannot be measured on this model.
    """
    if len(grid.axes) != len(flat.directions):
        raise ValueError(
            f"the grid has {len(grid.axes)} axes and the plane or line {len(flat.directions)}."
        )
    if unknown := [n for n in checkpoints or {} if n not in flat.points]:
        raise ValueError(f"checkpoint {unknown[0]!r}: the plane has {', '.join(flat.points)}.")
    total = min(budget or grid.size, grid.size)
    cells: dict[Index, Reading] = {}
    values: dict[Index, float] = {}
    how = {"store": store, "executor": executor, "keep_on": keep_on}
    with Survey(flat, metric, model, **how) as survey:
        for wanted in refinement(grid.shape, total, values) if budget else [grid.indices]:
            with closing(survey.measure({i: grid.at(i) for i in wanted}, stop)) as readings:
                for index, reading in readings:
                    cells[index], values[index] = reading, reading.value
                    if on_cell:
                        on_cell(grid.at(index), reading, len(cells), total)
                    else:
                        tell(None, "measuring cells", len(cells), total)
            if any(index not in cells for index in wanted):  # stopped
                break
        marks = _marks(survey, checkpoints or {}, stop)
    return Landscape.of(flat, metric, grid, cells, marks, total)


def _marks(
    survey: Survey, checkpoints: Mapping[str, Model | str | Path], stop: Stop
) -> dict[str, Mark]:
    """Measure the plane's models: their points, and themselves where they are given."""
    points = survey.flat.points
    cells = dict(survey.measure({n: p.at for n, p in points.items()}, stop))
    marks = {}
    for name in (n for n in points if n in cells):
        own = survey.measure_model(checkpoints[name]) if name in checkpoints else None
        marks[name] = Mark(points[name].at, points[name].distance, cells[name], own)
    return marks
