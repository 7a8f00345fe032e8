"""The verbs of figures: all of the paper's, and recorded ones drawn again."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lox_kit import figures, reports, studies, weights
from lox_kit.folders import reading, write_whole

from . import options
from .options import NAMES, NUMBERS, PATH
from .progress import say


@click.command("figures")
@click.option("--only", type=NAMES, help="Of 1 to 7, spectrum, table, controls.  [default: all]")
@click.option("--seeds", type=NUMBERS, help="[default: 0,1; of a pair of your own 0]")
@options.world
@options.with_paper
@options.limit
@options.workers
@click.option("-o", "--out", type=PATH, help="[default: figures/paper, of smol paper-smol]")
def all_figures(only, seeds, world, paper, limit, workers, out):
    """Draw the paper's figures (by number) and ours (by name) for the families of a world.

    1 the steps of LoX, 2 and 3 what attacks leave of the subspace, 4 along an attack, 5 k and
    alpha, 6 the landscape, 7 the ranks. 4, 6 and controls take the world's first attack, 2 and 5
    the first three; 5, 6 and spectrum the first seed. What is trained and measured is kept: the
    same call resumes.
    """
    own = weights.is_own(world)  # one pair, and no walks for figure 6
    only = only or [name for name in reports.FIGURES if not (own and name == "6")]
    seeds = seeds or ([0] if own else [0, 1])
    out = out or Path("figures", "paper" if world == "sandbox" else f"paper-{Path(world).stem}")
    with options.sharing(workers) as shared:
        how = {"world": world, "limit": limit, "paper": paper}
        reports.paper_figures(only, seeds, out, **how, **shared)
    say(f"figures and numbers: {out}")


@click.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("--width", help="Inches, or a venue: neurips, icml, acl ...")
@click.option("--style", default="paper", help="paper, talk, or the file of an mplstyle.")
@click.option("--kinds", type=NAMES, default="pdf,svg,png", help="Any of pdf, svg, png.")
@options.with_paper
@click.option("--latex", is_flag=True, help="Also a .tex with the table, for booktabs.")
@click.option("-o", "--out", type=PATH, help="Folder.  [default: that of the first]")
def plot(files, width, style, kinds, paper, latex, out):
    """Draw figures again from their .json, or several runs in one.

    One file is drawn again under its name. Several of one kind are laid over each other.
    """
    alike = len({file.stem for file in files}) < len(files)
    folders = [f"{file.resolve().parent.name}-" if alike else "" for file in files]
    names = [folder + file.stem for folder, file in zip(folders, files, strict=True)]
    if len(set(names)) < len(files):
        raise ValueError(f"{', '.join(names)}: runs are told apart by file and folder; rename one.")
    with reading(", ".join(map(str, files)), "cannot be drawn"):
        runs = {name: json.loads(file.read_text()) for name, file in zip(names, files, strict=True)}
        data, name = figures.overlay(runs), "+".join(runs)
        if paper and data["figure"] not in figures.PUBLISHED:
            raise ValueError(f"--with-paper: is for {', '.join(figures.PUBLISHED)}.")
        out = out or files[0].parent
        data = {"made": None, **data} if len(runs) == 1 else data  # None: not made by this run
        if paper or "paper" in data:
            data["paper"] = paper
        if latex and (data["figure"] not in ("attack_table", "defences") or len(runs) > 1):
            raise ValueError("--latex: takes the .json of one table of attacks.")
        made = figures.save_figure(data, name, out, width=width, style=style, kinds=kinds)
        if latex:
            table = studies.AttackTable(tuple(data["rows"]), data["source"])
            made.append(write_whole(out / f"{name}.tex", reports.latex_table(table)))
    say(*map(str, made))
