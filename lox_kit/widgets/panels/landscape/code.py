"""Calls that reproduce what the landscape viewer shows, as text to copy into a script."""

from __future__ import annotations

from pathlib import Path

from lox_kit.landscape import Asr, Flat, Metric, RefusalMargin
from lox_kit.weights import Checkpoint
from lox_kit.widgets.code import judge_name, pair_call, prompts_call, script

PLANE_FILE = "plane.safetensors"


def landscape_code(state) -> str:
    """Return the calls: the plane, the grid measured, the cut and its cliffs, the figure saved.

    Parameters
    ----------
    state : LandscapeState

    Raises
    ------
    ValueError
        If the metric is neither `Asr` nor `RefusalMargin`.
    """
    landscape, coarse = state.landscape, state.coarse.size
    budget = max(len(landscape.cells), coarse) if landscape.cells else landscape.grid.size
    paths = {n: str(c) for n, c in state.checkpoints.items() if isinstance(c, str | Path)}
    left_out = [n for n in state.checkpoints if n not in paths]
    note = f"  # in the panel also, from memory: {', '.join(left_out)}" if left_out else ""
    start, toward, way, measured = *state.line, "", ""
    if isinstance(state.cut, tuple):
        start, toward = (f"plane.points[{name!r}].at" for name in state.cut)
        if state.way:
            measured = "way = dict(measure_way(plane, metric, model, start, toward))\n"
            way = "way=way, "
    return script(f"""{state.plane_code}
model = load_model({state.model.name!r})
metric = {_metric(state.metric)}
grid = {landscape.grid!r}
checkpoints = {paths!r}{note}
landscape = evaluate(
    plane, grid, metric, model, checkpoints=checkpoints, budget={budget}
)
start, toward = {start}, {toward}
{measured}cut = cut_through(landscape, start, toward, {way}label={state.label!r})
print(cut["cliffs"])
ways = {state.trajectories!r}
data = {{"figure": {state.figure!r}, **figures.map_data(landscape.to_dict(), ways, cut=cut)}}
figures.save_figure(data, {state.figure_name!r})
""")


def _metric(metric: Metric) -> str:
    """Return the call that makes the metric."""
    if not isinstance(metric, Asr | RefusalMargin):
        raise ValueError(f"{type(metric).__name__}: code is written for Asr and RefusalMargin.")
    prompts = prompts_call("forbidden", metric.prompts)
    judge = f", {judge_name(metric.by)!r}" if isinstance(metric, Asr) else ""
    rest = f", template={metric.template!r}, system={metric.system!r}"
    tokens = f", max_new_tokens={metric.max_new_tokens}"
    return f"{type(metric).__name__}({prompts}{judge}{rest}{tokens})"


# --- the plane --------------------------------------------------------------------------------


def plane_code(plane: Flat) -> str:
    """Return the lines that make a plane again, from what it knows of how it was made.

    They name its checkpoints where each can be named and still has the weights that the plane was
    made from. A plane of models in memory is read from a file, which has to be saved first.
    """
    try:
        return f"plane = {_call(plane.made)}"
    except (LookupError, OSError, ValueError) as error:  # not known, not there, other weights
        why = " ".join(str(error).split())
        note = f"# no call makes this plane again ({why}): first, plane.save({PLANE_FILE!r})"
        return f"{note}\nplane = Plane.load({PLANE_FILE!r})"


def _call(made) -> str:
    """Return the call of a method of `Plane`; raise if it has none."""
    if made is None:
        raise LookupError("how it was made is not known")
    options = {n: v for n, v in made.items() if n not in ("method", "of")}
    parts = [_source(source) for source in made["of"]]
    parts += [f"{name}={value!r}" for name, value in options.items()]
    lines = "".join(f"    {part},\n" for part in parts)
    return f"Plane.{made['method']}(\n{lines})"


def _source(source) -> str:
    """Return one of the things a plane was made of."""
    if source is None:
        raise LookupError("a direction that does not know how it was made")
    function = source.get("function")
    if function is None:
        return _checkpoint(source["name"], source["key"])
    if function == "between":
        return f"between({_source(source['start'])}, {_source(source['end'])})"
    if function == "random_direction":
        model = _source(source["model"])
        return f"random_direction({model}, {source['seed']}, {source['normalise']!r})"
    if function == "lox_direction":
        info = source["subspace"]
        for name in ("base", "aligned"):
            _checkpoint(info[name], info[f"{name}_fingerprint"])
        return f"lox_direction({pair_call(info)}, {source['k']}, {source['alpha']})"
    raise LookupError(function)


def _checkpoint(name: str, key: str) -> str:
    """Return a checkpoint's name as Python; raise if it is not there or has other weights."""
    if Checkpoint(name).fingerprint != key:
        raise LookupError(f"{name}: other weights")
    return repr(str(name))
