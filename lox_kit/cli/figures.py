"""The verbs of figures: all of the paper's, and recorded ones drawn again."""

from __future__ import annotations

import json

import click

from lox_kit import figures, reports, studies
from lox_kit.folders import write_whole

from . import options
from .options import NAMES, NUMBERS, PATH
from .progress import say


@click.command("figures")
@click.option("--only", type=NAMES, default="1,2,3,4,5,6,7,spectrum,table,controls")
@click.option("--seeds", type=NUMBERS, default="0,1")
@options.world
@options.with_paper
@options.limit
@options.workers
@click.option("-o", "--out", default="figures/paper", type=PATH)
@click.pass_obj
def all_figures(store, only, seeds, world, paper, limit, workers, out):
    """The paper's figures by number, and ours by name, of a world's families.

    1 the steps of LoX, 2 and 3 what attacks leave of the subspace, 4 along an attack, 5 k and
    alpha, 6 the landscape (5 and 6 of the first seed alone), 7 the ranks. What is computed is kept:
    a call that was cut off resumes, and a second one only draws.
    """
    with options.working(store) as shared, options.worker_pool(workers) as executor:
        shared |= {"executor": executor, "limit": limit, "paper": paper}
        reports.paper_figures(only, seeds, out, world=world, **shared)
    say(f"figures and numbers: {out}")


@click.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("--width", help="Inches, or a venue: neurips, icml, acl ...")
@click.option("--style", default="paper", help="paper, talk, or the file of an mplstyle.")
@click.option("--kinds", type=NAMES, default="pdf,svg,png", help="Of pdf,svg,png.")
@options.with_paper
@click.option("--latex", is_flag=True, help="Also a .tex with the table, for booktabs.")
@click.option("-o", "--out", type=PATH, help="Folder.  [default: that of the first]")
def plot(files, width, style, kinds, paper, latex, out):
    """Draw figures again from their .json, or several runs in one.

    One file is drawn again under its name. Several of one kind are laid over each other.
    """
    alike = len({file.stem for file in files}) < len(files)
    names = [f"{file.parent.name}-{file.stem}" if alike else file.stem for file in files]
    runs = {name: json.loads(file.read_text()) for name, file in zip(names, files, strict=True)}
    data, name = figures.overlay(runs), "+".join(runs)
    out = out or files[0].parent
    data |= {"paper": True} if paper else {}
    if latex and ("k" not in data.get("source", {}) or len(runs) > 1):
        raise ValueError("--latex: takes the .json of one table of attacks.")
    made = figures.save_figure(data, name, out, width=width, style=style, kinds=kinds)
    if latex:
        table = studies.AttackTable(tuple(data["rows"]), data["source"])
        made.append(write_whole(out / f"{name}.tex", reports.latex_table(table)))
    say(*map(str, made))
