"""Verbs of the safety subspace: check, factor, spectrum, apply, adapter, control, extrapolate."""

from __future__ import annotations

import dataclasses
import json

import click

from lox_kit import extrapolation, figures, models, weights

from . import options
from .progress import print_rows, say, stages
from .values import COUNT, PATH, NumberOr

MOST_ROWS = 40  # of the matrices, listed one by one without being asked to
share_option = click.option(
    "-k",
    "k",
    type=NumberOr("all", share=True),
    help="Directions, 'all', or such as 90%: of each matrix as many as hold that much energy.",
)
k_option = click.option("-k", "k", type=NumberOr("all"), help="Directions, or 'all'.")
edit_options = options.several(
    options.out,
    click.option("--alpha", type=float, help="Extrapolation factor. [default: 1.0]"),
    click.option("--paper", is_flag=True, help="The paper's k=6, alpha=1.25."),
)
pair = options.several(click.argument("base"), click.argument("aligned"))
subspace_and_edit = options.several(
    click.argument("subspace", type=PATH), click.argument("aligned"), edit_options
)
factoring = options.several(options.include, options.exclude, options.device, options.seed)


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
    return None if k == "all" else k, 1.0 if alpha is None else alpha


def _shown(k, alpha):
    """Return k and alpha for people."""
    shown = (
        f"{100 * k:g}% of the energy" if isinstance(k, float) else f"k={'all' if k is None else k}"
    )
    return f"{shown}, alpha={alpha:g}"


def _directions(subspace, k):
    """Return the subspace and its k: of a share of energy, cut to it and all that is left."""
    found = extrapolation.SafetySubspace.load(subspace)
    if isinstance(k, float):
        return found.cut(extrapolation.k_of_energy(found, k)), None
    return found, k


@click.command()
@pair
@options.include
@options.exclude
@options.as_json
def check(base, aligned, include, exclude, as_json):
    """Warn of what would stop or surprise you, before the slow work starts."""
    both = weights.Checkpoint(base), weights.Checkpoint(aligned)
    report = weights.check_pair(*both, include=include, exclude=exclude)
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
@pair
@options.out
@click.option("--rank", type=NumberOr("full"), default=64, help="Directions, or 'full'.")
@click.option("--certify", default=16, help="Leading directions that must be certified.")
@factoring
def factor(base, aligned, out, rank, **options):
    """Factor the safety subspace of a pair into one file.

    Streams both checkpoints matrix by matrix; no model is loaded.
    """
    how = {"rank": rank, "device": models.pick_device(), **options}
    with stages() as on_stage:
        subspace = extrapolation.SafetySubspace.from_pair(
            base, aligned, out, on_stage=on_stage, **how
        )
    size = out.stat().st_size / 1e6
    say(f"{out}: {len(subspace)} matrices, rank {rank}, {size:.1f} MB")


@click.command()
@click.argument("subspace", type=PATH)
@click.option("-k", "k", type=int, default=6, help="Energy in the top k.")
@click.option("--all", "list_all", is_flag=True, help="List every matrix, however many there are.")
@click.option("--rules", is_flag=True, help="Show which k each rule chooses without a judge.")
@click.option("--plot", type=PATH, help="Draw it: a .png, .pdf or .svg.")
@click.option("--tokens", metavar="MATRIX", help="What its directions say: tokens at both ends.")
@click.option("--directions", type=COUNT, default=3, help="So many, for --tokens.")
@click.option("--aligned", help="Where ALIGNED is, for --tokens.  [default: where it was]")
@options.as_json
def spectrum(subspace, k, list_all, rules, plot, tokens, directions, aligned, as_json):
    """Show singular values, energy and how each matrix was decomposed; and each kind of matrix.

    --tokens shows which tokens the singular directions of one matrix read from the residual stream
    (q, k, v, gate, up) or write to it (o, down), through the embedding and the unembedding.
    --rules shows the k of the noise edge, the largest gap, 90 % of the energy, Gavish and Donoho's
    threshold, and the stable and entropy rank; none of them knows of safety.
    """
    found = extrapolation.SafetySubspace.load(subspace)
    if tokens:
        _print_tokens(found, tokens, directions, aligned, as_json)
        return
    if rules:
        _print_rules(found, list_all, as_json)
        return
    frame = found.to_frame().assign(**{f"energy_{k}": found.energy(k)})
    if plot:
        figures.draw(extrapolation.spectrum_data(found), plot)
    if as_json:
        say(frame.to_json(orient="records"))
        return
    title = f"{found.info['aligned']} - {found.info['base']}"
    if list_all or len(frame) <= MOST_ROWS:
        print_rows(title, (_matrix_row(row, k) for row in frame.to_dict("records")))
        say("noise: the edge of pure noise of this norm; sure: certified of stored directions")
    kinds = extrapolation.kind_summary(found, k).to_dict("records")
    print_rows(f"{title}, by kind of matrix", (_kind_row(row, k) for row in kinds))
    say(f"of |dW|^2: share of the whole; energy {k} and directions above noise: medians")
    if not list_all and len(frame) > MOST_ROWS:
        say(f"--all lists the {len(frame)} matrices")


def _print_rules(subspace, list_all, as_json):
    """Print the k that each rule chooses: of every matrix, or medians of each kind if many."""
    frame = extrapolation.rank_rules(subspace)
    if as_json:
        say(frame.to_json(orient="records"))
        return
    shown, unknown = frame.drop(columns=["stored", "whole"]), int((~frame["whole"]).sum())
    if list_all or len(frame) <= MOST_ROWS:
        shown["layer"] = shown["layer"].map(_short)
    else:
        kinds = shown["layer"].map(extrapolation.module_of)
        shown = shown.assign(layer=kinds).groupby("layer", sort=False).median().reset_index()
    print_rows("k by rule", shown.to_dict("records"))
    if unknown:
        say(f"nan: the directions stored of {unknown} matrices do not tell; use --rank full")


def _print_tokens(subspace, matrix, directions, aligned, as_json):
    """Print what the directions of one matrix say."""
    name = next((n for n in subspace if matrix in (n, _short(n))), None)
    if name is None:
        raise ValueError(f"--tokens {matrix}: no such matrix; --all lists the {len(subspace)}.")
    aligned = aligned or subspace.info["aligned"]
    tokenizer = models.load_tokenizer(weights.Checkpoint(aligned))
    frame = extrapolation.direction_tokens(
        subspace, name, tokenizer, aligned=aligned, directions=directions
    )
    if as_json:
        say(frame.to_json(orient="records"))
        return
    shown = frame.assign(tokens=frame["tokens"].map(" ".join))
    print_rows(f"{name}: the tokens of its directions", shown.to_dict("records"))
    say("peak: the strongest token, in sd over the vocabulary; chance: one random direction in 20")
    say("the signs of a direction are arbitrary: + and - are its two ends")


def _short(name):
    """Return a matrix's name as the table has it."""
    return name.removeprefix("model.").removesuffix(".weight")


def _matrix_row(row, k):
    """Return what is shown of one matrix."""
    return {
        "matrix": _short(row["layer"]),
        "out x in": f"{row['out']}x{row['in']}",
        "s_1": row["s_1"],
        "noise": row["noise_edge"],
        "sure": f"{row['certified']}/{row['rank']}",
        "method": row["method"],
        f"energy {k}": row[f"energy_{k}"],
    }


def _kind_row(row, k):
    """Return what is shown of one kind of matrix."""
    return {
        "kind": row["kind"],
        "matrices": row["matrices"],
        "of |dW|^2": row["share"],
        f"energy {k}": row["energy"],
        "above noise": f"{row['above_noise']:g}/{row['rank']:g}",
    }


@click.command()
@subspace_and_edit
@share_option
def apply(subspace, aligned, out, **edit):
    """Write the extrapolated model as a full checkpoint."""
    k, alpha = _k_alpha(**edit)
    with stages() as on_stage:
        found, top = _directions(subspace, k)
        extrapolation.apply_lox(found, aligned, out, top, alpha, on_stage=on_stage)
    say(f"{out}: {aligned} with LoX, {_shown(k, alpha)}")


@click.command()
@click.argument("kind")
@subspace_and_edit
@k_option
@options.seed
def control(kind, subspace, aligned, out, seed, **edit):
    """Write a control: a checkpoint to attack beside LoX's, as far from ALIGNED.

    As far in every matrix: random, random directions with LoX's singular values; full, the whole
    delta, shrunk; bottom, the last k directions stored, lengthened; middle, the k after the top k,
    lengthened; shuffled, each matrix with another layer's step. As far over all matrices together:
    kind:up_proj, LoX on one kind of matrix; layers:0-9, on a range of layers. It is marked as a
    control, and `lox adapter` and `lox apply` refuse it.
    """
    k, alpha = _k_alpha(**edit)
    if k is None:
        raise ValueError("-k all: a control steps as far as LoX's top k does; say which, -k 6.")
    with stages() as on_stage:
        found = extrapolation.SafetySubspace.load(subspace)
        made = extrapolation.control_of(kind, found, k, seed)
        extrapolation.apply_lox(made, aligned, out, None, alpha, control=True, on_stage=on_stage)
    say(f"{out}: {aligned} with the control {kind}, {_shown(k, alpha)}")


@click.command()
@pair
@edit_options
@k_option
@click.option("--factors", type=PATH, help="Keep the factors in this file.")
@click.option("--rank", type=NumberOr("full"), help="Directions to factor. [default: -k]")
@factoring
def extrapolate(base, aligned, out, k, alpha, paper, **options):
    """Factor and apply in one call: a full checkpoint, for a k that is known.

    To try several k, or to look at the spectrum, `lox factor` once.
    """
    k, alpha = _k_alpha(k, alpha, paper)
    device = models.pick_device()
    with stages() as on_stage:
        extrapolation.extrapolate(
            base, aligned, out, k, alpha, device=device, on_stage=on_stage, **options
        )
    say(f"{out}: {aligned} with LoX, {_shown(k, alpha)}")


@click.command()
@subspace_and_edit
@share_option
@click.option("--dtype", default="float32", show_default=True, help="Of the adapter's tensors.")
@click.option("--allow-partial", is_flag=True, help="Even if it leaves out over 1 % of the edit.")
def adapter(subspace, aligned, out, dtype, allow_partial, **edit):
    """Write the extrapolation as a PEFT adapter of ALIGNED.

    If ALIGNED is an adapter itself, of its base, and with what it adds.
    """
    k, alpha = _k_alpha(**edit)
    found, top = _directions(subspace, k)
    left_out = extrapolation.save_adapter(
        found, aligned, out, top, alpha, dtype=dtype, allow_partial=allow_partial
    )
    say(f"{out}: adapter of {aligned}, {_shown(k, alpha)}")
    if left_out:
        say(
            f"left out (tied, unchanged, or nothing PEFT can adapt): {', '.join(left_out)}. "
            "`lox apply` edits tied ones too."
        )
