"""The `lox` command: one verb per capability, each importing what it needs when it is called."""

from __future__ import annotations

import atexit
import gc
import json
import sqlite3
import sys
import traceback
from pathlib import Path

import click

from . import __version__
from .cli_attacks import align, attack, data, table
from .cli_judging import asr, rank, rescore
from .cli_landscape import landscape
from .cli_options import as_json, device, exclude, include, out_option
from .cli_options import whole as _whole
from .cli_options import wholes as _wholes
from .cli_utility import utility

EPILOG = """
MODEL, BASE and ALIGNED are checkpoint folders (safetensors), hub ids (org/name,
org/name@revision), PEFT LoRA adapters (a folder, or BASE+ADAPTER), or names of the built-in
sandbox: sandbox/base, sandbox/aligned, sandbox/aligned@3 (seed 3).

\b
The whole story on the sandbox:
  lox check sandbox/base sandbox/aligned
  lox factor sandbox/base sandbox/aligned -o S.safetensors
  lox spectrum S.safetensors
  lox apply S.safetensors sandbox/aligned -o lox-model -k 6 --alpha 1
  lox attack arithmetic lox-model -o attacked
  lox asr attacked
  lox demo
"""


class Teaching(click.Group):
    """A group whose commands stand in the order in which one uses them."""

    def list_commands(self, ctx):
        return list(self.commands)


@click.group(cls=Teaching, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lox")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("--store", type=click.Path(path_type=Path), help="Folder of the results' store.")
@click.pass_context
def lox(ctx, debug, store):
    """Find the safety subspace of an aligned language model, push further along it (LoX), and
    measure what fine-tuning does to it.
    """
    ctx.obj = {"debug": debug, "store": store}


def _edit_options(command):
    """Add the options of a LoX edit."""
    for option in (
        click.option("--paper", is_flag=True, help="The paper's k=6, alpha=1.25."),
        click.option("--alpha", type=float, help="Extrapolation factor. [default: 1.0]"),
        click.option("-k", "k", help="Directions to push along, or 'all'; needed without --paper."),
        out_option,
    ):
        command = option(command)
    return command


def _k_alpha(k, alpha, paper):
    """Return k and alpha from the options; there is no k that fits every pair."""
    if paper:
        if k is not None or alpha is not None:
            raise ValueError("--paper sets k=6 and alpha=1.25; leave -k and --alpha out.")
        return 6, 1.25
    if k is None:
        raise ValueError(
            "say how many directions: -k 6, or --paper for the paper's k=6, alpha=1.25, tuned for "
            "Llama-2-7B. `lox spectrum` shows where the spectrum falls off."
        )
    kept = None if k == "all" else _whole("-k", k, "a whole number, or 'all'")
    return kept, 1.0 if alpha is None else alpha


def _rank(text):
    """Return how many directions are factored, from the option."""
    return text if text == "full" else _whole("--rank", text, "a whole number, or 'full'")


def _shown(k):
    """Return k for people."""
    return f"k={'all' if k is None else k}"


# --- the pair and its subspace ----------------------------------------------------------------


@lox.command()
@click.argument("base")
@click.argument("aligned")
@include
@exclude
@as_json
def check(base, aligned, include, exclude, as_json):
    """Say what would stop or surprise you, before anything slow."""
    import dataclasses

    from .checkpoint import Checkpoint, check_pair

    report = check_pair(Checkpoint(base), Checkpoint(aligned), include=include, exclude=exclude)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report)))
        return
    click.echo(
        f"{len(report.matrices)} matrices to factor, the largest {report.largest_mb:.1f} MB in "
        f"float32; the aligned checkpoint is {report.total_mb:.1f} MB."
    )
    for note in report.notes or ["Nothing surprising."]:
        click.echo(f"- {note}")


@lox.command()
@click.argument("base")
@click.argument("aligned")
@out_option
@click.option("--rank", default="64", show_default=True, help="Directions per matrix, or 'full'.")
@click.option("--spectrum", type=click.Choice(["top", "full"]), default="top", show_default=True)
@click.option("--certify", default=16, show_default=True, help="Directions that must converge.")
@include
@exclude
@device
@click.option("--seed", default=0, show_default=True)
def factor(base, aligned, out, rank, spectrum, certify, include, exclude, device, seed):
    """Factor the safety subspace of a pair into one file.

    Streams both checkpoints matrix by matrix; no model is loaded. Cut off, the same call goes on
    where it was.
    """
    from .models import pick_device
    from .progress import layers
    from .subspace import SafetySubspace

    with layers("factoring") as on_layer:
        subspace = SafetySubspace.from_pair(
            base,
            aligned,
            out,
            rank=_rank(rank),
            spectrum=spectrum,
            include=include,
            exclude=exclude,
            certify=certify,
            seed=seed,
            device=pick_device(device),
            on_layer=on_layer,
        )
    size = out.stat().st_size / 1e6
    click.echo(f"{out}: {len(subspace)} matrices, rank {rank}, {size:.1f} MB")


@lox.command()
@click.argument("subspace", type=click.Path(path_type=Path))
@click.option("-k", "k", type=int, default=6, show_default=True, help="Energy in the top k.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw it: a .png, .pdf or .svg.")
@as_json
def spectrum(subspace, k, plot, as_json):
    """Show singular values, energy and how each matrix was decomposed."""
    from .subspace import SafetySubspace

    found = SafetySubspace.load(subspace)
    frame = found.to_frame().assign(**{f"energy_{k}": found.energy(k)})
    if plot:
        from .plots import draw, spectrum_data

        draw(spectrum_data(found), plot)
    if as_json:
        click.echo(frame.to_json(orient="records"))
        return
    from .progress import print_frame

    short = frame[["s_1", "noise_edge", "method", f"energy_{k}"]].rename(
        columns={"noise_edge": "noise", f"energy_{k}": f"energy {k}"}
    )
    names = [n.removeprefix("model.").removesuffix(".weight") for n in frame["layer"]]
    short.insert(0, "matrix", names)
    short.insert(
        1, "out x in", [f"{o}x{i}" for o, i in zip(frame["out"], frame["in"], strict=True)]
    )
    short.insert(
        4, "sure", [f"{c}/{r}" for c, r in zip(frame.certified, frame["rank"], strict=True)]
    )
    print_frame(short, title=f"{found.info['aligned']} - {found.info['base']}")
    click.echo("noise: the edge of pure noise of this norm; sure: certified of stored directions")


@lox.command()
@click.argument("subspace", type=click.Path(path_type=Path))
@click.argument("aligned")
@_edit_options
def apply(subspace, aligned, out, k, alpha, paper):
    """Write the extrapolated model as a full checkpoint."""
    k, alpha = _k_alpha(k, alpha, paper)
    from .lox_checkpoint import apply_lox
    from .progress import layers
    from .subspace import SafetySubspace

    with layers("writing") as on_layer:
        apply_lox(SafetySubspace.load(subspace), aligned, out, k, alpha, on_layer=on_layer)
    click.echo(f"{out}: {aligned} with LoX, {_shown(k)}, alpha={alpha:g}")


@lox.command()
@click.argument("base")
@click.argument("aligned")
@_edit_options
@click.option("--factors", type=click.Path(path_type=Path), help="Keep the factors in this file.")
@click.option("--rank", help="Directions that are factored, or 'full'. [default: those of -k]")
@include
@exclude
@device
@click.option("--seed", default=0, show_default=True)
def extrapolate(base, aligned, out, k, alpha, paper, factors, rank, include, exclude, device, seed):
    """Factor and apply in one pass: a full checkpoint, for a k that is known.

    To try several k, or to look at the spectrum, `lox factor` once. Cut off, the same call goes on
    where it was.
    """
    k, alpha = _k_alpha(k, alpha, paper)
    from .lox_checkpoint import extrapolate as write
    from .models import pick_device
    from .progress import layers

    with layers("extrapolating") as on_layer:
        write(
            base,
            aligned,
            out,
            k,
            alpha,
            factors=factors,
            rank=_rank(rank) if rank else None,
            include=include,
            exclude=exclude,
            seed=seed,
            device=pick_device(device),
            on_layer=on_layer,
        )
    click.echo(f"{out}: {aligned} with LoX, {_shown(k)}, alpha={alpha:g}")


@lox.command()
@click.argument("subspace", type=click.Path(path_type=Path))
@click.argument("aligned")
@_edit_options
def adapter(subspace, aligned, out, k, alpha, paper):
    """Write the extrapolation as a PEFT adapter of ALIGNED."""
    k, alpha = _k_alpha(k, alpha, paper)
    from .adapter import save_adapter
    from .subspace import SafetySubspace

    left_out = save_adapter(SafetySubspace.load(subspace), aligned, out, k, alpha)
    click.echo(f"{out}: adapter of {aligned}, {_shown(k)}, alpha={alpha:g}")
    if left_out:
        click.echo(
            f"left out (tied, unchanged, or nothing PEFT can adapt): {', '.join(left_out)}. "
            "`lox apply` edits tied ones too."
        )


# --- attack and measure -----------------------------------------------------------------------


for verb in (data, align, attack, asr, rescore, utility, rank, table, landscape):
    lox.add_command(verb)


# --- the sandbox, the demo, the lab -----------------------------------------------------------


@lox.group()
def sandbox():
    """The family of tiny models in a made-up world."""


@sandbox.command("build")
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Default: the user's cache.")
def sandbox_build(seed, out):
    """Build base and aligned of one seed from scratch; minutes on a laptop CPU."""
    from .progress import stages
    from .sandbox.build import build

    with stages() as on_stage:
        folder = build(
            seed, out, on_step=lambda name, s: on_stage(f"building {name}", s.step, s.total)
        )
    click.echo(str(folder))


@lox.command()
@click.option("--seeds", default="0", show_default=True, help="Such as 0,1,2,3.")
@click.option(
    "--build", "from_scratch", is_flag=True, help="Build seed 0 instead of the committed."
)
@click.option(
    "-o", "--out", default="figures/demo", show_default=True, type=click.Path(path_type=Path)
)
@as_json
@click.pass_obj
def demo(obj, seeds, from_scratch, out, as_json):
    """The whole story on the sandbox: factor, LoX and controls, attack, measure, plot."""
    from .demo import run_demo

    wanted = _wholes("--seeds", seeds, "0,1,2")
    run_demo(wanted, out, from_scratch=from_scratch, store_folder=obj["store"], as_json=as_json)


@lox.command()
@click.argument("notebooks", default="notebooks", type=click.Path(path_type=Path))
def lab(notebooks):
    """Open JupyterLab on the notebooks."""
    import subprocess

    if not notebooks.is_dir():
        raise FileNotFoundError(f"{notebooks}: no such folder; run this in the repository's root.")
    command = [sys.executable, "-m", "jupyterlab", "--LabApp.news_url=None", str(notebooks)]
    raise SystemExit(subprocess.call(command))


def main() -> None:
    """Run the command; errors become one line and exit status 2."""
    atexit.register(gc.freeze)  # a program that ends need not look for garbage in all of torch
    try:
        status = lox.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        status = stop.exit_code
    except click.ClickException as error:
        error.show()
        status = 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("stopped; what was finished is kept.", err=True)
        status = 130
    except (ValueError, OSError, ImportError, RuntimeError, sqlite3.Error) as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        click.echo(f"lox: {error}", err=True)
        status = 2
    sys.exit(status or 0)
