"""Verbs of the safety subspace: check, factor, spectrum, apply, adapter, extrapolate."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import as_json, device, exclude, include, out_option, say, whole


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
    kept = None if k == "all" else whole("-k", k, "a whole number, or 'all'")
    return kept, 1.0 if alpha is None else alpha


def _rank(text):
    """Return how many directions are factored, from the option."""
    return text if text == "full" else whole("--rank", text, "a whole number, or 'full'")


def _shown(k):
    """Return k for people."""
    return f"k={'all' if k is None else k}"


@click.command()
@click.argument("base")
@click.argument("aligned")
@include
@exclude
@as_json
def check(base, aligned, include, exclude, as_json):
    """Say what would stop or surprise you, before anything slow."""
    import dataclasses

    from lox_kit.weights import Checkpoint, check_pair

    report = check_pair(Checkpoint(base), Checkpoint(aligned), include=include, exclude=exclude)
    if as_json:
        say(json.dumps(dataclasses.asdict(report)))
        return
    say(
        f"{len(report.matrices)} matrices to factor, the largest {report.largest_mb:.1f} MB in "
        f"float32; the aligned checkpoint is {report.total_mb:.1f} MB."
    )
    for note in report.notes or ["Nothing surprising."]:
        say(f"- {note}")


@click.command()
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
    from lox_kit.extrapolation import SafetySubspace
    from lox_kit.models import pick_device

    from .progress import stages

    with stages() as on_stage:
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
            on_stage=on_stage,
        )
    size = out.stat().st_size / 1e6
    say(f"{out}: {len(subspace)} matrices, rank {rank}, {size:.1f} MB")


@click.command()
@click.argument("subspace", type=click.Path(path_type=Path))
@click.option("-k", "k", type=int, default=6, show_default=True, help="Energy in the top k.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw it: a .png, .pdf or .svg.")
@as_json
def spectrum(subspace, k, plot, as_json):
    """Show singular values, energy and how each matrix was decomposed."""
    from lox_kit.extrapolation import SafetySubspace

    found = SafetySubspace.load(subspace)
    frame = found.to_frame().assign(**{f"energy_{k}": found.energy(k)})
    if plot:
        from lox_kit.extrapolation import spectrum_data
        from lox_kit.figures import draw

        draw(spectrum_data(found), plot)
    if as_json:
        say(frame.to_json(orient="records"))
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
    say("noise: the edge of pure noise of this norm; sure: certified of stored directions")


@click.command()
@click.argument("subspace", type=click.Path(path_type=Path))
@click.argument("aligned")
@_edit_options
def apply(subspace, aligned, out, k, alpha, paper):
    """Write the extrapolated model as a full checkpoint."""
    k, alpha = _k_alpha(k, alpha, paper)
    from lox_kit.extrapolation import SafetySubspace, apply_lox

    from .progress import stages

    with stages() as on_stage:
        apply_lox(SafetySubspace.load(subspace), aligned, out, k, alpha, on_stage=on_stage)
    say(f"{out}: {aligned} with LoX, {_shown(k)}, alpha={alpha:g}")


@click.command()
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
    """Factor and apply in one call: a full checkpoint, for a k that is known.

    To try several k, or to look at the spectrum, `lox factor` once. Cut off, the same call goes on
    where it was.
    """
    k, alpha = _k_alpha(k, alpha, paper)
    from lox_kit.extrapolation import extrapolate as write
    from lox_kit.models import pick_device

    from .progress import stages

    with stages() as on_stage:
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
            on_stage=on_stage,
        )
    say(f"{out}: {aligned} with LoX, {_shown(k)}, alpha={alpha:g}")


@click.command()
@click.argument("subspace", type=click.Path(path_type=Path))
@click.argument("aligned")
@_edit_options
def adapter(subspace, aligned, out, k, alpha, paper):
    """Write the extrapolation as a PEFT adapter of ALIGNED."""
    k, alpha = _k_alpha(k, alpha, paper)
    from lox_kit.extrapolation import SafetySubspace, save_adapter

    left_out = save_adapter(SafetySubspace.load(subspace), aligned, out, k, alpha)
    say(f"{out}: adapter of {aligned}, {_shown(k)}, alpha={alpha:g}")
    if left_out:
        say(
            f"left out (tied, unchanged, or nothing PEFT can adapt): {', '.join(left_out)}. "
            "`lox apply` edits tied ones too."
        )
