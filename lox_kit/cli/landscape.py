"""The `lox landscape` verb."""

from __future__ import annotations

from pathlib import Path

import click

from lox_kit import figures, landscape, models, reports

from . import options
from .options import COUNT, NAMES, NUMBERS, PATH
from .progress import say


@click.command("landscape")
@click.argument("checkpoints", nargs=-1, metavar="[ALIGNED LOX ATTACKED [ATTACKED_LOX]]")
@click.option("--attacks", type=NAMES, help="On a world instead: such as arithmetic,mixed.")
@options.world
@click.option("--seeds", type=NUMBERS, default="0", help="Of the world, such as 0,3.")
@click.option("-k", "k", default=6, help="LoX's directions, on a world.")
@click.option("--alpha", default=1.0, help="LoX's factor, on a world.")
@click.option("--metric", type=click.Choice(["asr", "margin", "loss"]), default="asr")
@options.prompts
@options.judging
@options.template
@options.max_new_tokens
@click.option("--limit", type=COUNT, default=96, help="Prompts.")
@click.option("--cells", type=click.IntRange(2), default=21, help="A side.")
@click.option("--budget", type=COUNT, help="Cells in all, coarse to fine.")
@options.workers
@options.device
@click.option("-o", "--out", type=PATH, help="[default: figures, of smol figures/smol]")
def measure_landscape(
    checkpoints, attacks, world, seeds, k, alpha, metric, prompts, limit, cells, budget, workers,
    out, **asking,
):  # fmt: skip
    """Measure safety on a plane through weight space and draw it.

    With four models on the paper's plane, with three on the plane through them. With --attacks on
    a world: both models attacked, maps and surfaces, flatness numbers and their caption. Every cell
    is kept in the store as it is finished; if it is interrupted, the same call resumes it.
    """
    if bool(checkpoints) == bool(attacks) or len(checkpoints) not in (0, 3, 4):
        raise ValueError(
            "give ALIGNED LOX ATTACKED ATTACKED_LOX, or the first three, or --attacks without any."
        )
    if attacks and (prompts or asking["by"] or metric != "asr"):
        raise ValueError(
            "--prompts, --judge and --metric are for models of your own; --attacks measures the "
            "ASR of the world's requests by its judge."
        )
    out = out or Path("figures", "" if world == "sandbox" else world)
    with options.sharing(workers) as shared:
        shared["budget"] = budget
        if attacks:
            made = {"k": k, "alpha": alpha, "world": world, "cells": cells, "limit": limit}
            files = reports.report(attacks, seeds, out, **made, **shared)
        else:
            asking["world"] = models.world_of(checkpoints[0]) or "sandbox"
            asked = options.requests("forbidden", prompts, limit, asking["world"])
            files = _draw_plane(checkpoints, out, cells, metric, asked, **shared, **asking)
    for file in files:
        say(str(file))


def _draw_plane(
    checkpoints, out, cells, metric, asked, *, device, on_stage, store, executor, budget, **asking
):
    """Measure and draw the landscape of checkpoints; return the files."""
    metric = _metric(metric, asked, min(budget or cells**2, cells**2), **asking)
    kind = landscape.Plane.from_models if len(checkpoints) == 4 else landscape.Plane.through
    plane = kind(*checkpoints)
    aligned = models.load_model(checkpoints[0], device=device)
    found = landscape.evaluate(
        plane.to(str(aligned.device)),
        landscape.Grid.around(plane, cells),
        metric,
        aligned,
        checkpoints=dict(zip(plane.points, checkpoints, strict=True)),
        budget=budget,
        on_cell=lambda at, cell, done, total: on_stage("cells", done, total),
        store=store,
        executor=executor,
    )
    data = figures.map_data(found.to_dict())
    files = []
    for name in ("landscape_map", "landscape_3d"):
        files += figures.save_figure({"figure": name, **data}, name, out)
    return [*files, found.save(out / "landscape_cells.json")]


def _metric(metric, asked, cells, *, template, max_new_tokens, **judging):
    """Return the metric from the options."""
    how = {"template": template, "max_new_tokens": max_new_tokens}
    if metric == "asr":
        return landscape.Asr(asked, options.one_judge(cells * len(asked), **judging), **how)
    if judging["by"]:
        raise ValueError(f"--judge: the metric {metric} has no judge; leave it out.")
    if metric == "loss":
        return landscape.Loss(asked, template)
    return landscape.RefusalMargin(asked, **how)
