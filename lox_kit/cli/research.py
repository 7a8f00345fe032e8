"""The `lox` verbs of research: k and alpha, the subspace, who gets past it, landscape, rank."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lox_kit import attacks, figures, landscape, measures, models, reports, studies
from lox_kit.folders import reading

from . import options
from .attacks import find_attack, given_only
from .progress import print_rows, say
from .values import COUNT, NAMES, NUMBERS, PATH, Commas, NumberOr

sweeping = options.several(
    options.asking,
    options.workers,
    options.limit,
    click.option("-o", "--out", default="figures/sweep", type=PATH),
)


@click.command()
@click.option(
    "-k", "ks", type=Commas(NumberOr("all")), default="1,2,6,16,all", help="Directions of LoX."
)
@click.option("--alphas", type=Commas(click.FLOAT), default="0.25,0.5,0.75,1,1.25,1.5")
@click.option(
    "--attacks", "names", type=NAMES, help="Or files.  [default: the world's first three]"
)
@click.option("--seeds", type=NUMBERS, default="0")
@click.option("--budget", type=COUNT, help="Settings in all, coarse to fine.")
@options.pair_or_world
@sweeping
def sweep(
    ks, alphas, names, seeds, budget, pair, world, prompts, allowed, workers, limit, out, **how
):
    """k x alpha before and after attacks, on development requests: the paper's Figure 5.

    Every entry is kept as it is finished: the same call resumes, and a larger --budget computes the
    difference. Writes sweep.json, for `lox choose`, .csv, .md, .png, .pdf and .svg.
    """
    here = models.world_of(pair[1]) if pair else world
    asked = options.asked_of(pair, here, prompts, allowed, split="dev", limit=limit, **how)
    names = names or attacks.world_attacks(here or "sandbox")[: studies.DEVELOPMENT]
    grid = [None if k == "all" else k for k in ks], alphas
    chosen = [find_attack(name, None) for name in names]
    made = {"budget": budget, "pair": pair or None, "world": world, "questions": asked}
    with options.sharing(workers) as shared:
        found = studies.sweep(*grid, chosen, seeds, **made, **shared)
    say(*reports.write_sweep(found, out).splitlines(), f"figure and numbers: {out}")


@click.command()
@click.argument("file", metavar="SWEEP.json", type=PATH)
@click.option("--loss", default=0.02, help="Help that may be lost, as a share of requests.")
@click.option("--report-attack", "name", metavar="NAME", help="Measure it on this attack as well.")
@click.option("--seeds", type=NUMBERS, default="0", help="For --report-attack.")
@sweeping
def choose(file, loss, name, seeds, prompts, allowed, workers, limit, out, **how):
    """The setting of a sweep for a stated loss of help: lowest ASR after its worst attack.

    With --report-attack it is measured beside the paper's setting and all directions, on that
    attack and on test requests (of a pair of your own: --prompts and --allowed), with paired tests.
    """
    table = studies.AttackTable.load(file)
    with reading(file, "no setting can be chosen"):
        choice, report = studies.choose(table, loss), None
    if name and choice.chosen:
        pair, world = table.source["sweep"]["pair"], table.source["sweep"]["world"]
        here = models.world_of(pair[1]) if pair else world
        asked = options.asked_of(pair, here, prompts, allowed, limit=limit, **how)
        with options.sharing(workers) as shared:
            attack = find_attack(name, None)
            report = studies.report_choice(choice, attack, seeds, questions=asked, **shared)
    say(*reports.write_choice(choice, out, report).splitlines(), f"figure and numbers: {out}")


@click.command()
@options.world
@click.option("--attacks", "names", type=NAMES, help="Default: all of the world's.")
@click.option("--seeds", type=NUMBERS, default="0", help="Such as 0,1,2,3.")
@click.option("-k", "k", default=6, help="Directions of the alignment.")
@options.device
@options.limit
@click.option("-o", "--out", default="figures", type=PATH)
def overlaps(world, names, seeds, k, limit, out):
    """Is the subspace about safety? How much of attacks, and of other alignments, lies in it.

    Each beside chance, by layer, and against the ASR that the attack gained. Every change is kept
    as it is finished; if it is interrupted, the same call resumes it.
    """
    names = names or attacks.world_attacks(world)
    asked = measures.world_questions(world, limit=limit)
    with options.working() as shared:
        found = studies.safety_overlaps(seeds, names, world=world, k=k, questions=asked, **shared)
    say(*reports.write_overlaps(found, out).splitlines(), f"figure and numbers: {out}")


@click.command()
@click.option("--attack", help="A benign one, which all build on.  [default: the world's first]")
@click.option("--seeds", type=NUMBERS, default="0")
@options.world
@click.option("-k", "k", default=6, help="LoX's directions.")
@click.option("--alpha", default=1.0, help="LoX's factor.")
@click.option("--only", "treatments", type=NAMES, help="Such as complement,ten rows.  [all]")
@click.option("--trials", default=0, help="Also search settings, with Optuna: so many.")
@click.option("--loss", default=0.05, help="Help and task that a trial may lose.")
@options.limit
@options.workers
@click.option("-o", "--out", default="figures/knowing", type=PATH)
def knowing(attack, workers, out, **how):
    """Attackers who know LoX, and Safe LoRA: the aligned model and LoX under each, in memory.

    They subtract the step (by pair, by recipe, by guess), train in its complement, or overfit ten
    rows; SECURITY.md says who needs which weights. No such model is written. Every entry is kept;
    the same call resumes. Writes attack_table.json, .csv, .md, .png, .pdf, .svg and knowing.md.
    """
    with options.sharing(workers) as shared:
        found = studies.knowing_attackers(attack, **given_only(**how), **shared)
    text = reports.write_knowing(found, out)
    reports.print_table(found)
    say(*text.splitlines(), f"figure and numbers: {out}")


@click.command()
@click.option("--attack", help="[default: the world's first]")
@click.option(
    "--arms",
    type=NAMES,
    default="random subspace,full delta,bottom,middle,shuffled",
    help="Beside aligned and LoX; also kind:MATRIX and layers:A-B.",
)
@click.option("--seeds", type=NUMBERS, default="0", help="Such as 0,1,2,3.")
@options.world
@click.option("-k", "k", default=6, help="LoX's directions; controls step as far.")
@click.option("--alpha", default=1.0, help="LoX's factor.")
@options.limit
@options.workers
@click.option("-o", "--out", default="figures/controls", type=PATH)
def controls(attack, arms, seeds, world, k, alpha, limit, workers, out):
    """Is it the subspace? LoX beside steps as long in other directions, before and after an attack.

    Paired tests over the requests of all seeds, adjusted by Holm's method. Every entry is kept as
    it is finished; if it is interrupted, the same call resumes it.
    """
    attack = attack or attacks.world_attacks(world)[0]
    how = {"world": world, "arms": ("aligned", "LoX", *arms), "limit": limit}
    with options.sharing(workers) as shared:
        found = studies.compare_defences(seeds, attack, k=k, alpha=alpha, **how, **shared)
    text = reports.write_controls(found, out)
    say(*text.splitlines(), f"figure and numbers: {out}")


@click.command("landscape")
@click.argument("checkpoints", nargs=-1, metavar="[ALIGNED LOX ATTACKED [ATTACKED_LOX]]")
@click.option(
    "--attacks", "names", type=NAMES, help="On a world instead: such as arithmetic,mixed."
)
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
@options.keep_on
@click.option("-o", "--out", type=PATH, help="[default: figures, of smol figures/smol]")
def measure_landscape(
    checkpoints, names, world, seeds, k, alpha, metric, prompts, limit, cells, budget, workers,
    keep_on, out, **asking,
):  # fmt: skip
    """Measure safety on a plane through weight space and draw it.

    With four models on the paper's plane, with three on the plane through them. With --attacks on
    a world: both models attacked, maps and surfaces, flatness numbers and their caption. Every cell
    is kept in the store as it is finished; if it is interrupted, the same call resumes it.
    """
    if bool(checkpoints) == bool(names) or len(checkpoints) not in (0, 3, 4):
        raise ValueError(
            "give ALIGNED LOX ATTACKED ATTACKED_LOX, or the first three, or --attacks without any."
        )
    if names and (prompts or asking["by"] or metric != "asr"):
        raise ValueError(
            "--prompts, --judge and --metric are for models of your own; --attacks measures the "
            "ASR of the world's requests by its judge."
        )
    out = out or Path("figures", "" if world == "sandbox" else world)
    with options.sharing(workers) as shared:
        shared |= {"budget": budget, "keep_on": keep_on}
        if names:
            made = {"k": k, "alpha": alpha, "world": world, "cells": cells, "limit": limit}
            files = reports.report(names, seeds, out, **made, **shared)
        else:
            asking["world"] = models.world_of(checkpoints[0]) or "sandbox"
            asked = options.requests("forbidden", prompts, limit, asking["world"])
            measured = _metric(metric, asked, min(budget or cells**2, cells**2), **asking)
            files = _draw_plane(checkpoints, out, cells, measured, **shared)
    for file in files:
        say(str(file))


def _draw_plane(checkpoints, out, cells, metric, *, keep_on, on_stage, **shared):
    """Measure and draw the landscape of checkpoints; return the files."""
    kind = landscape.Plane.from_models if len(checkpoints) == 4 else landscape.Plane.through
    plane = kind(*checkpoints)
    aligned = models.load_model(checkpoints[0])
    found = landscape.evaluate(
        plane if keep_on == "cpu" else plane.to(str(aligned.device)),
        landscape.Grid.around(plane, cells),
        metric,
        aligned,
        checkpoints=dict(zip(plane.points, checkpoints, strict=True)),
        keep_on=keep_on,
        on_cell=lambda at, cell, done, total: on_stage("cells", done, total),
        **shared,
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


@click.command()
@click.argument("base", required=False)
@click.argument("aligned", required=False)
@click.option("--seeds", type=NUMBERS, help="Sandbox families instead of a pair: 0,1,2,3.")
@click.option("--ranks", type=NUMBERS, default="0,1,2,3,4,6,8", help="0 is the base.")
@options.prompts
@options.allowed
@options.judging
@options.template
@options.limit
@click.option("-o", "--out", type=PATH, help="Folder for the figure and its numbers.")
@options.device
@options.as_json
def rank(base, aligned, seeds, ranks, prompts, allowed, template, limit, out, as_json, **judging):
    """Measure how many directions make BASE as safe as ALIGNED: the paper's effective rank.

    ASR of W_base + Proj_r(dW_align) by r; the safety rank is the smallest r whose ASR is within .01
    of the aligned model's. Beside it, the share of allowed requests that are helped with. A pair is
    asked --prompts and --allowed, sandbox families their own.
    """
    if (seeds is None) == (aligned is None):
        raise ValueError("name a pair, BASE ALIGNED, or sandbox families, --seeds 0,1.")
    with options.working() as shared:
        shared["ranks"] = ranks
        if seeds is None:
            world = models.world_of(aligned) or "sandbox"
            own, files = None if prompts else world, {"forbidden": prompts, "allowed": allowed}
            asked = [options.requests(kind, file, limit, own) for kind, file in files.items()]
            n = (len(ranks) + 1) * len(asked[0])  # the aligned model answers as well
            judge = options.one_judge(n, world=world, **judging)
            questions = measures.Questions(*asked, judge, template, 60)
            curve = studies.rank_curve(base, aligned, questions, **shared)
        elif base or prompts or allowed or judging["by"] or template != "chat":
            raise ValueError("--seeds asks the sandbox families' own prompts, judged by the rule.")
        else:
            curve = studies.world_rank_curve(seeds, limit=limit, **shared)
    if as_json:
        say(json.dumps(curve.to_dict()))
    else:
        _print_curve(curve)
    if out:  # after the numbers, which it cannot take away
        figures.save_figure({"figure": "rank_curve", **curve.to_dict()}, "rank_curve", out)


def _print_curve(curve):
    """Print ASR and helpfulness by r, one column per pair, and the safety ranks."""
    ordered = sorted(curve.rows, key=lambda row: (row["r"] is None, row["r"]))
    for measure, word in (("asr", "ASR"), ("helpfulness", "helpfulness")):
        table = {}
        for row in ordered:
            if share := row["measures"].get(measure):
                r = "aligned" if row["r"] is None else str(row["r"])
                shown = f"{share['value']:.2f} [{share['low']:.2f}, {share['high']:.2f}]"
                table.setdefault(r, {"r": r})[row["pair"]] = shown
        if table:
            print_rows(f"{word} by r, 95 % intervals", table.values())
        else:
            say(f"{word}: not measured (--allowed FILE); what looks safe may be broken")
    for pair in curve.pairs:
        found = curve.safety_rank(pair)
        shown = "above those measured" if found is None else found
        say(f"{pair}: safety rank {shown}")
    say("norms and biases at r >= 1: those of the aligned model")
