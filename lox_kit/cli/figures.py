"""The `lox plot` verb: recorded figures again, at another width, in another style, or together."""

from __future__ import annotations

import json

import click

from lox_kit import figures, reports, studies
from lox_kit.folders import write_whole

from .options import NAMES, PATH
from .progress import say


@click.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("--width", help="Inches, or a venue: neurips, icml, acl ...")
@click.option("--style", default="paper", help="paper, talk, or the file of an mplstyle.")
@click.option("--kinds", type=NAMES, default="pdf,svg,png", help="Of pdf,svg,png.")
@click.option("--latex", is_flag=True, help="Also a .tex with the table, for booktabs.")
@click.option("-o", "--out", type=PATH, help="Folder.  [default: that of the first]")
def plot(files, width, style, kinds, latex, out):
    """Draw figures again from their .json, or several runs in one.

    One file is drawn again under its name. Several of one kind are laid over each other.
    """
    alike = len({file.stem for file in files}) < len(files)
    names = [f"{file.parent.name}-{file.stem}" if alike else file.stem for file in files]
    runs = {name: json.loads(file.read_text()) for name, file in zip(names, files, strict=True)}
    data, name = figures.overlay(runs), "+".join(runs)
    out = out or files[0].parent
    if latex and ("k" not in data.get("source", {}) or len(runs) > 1):
        raise ValueError("--latex: takes the .json of one table of attacks.")
    made = figures.save_figure(data, name, out, width=width, style=style, kinds=kinds)
    if latex:
        table = studies.AttackTable(tuple(data["rows"]), data["source"])
        made.append(write_whole(out / f"{name}.tex", reports.latex_table(table)))
    say(*map(str, made))
