"""The landscape viewer's state: cells measured coarse to fine, and what is looked at in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import permutations
from pathlib import Path

import traitlets

from lox_kit.figures import map_data
from lox_kit.landscape import (
    Asr,
    Grid,
    Index,
    Landscape,
    Mark,
    Metric,
    Plane,
    Reading,
    Trajectory,
    check_origin,
    cut_through,
    evaluate,
    measure_way,
    nearest_cell,
)
from lox_kit.measures import Questions
from lox_kit.models import Model
from lox_kit.store import MemoryStore, Store
from lox_kit.studies import LANDSCAPE_TOKENS
from lox_kit.widgets.code import metric_call, script
from lox_kit.widgets.job import BREATH, Job, Ticket
from lox_kit.widgets.setting import PanelState, Setting, one_of

FEW = 24  # prompts that a built-in world's model is measured on
COARSE = 5  # cells a side of the first pass
MOST_FINER = 3  # times the coarse grid can be halved: 33 x 33 cells
FIGURES = {"map": "landscape_map", "surface": "landscape_3d"}
SCREEN = ("points", "here", "cliffs", "measured")  # of the data, what the paper's figure lacks
PLANE_FILE = "plane.safetensors"  # from which the code reads the plane


class LandscapeState(PanelState):
    """A metric over a plane, filled in by a job, and one cell of it with a cut through it.

    The job moves the model's weights in place; they are the origin's again whenever it ends.

    Attributes
    ----------
    a, b : float
        What is looked at: the nearest cell.
    cut : "a", "b" or (str, str)
        The axis that the cut through that cell goes along, or two of the plane's models: it then
        goes from the one to the other.
    pointed : tuple (i, j) or None
        The cell under the pointer, which is shown in its place.
    finer : int
        How often the coarse grid is halved: 0 to 3.
    figure : "landscape_map" or "landscape_3d"
        Which figure is saved.
    data : dict
        What `figures.plotly.viewer_spec` draws.
    """

    follows = ()
    a = traitlets.Float(0.0)
    b = traitlets.Float(0.0)
    pointed = traitlets.Tuple(default_value=None, allow_none=True)
    cut = traitlets.Any("b")
    finer = traitlets.Int(2, min=0, max=MOST_FINER)
    figure = traitlets.Enum(tuple(FIGURES.values()), "landscape_map")
    _check_cut = one_of("cut", "cuts")

    def __init__(
        self,
        plane: Plane,
        model: Model,
        *,
        metric: Metric | None = None,
        checkpoints: Mapping[str, Model | str | Path] | None = None,
        trajectories: Sequence[Trajectory] = (),
        grid: Grid | None = None,
        store: Store | None = None,
        keep_on: str = "device",
        setting: Setting | None = None,
    ):
        if len(plane.directions) != 2:
            raise ValueError("the landscape viewer shows a plane; this is a line: see scan.")
        if unknown := [n for n in checkpoints or {} if n not in plane.points]:
            raise ValueError(f"checkpoint {unknown[0]!r}: the plane has {', '.join(plane.points)}.")
        self.take(model)
        check_origin(model, plane)
        self.plane, self.model, self.metric = plane, model, metric or _world_metric(model)
        self.checkpoints = dict(checkpoints or {})
        self.trajectories = [t.to_dict() for t in trajectories]
        self.coarse = grid or Grid.around(plane, COARSE)
        self.store, self.keep_on = store or MemoryStore(), keep_on
        self._cells: dict[tuple[float, ...], Reading] = {}  # by coordinates: grids share them
        self._marks: dict[str, Mark] = {}
        self._ways: dict[tuple[str, str], dict[tuple[float, ...], Reading]] = {}
        super().__init__(setting or Setting(), Job(BREATH))
        self.open()

    # --- what is looked at ----------------------------------------------------------------------

    @property
    def grid(self) -> Grid:
        """The grid at the resolution that is chosen."""
        grid = self.coarse
        for _ in range(self.finer):
            grid = grid.finer()
        return grid

    @property
    def landscape(self) -> Landscape:
        """What has been measured of this grid so far."""
        grid, cells = self.grid, self._cells.copy()  # a copy: the job adds to it
        found = {i: cells[at] for i in grid.indices if (at := grid.at(i)) in cells}
        marks = dict(self._marks)
        return Landscape.of(self.plane, self.metric, grid, found, marks, grid.size)

    @property
    def cuts(self) -> list[str | tuple[str, str]]:
        """What `cut` can be: an axis, or each model and every other that lies elsewhere."""
        points = self.plane.points
        pairs = [(m, n) for m, n in permutations(points, 2) if points[m].at != points[n].at]
        return ["a", "b", *pairs]

    @property
    def looked_at(self) -> Index:
        """The cell that is chosen."""
        return nearest_cell(self.grid, (self.a, self.b))

    def line(self, cell: Index) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return where the cut of a cell starts, and a point that it goes towards."""
        if isinstance(self.cut, tuple):
            return tuple(self.plane.points[name].at for name in self.cut)
        a, b = self.grid.at(cell)
        return (a, b), (a + 1, b) if self.cut == "a" else (a, b + 1)

    @property
    def way(self) -> dict[tuple[float, ...], Reading]:
        """What has been measured on the way between the two models of the cut."""
        return self._ways.get(self.cut, {})

    def label(self, cell: Index) -> str:
        """Return what the axis along the cut of a cell says."""
        if isinstance(self.cut, tuple):
            return "distance from {} towards {}".format(*self.cut)
        return "distance from ({:.2f}, {:.2f}) along {}".format(*self.grid.at(cell), self.cut)

    def look_at(self, a: float, b: float) -> None:
        """Look at the cell nearest to a point."""
        with self.hold_trait_notifications():
            self.a, self.b = a, b

    def changed(self, change) -> None:
        """Show what was chosen rather than what the pointer was at."""
        if self.pointed is None or change["name"] in ("pointed", "figure"):
            self.show()
        else:
            self.pointed = None  # which shows it

    # --- the job --------------------------------------------------------------------------------

    def run(self) -> None:
        """Measure what is missing: coarse grid and models, where neighbours differ, the cut."""
        self.job.start(self.measure)

    def measure(self, ticket: Ticket) -> None:
        """Measure coarse grid and models, the grid that is chosen, and the way along the cut."""
        fine, cut, plane, asked = self.grid, self.cut, self.plane, (self.metric, self.model)
        options = {"store": self.store, "keep_on": self.keep_on, "stop": ticket.cancelled.is_set}

        def tell() -> None:
            done = sum(fine.at(i) in self._cells for i in fine.indices)
            ticket.step("cells", done, fine.size, self.show)

        def keep(at: tuple[float, ...], cell: Reading, *counts: int) -> None:
            with self.job.lock:
                self._cells[at] = cell
            tell()

        own = {"checkpoints": self.checkpoints}
        found = evaluate(plane, self.coarse, *asked, on_cell=keep, **own, **options)
        self._marks = dict(found.marks) or self._marks
        evaluate(plane, fine, *asked, on_cell=keep, budget=fine.size, **options)
        if isinstance(cut, tuple):
            ends = (plane.points[name].at for name in cut)
            with closing(measure_way(plane, *asked, *ends, **options)) as way:
                for at, reading in way:
                    with self.job.lock:
                        self._ways.setdefault(cut, {})[at] = reading
                    tell()
        tell()

    # --- what is shown --------------------------------------------------------------------------

    def compute(self) -> dict:
        """Return what is on screen: map, cut and cliffs, and the cell that is looked at."""
        return self.at(self.looked_at, self.pointed)

    def at(self, cell: Index, pointed: Index | None = None) -> dict:
        """Return `data` with this cell chosen, and perhaps another one under the pointer."""
        landscape, line = self.landscape, self.line(cell)
        cut = cut_through(landscape, *line, way=self.way, label=self.label(cell))
        return {
            "figure": self.figure,
            **map_data(landscape.to_dict(), self.trajectories, cut=cut),
            "points": {n: asdict(p) for n, p in self.plane.points.items()},
            "here": self._here(landscape, cut, pointed or cell),
            "cliffs": self._cliffs(landscape, cut, line),
            "measured": [len(landscape.cells), landscape.grid.size],
        }

    def _here(self, landscape: Landscape, cut: dict, index: Index) -> dict:
        """Return the cell that is looked at, with its answer to the example prompt."""
        cell, at = landscape.cells.get(index), list(landscape.grid.at(index))
        place = cut["places"][cut["at"].index(at)] if at in cut["at"] else None
        answer = prompt = None
        if cell and cell.answers:
            i = landscape.telling_prompt
            prompt, answer = landscape.prompts[i], cell.answers[i]
        return {"index": list(index), "at": at, "place": place,
                **{n: cell and getattr(cell, n) for n in ("value", "low", "high")},
                "n": cell and len(cell.per_prompt), "prompt": prompt, "answer": answer}  # fmt: skip

    def _cliffs(self, landscape: Landscape, cut: dict, line: tuple) -> list[dict]:
        """Return the cliffs on both sides of the cut's start, and of every model's cell that way.

        Of each: name, at (where it starts), value (with its interval, None where it is not
        measured), distance (of a model from the plane), ahead and behind (cliffs as
        `landscape.cut_through` has them).
        """
        value = None
        if 0.0 in cut["places"]:
            value = [cut[n][cut["places"].index(0.0)] for n in ("value", "low", "high")]
        name = " → ".join(self.cut) if isinstance(self.cut, tuple) else "this cell"
        start = {"name": name, "at": cut["start"], "value": value, "distance": None}
        rows = [start | cut["cliffs"]]
        for model, point in self.plane.points.items():
            at = landscape.grid.at(nearest_cell(landscape.grid, point.at))
            toward = [x + end - start for x, start, end in zip(at, *line, strict=True)]
            mark = landscape.marks.get(model)
            reading = mark and (mark.own or mark.cell)
            value = reading and [reading.value, reading.low, reading.high]
            about = {"name": model, "at": list(at), "value": value, "distance": point.distance}
            rows.append(about | cut_through(landscape, at, toward)["cliffs"])
        return rows

    # --- what is saved --------------------------------------------------------------------------

    def figure_data(self) -> dict:
        """Return the data of the map or of the surface, with the cut, as measured so far.

        Raises
        ------
        ValueError
            If nothing has been measured.
        """
        if not self.data["measured"][0]:
            raise ValueError("nothing is measured on this plane yet: press Run.")
        return {name: value for name, value in self.data.items() if name not in SCREEN}

    @property
    def gaps(self) -> str:
        """How much of the figure is not measured."""
        done, total = self.data["measured"]
        return f"; {total - done} of {total} cells are not measured: press Run" * (done < total)

    @property
    def figure_name(self) -> str:
        """What a figure of this is called."""
        return f"{self.figure.replace('_', '-')}-{'x'.join(map(str, self.grid.shape))}"

    def code(self) -> str:
        """Return the calls: the grid measured, the cut and its cliffs, the figure.

        They read the plane from a file, since its models may be in memory alone.
        """
        landscape, coarse = self.landscape, self.coarse.size
        budget = max(len(landscape.cells), coarse) if landscape.cells else landscape.grid.size
        paths = {n: str(c) for n, c in self.checkpoints.items() if isinstance(c, str | Path)}
        left_out = [n for n in self.checkpoints if n not in paths]
        note = f"  # in the panel also, from memory: {', '.join(left_out)}" if left_out else ""
        start, toward, way, measured = *self.line(self.looked_at), "", ""
        if isinstance(self.cut, tuple):
            start, toward = (f"plane.points[{name!r}].at" for name in self.cut)
            if self.way:
                measured = "way = dict(measure_way(plane, metric, model, start, toward))\n"
                way = "way=way, "
        return script(f"""# written by plane.save({PLANE_FILE!r})
plane = Plane.load({PLANE_FILE!r})
model = load_model({self.model.name!r})
metric = {metric_call(self.metric)}
grid = {landscape.grid!r}
checkpoints = {paths!r}{note}
landscape = evaluate(
    plane, grid, metric, model, checkpoints=checkpoints, budget={budget}
)
start, toward = {start}, {toward}
{measured}cut = cut_through(landscape, start, toward, {way}label={self.label(self.looked_at)!r})
print(cut["cliffs"])
ways = {self.trajectories!r}
data = {{"figure": {self.figure!r}, **figures.map_data(landscape.to_dict(), ways, cut=cut)}}
figures.save_figure(data, {self.figure_name!r})
""")


def _world_metric(model: Model) -> Asr:
    """Return what a built-in world's model is measured on when nothing else is said."""
    asked = Questions.default(model, FEW)
    if not asked.forbidden:
        raise ValueError(
            f"{model.name}: no metric: give the panel one, metric=Asr(prompts, judge) or "
            "metric=RefusalMargin(prompts)."
        )
    return Asr(asked.forbidden, asked.judge, max_new_tokens=LANDSCAPE_TOKENS)
