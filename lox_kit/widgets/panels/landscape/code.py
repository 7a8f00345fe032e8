"""Calls that reproduce what the landscape viewer shows, as text to copy into a script."""

from __future__ import annotations

from pathlib import Path

from lox_kit.landscape import Asr, RefusalMargin
from lox_kit.widgets.code import judge_name, prompts_call


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
    landscape = state.landscape
    paths = {n: str(c) for n, c in state.checkpoints.items() if isinstance(c, str | Path)}
    left_out = [n for n in state.checkpoints if n not in paths]
    note = f"  # in the panel also, from memory: {', '.join(left_out)}" if left_out else ""
    more, plane = state.plane_code
    names, metric = _metric(state)
    towards, line = _line(state)
    imports = {
        "lox_kit": ["load_model", "figures", *names, *more.get("lox_kit", [])],
        "lox_kit.figures": ["map_data"],
        "lox_kit.landscape": [
            *("Axis", "Grid", "Plane", type(state.metric).__name__),
            *("cut_data", "cut_through", towards, "evaluate"),
            *more.get("lox_kit.landscape", []),
        ],
        "lox_kit.models": ["Prompt"],
    }
    lines = (f"from {m} import {', '.join(sorted(n))}" for m, n in imports.items() if n)
    return (
        "\n".join(lines)
        + f"""

{plane}
model = load_model({getattr(state.model, "name", "")!r})
metric = {metric}
grid = {landscape.grid!r}
checkpoints = {paths!r}{note}
landscape = evaluate(
    plane, grid, metric, model, checkpoints=checkpoints, budget={_budget(state, landscape)}
)
{line}
cut = cut_data(cut_through(landscape, start, direction), metric.limits, {state.label!r})
print(cut["cliffs"])
ways = {state.trajectories!r}
data = {{"figure": {state.figure!r}, **map_data(landscape.to_dict(), ways, cut=cut)}}
figures.save_figure(data, {state.figure_name!r})
"""
    )


def _line(state) -> tuple[str, str]:
    """Return what is imported for the cut's direction, and the lines that say where it runs."""
    if state.between:
        ends = f"start, end = (plane.points[name].at for name in {state.between!r})"
        return "way", f"{ends}\ndirection = way(start, end)"
    return "heading", f"start, direction = {state.line[0]!r}, heading({state.angle:g})"


def _budget(state, landscape) -> int:
    """Return how many cells have been measured; the first pass at least, or all before any."""
    return max(len(landscape.cells), state.coarse.size) if landscape.cells else landscape.grid.size


def _metric(state) -> tuple[list[str], str]:
    """Return what else is imported, and the call that makes the metric."""
    metric = state.metric
    if not isinstance(metric, Asr | RefusalMargin):
        raise ValueError(f"{type(metric).__name__}: code is written for Asr and RefusalMargin.")
    names = ["sandbox_prompts"] * state.own_metric
    prompts = prompts_call("forbidden", metric.prompts, own=state.own_metric)
    judge = f", {judge_name(metric.by)!r}" if isinstance(metric, Asr) else ""
    rest = f", template={metric.template!r}, system={metric.system!r}"
    tokens = f", max_new_tokens={metric.max_new_tokens}"
    return names, f"{type(metric).__name__}({prompts}{judge}{rest}{tokens})"
