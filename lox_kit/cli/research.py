"""The `lox` verbs that test what the subspace is."""

from __future__ import annotations

import click

from lox_kit import attacks, measures, reports, studies

from . import options
from .options import NAMES, NUMBERS, PATH
from .progress import say

WORLD = click.Choice(list(measures.WORLDS))


@click.command()
@click.option("--world", type=WORLD, default="sandbox")
@click.option("--attacks", "names", type=NAMES, help="Default: all of the world's.")
@click.option("--seeds", type=NUMBERS, default="0", help="Such as 0,1,2,3.")
@click.option("-k", "k", default=6, help="Directions of the alignment.")
@options.limit
@click.option("-o", "--out", default="figures", type=PATH)
@click.pass_obj
def overlaps(store, world, names, seeds, k, limit, out):
    """Is the subspace about safety? How much of attacks, and of other alignments, lies in it.

    Each beside chance, by layer, and against the ASR that the attack gained. Every change is kept
    as it is finished; if it is interrupted, the same call resumes it.
    """
    names = names or attacks.world_attacks(world)
    asked = measures.world_questions(world, limit=limit)
    with options.working(store) as shared:
        found = studies.safety_overlaps(seeds, names, world=world, k=k, questions=asked, **shared)
    say(*reports.write_overlaps(found, out).rstrip().split("\n"), f"figure and numbers: {out}")
