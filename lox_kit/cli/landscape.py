"""The `lox landscape` verb."""

from __future__ import annotations

from pathlib import Path

import click

from .options import device, forbidden, judge_options, one_judge, say, wholes, worker_pool


@click.command()
@click.argument("models", nargs=-1, metavar="[ALIGNED LOX ATTACKED [ATTACKED_LOX]]")
@click.option("--attacks", help="On the sandbox instead: such as arithmetic,mixed.")
@click.option("--seeds", default="0", show_default=True, help="Of the sandbox, such as 0,3.")
@click.option("-k", "k", default=6, show_default=True, help="LoX's directions, on the sandbox.")
@click.option("--alpha", default=1.0, show_default=True, help="LoX's factor, on the sandbox.")
@click.option("--metric", type=click.Choice(["asr", "margin"]), default="asr", show_default=True)
@click.option("--prompts", type=click.Path(path_type=Path), help="CSV with goal (and target).")
@judge_options
@click.option("--template", default="chat", show_default=True, help="chat, paper or identity.")
@click.option("--max-new-tokens", default=60, show_default=True, help="The paper's is 60.")
@click.option("--limit", type=click.IntRange(1), default=96, show_default=True, help="Prompts.")
@click.option("--cells", type=click.IntRange(2), default=21, show_default=True, help="A side.")
@click.option("--budget", type=click.IntRange(1), help="Cells in all, coarse to fine.")
@click.option("--workers", default=1, show_default=True, help="Processes that share the cells.")
@device
@click.option("-o", "--out", default="figures", show_default=True, type=click.Path(path_type=Path))
@click.pass_obj
def landscape(obj, models, attacks, seeds, k, alpha, workers, out, **options):
    """Measure safety on a plane through weight space and draw it.

    With four models on the paper's plane, with three on the plane through them. With --attacks on
    the sandbox: both models attacked, maps and surfaces, flatness numbers and their caption. Every
    cell is kept in the store as it is finished; the same call goes on.
    """
    from lox_kit.store import Store

    from .progress import stages

    if bool(models) == bool(attacks) or len(models) not in (0, 3, 4):
        raise ValueError(
            "give ALIGNED LOX ATTACKED ATTACKED_LOX, or the first three, or --attacks without any."
        )
    with Store(obj["store"]) as store, stages() as on_stage, worker_pool(workers) as executor:
        shared = {"store": store, "executor": executor}
        if attacks:
            lox = {"seeds": seeds, "k": k, "alpha": alpha}
            files = _sandbox(attacks.split(","), out, on_stage, shared, **lox, **options)
        else:
            files = _models(models, out, on_stage, shared, **options)
    for file in files:
        say(str(file))


def _sandbox(attacks, out, on_stage, shared, *, seeds, k, alpha, cells, budget, limit, **rest):
    """Measure, draw and describe the sandbox's landscapes; return the files."""
    if rest["prompts"] or rest["judges"] or rest["metric"] != "asr":
        raise ValueError(
            "--prompts, --judge and --metric are for models of your own; --attacks measures the "
            "ASR of the sandbox's requests by its rule."
        )
    from lox_kit.reports import report

    wanted = wholes("--seeds", seeds, "0,3")
    shared = {**shared, "on_stage": on_stage, "limit": limit}
    return report(attacks, wanted, out, k=k, alpha=alpha, cells=cells, budget=budget, **shared)


def _models(models, out, on_stage, shared, *, metric, cells, budget, device, **asked):
    """Measure and draw the landscape of checkpoints; return the files."""
    from lox_kit.figures import map_data, save_figure
    from lox_kit.landscape import Grid, Plane, evaluate
    from lox_kit.models import load_model

    kind = Plane.from_models if len(models) == 4 else Plane.through
    plane = kind(*models)
    aligned = load_model(models[0], device=device)
    found = evaluate(
        plane.to(str(aligned.device)),
        Grid.around(plane, cells),
        _metric(metric, **asked),
        aligned,
        checkpoints=dict(zip(plane.points, models, strict=True)),
        budget=budget,
        on_cell=lambda cell, done, total: on_stage("cells", done, total),
        **shared,
    )
    data = map_data(found.to_dict())
    files = []
    for name in ("landscape_map", "landscape_3d"):
        files += save_figure({"figure": name, **data}, name, out)
    return [*files, found.save(out / "landscape_cells.json")]


def _metric(metric, *, prompts, judges, template, max_new_tokens, limit, **network):
    """Return the metric from the options."""
    from lox_kit.landscape import Asr, RefusalMargin

    asked = forbidden(prompts, limit)
    options = {"template": template, "max_new_tokens": max_new_tokens}
    if metric == "margin" and judges:
        raise ValueError("--judge: the refusal margin has no judge; leave it out.")
    if metric == "margin":
        return RefusalMargin(asked, **options)
    return Asr(asked, one_judge(judges, network), **options)
