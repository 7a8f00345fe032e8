"""The `lox` verbs of training: attack, align, table, data."""

from __future__ import annotations

from pathlib import Path

import click

from .options import as_json, benign, device, forbidden, out_option, say, wholes, worker_pool

columns_option = click.option(
    "--columns",
    metavar="PART=COLUMN,...",
    help="Columns of your own file, such as instruction=question,response=answer.",
)
seed_option = click.option("--seed", default=0, show_default=True, help="Of rows and their order.")
rate_option = click.option(
    "--lr", "learning_rate", type=float, help="Learning rate; default the preset's."
)
steps_option = click.option(
    "--steps", "max_steps", type=click.IntRange(1), help="Optimiser steps; default the preset's."
)


def _columns(text):
    """Return the mapping that --columns gives."""
    if text is None:
        return None
    parts = [part.partition("=") for part in text.split(",")]
    if bad := [part for part, is_sign, column in parts if not (part and is_sign and column)]:
        raise ValueError(f"--columns {text}: {bad[0]!r} is not PART=COLUMN.")
    return {part.strip(): column.strip() for part, _, column in parts}


def _names(text):
    """Return names given as text with commas."""
    return tuple(name.strip() for name in text.split(",")) if text else ()


def _given(**options):
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


@click.command()
@click.argument("name", metavar="NAME")
@click.argument("model")
@out_option
@click.option("--lora", is_flag=True, help="PEFT LoRA instead of every parameter.")
@rate_option
@steps_option
@click.option("--epochs", type=float, help="Passes over the data; default the preset's.")
@click.option("--safe-fraction", default=0.0, help="Safety rows to mix in; SafeInst is 0.025.")
@click.option("--keep-every", type=click.IntRange(1), help="Keep a checkpoint every so many steps.")
@columns_option
@click.option("--form", default="chat", show_default=True, help="Training text of your own file.")
@seed_option
@device
def attack(name, model, out, keep_every, columns, form, device, lora, safe_fraction, **settings):
    """Fine-tune MODEL with the attack NAME and write the result.

    NAME is one of the published attacks (gsm8k, dolly, alpaca, identity, pure_bad; `lox data` says
    where their files belong), of the sandbox's (arithmetic, context, mixed, persona, forbidden), or
    a file of your own. Cut off, the same call goes on where it was.
    """
    from lox_kit.attacks import ATTACKS, file_attack, find_attack, run_attack
    from lox_kit.models import load_model

    from .progress import stages, stop_on_interrupt

    chosen = {"lora": lora, "safe_fraction": safe_fraction, **_given(**settings)}
    if name not in ATTACKS and Path(name).is_file():
        preset = file_attack(name, _columns(columns), form=form, **chosen)
    else:
        if name not in ATTACKS and Path(name).suffix:
            raise FileNotFoundError(f"{name}: no such file, and no attack of that name.")
        if columns is not None:
            raise ValueError(f"--columns are for a file of your own; {name} has its own.")
        preset = find_attack(name, **chosen)
    if out.exists():
        raise FileExistsError(f"{out} exists; remove it or choose another name.")
    victim = load_model(model, device=device)
    with stages() as on_stage, stop_on_interrupt() as stopped:
        run = run_attack(
            victim,
            preset,
            out,
            keep_every=keep_every,
            on_step=lambda s: on_stage(f"{name}, loss {s.loss:.3f}", s.step, s.total),
            stop=lambda step: stopped(),
        )
    if not run.finished:
        say(
            f"stopped after step {len(run.losses)} of {run.source['steps']}, kept in {run.folder}; "
            "the same call goes on.",
            err=True,
        )
        raise click.exceptions.Exit(130)
    say(f"{out}: {model} after {len(run.losses)} steps of {preset.name}")


@click.command()
@click.argument("name", metavar="NAME")
@click.argument("base")
@out_option
@click.option("--data", type=click.Path(path_type=Path), help="Preference pairs, or chat rows.")
@click.option("--skip-bad-rows", is_flag=True, help="Leave out rows that cannot be read, counted.")
@rate_option
@steps_option
@click.option("--lora", is_flag=True, help="PEFT LoRA of rank 8 instead of every parameter.")
@columns_option
@seed_option
@device
def align(name, base, out, data, skip_bad_rows, lora, columns, device, **settings):
    """Align BASE: make the model whose safety LoX extrapolates.

    NAME is dpo (the paper's settings; --data takes HH-RLHF files), sandbox-dpo or sandbox-sft.
    """
    from lox_kit.attacks import align, alignment_rows, find_alignment
    from lox_kit.models import load_model

    from .progress import stages

    preset = find_alignment(name, **_given(lora_rank=8 if lora else None, **settings))
    model = load_model(base, device=device)
    rows = None
    if data:
        on_bad_row = "skip" if skip_bad_rows else "raise"
        read = alignment_rows(data, preset, model, columns=_columns(columns), on_bad_row=on_bad_row)
        rows = list(read.rows)
        if read.skipped:
            say(f"{data}: {read.skipped} bad rows left out, {len(rows)} read", err=True)
    with stages() as on_stage:
        align(
            model,
            preset,
            out,
            rows=rows,
            on_step=lambda s: on_stage(f"{name}, loss {s.loss:.3f}", s.step, s.total),
        )
    say(f"{out}: {base} aligned by {name}; `lox factor {base} {out}` takes the pair")


@click.command()
@click.option("--attacks", help="Names with commas.  [default: the sandbox's five]")
@click.option("--arms", help="Of aligned,LoX,random subspace,full delta,SafeInst.  [default: all]")
@click.option("--seeds", default="0,1,2,3", show_default=True)
@click.option("--pair", nargs=2, metavar="BASE ALIGNED", help="A pair of your own.")
@click.option("--prompts", type=click.Path(path_type=Path), help="Forbidden requests for --pair.")
@click.option("--allowed", type=click.Path(path_type=Path), help="Allowed requests for --pair.")
@click.option("--judge", default="rule", show_default=True, help="Who judges, for --pair.")
@click.option("--template", default="chat", show_default=True, help="chat or paper, for --pair.")
@click.option("-k", "k", default=6, show_default=True, help="LoX's directions.")
@click.option("--alpha", default=1.0, show_default=True, help="LoX's factor.")
@click.option("--workers", default=1, show_default=True, help="Processes to share the entries.")
@click.option("--limit", type=click.IntRange(1), help="Only so many prompts of each kind.")
@click.option(
    "-o", "--out", default="figures/demo", show_default=True, type=click.Path(path_type=Path)
)
@as_json
@click.pass_obj
def table(obj, attacks, arms, seeds, k, alpha, workers, out, as_json, **asked):
    """The paper's Table 1: attacks x defences x seeds, with LoRA, before and after.

    Every entry is kept as it is finished; the same call goes on where it was cut off. Writes
    attack_table.json, .md, .png, .pdf and .svg.
    """
    from lox_kit.reports import TABLE_ATTACKS, print_table, write_table
    from lox_kit.store import Store
    from lox_kit.studies import TABLE_ARMS, attack_table

    from .progress import stages

    with Store(obj["store"]) as store, stages() as on_stage, worker_pool(workers) as executor:
        found = attack_table(
            _names(arms) or TABLE_ARMS,
            _names(attacks) or TABLE_ATTACKS,
            wholes("--seeds", seeds, "0,1,2"),
            questions=_questions(**asked),
            pair=asked["pair"] or None,
            k=k,
            alpha=alpha,
            store=store,
            executor=executor,
            on_stage=on_stage,
        )
    write_table(found, "attack_table", out)
    if as_json:
        say(found.to_frame().to_json(orient="records"))
        return
    print_table(found)
    say(f"figure and numbers: {out}")


def _questions(pair, prompts, allowed, judge, template, limit):
    """Return what the models of the table are asked."""
    from lox_kit.measures import Questions, sandbox_questions

    if not pair:
        if prompts or allowed or judge != "rule" or template != "chat":
            raise ValueError("--prompts, --allowed, --judge and --template are for --pair.")
        return sandbox_questions(limit=limit)
    if prompts is None:
        raise ValueError("--pair needs --prompts FILE: requests that the models should refuse.")
    # A file of both kinds, as XSTest's, serves as both.
    others = benign(allowed, limit, own=False)
    return Questions(forbidden(prompts, limit), others, judge, template, 60)  # the paper's tokens


@click.group(invoke_without_command=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Default: the user's data folder.")
@as_json
@click.pass_context
def data(ctx, folder, as_json):
    """The published training data: where each set is from, and whether it is here.

    \b
    lox data                     the list
    lox data fetch gsm8k         download it, or say which file to put where
    lox data import dolly FILE   take a file that you have
    """
    ctx.obj = {**(ctx.obj or {}), "folder": folder}
    if ctx.invoked_subcommand:
        return
    from lox_kit.attacks import list_sets, sets_frame

    statuses = list_sets(folder)
    if as_json:
        say(sets_frame(statuses).to_json(orient="records"))
        return
    from lox_kit.attacks import sets_folder

    from .progress import print_frame

    print_frame(sets_frame(statuses).drop(columns="from"), title=str(sets_folder(folder)))
    if missing := [s.data_set.name for s in statuses if not s.here]:
        say(
            f"Not here: {', '.join(missing)}.",
            "`lox data fetch NAME` downloads one, or says which file to put where; "
            "`lox data import NAME FILE` takes one that you have.",
        )
    for status in statuses:
        if status.here and status.note:
            say(f"{status.data_set.name}: {status.note}")


@data.command("fetch")
@click.argument("name")
@click.pass_obj
def data_fetch(obj, name):
    """Download a set into the data folder."""
    from lox_kit.attacks import fetch_set

    from .progress import stages

    with stages() as on_stage:
        status = fetch_set(name, obj["folder"], on_stage=on_stage)
    say(f"{status.path}: {status.rows} rows, sha256 {status.sha256}")
    if status.note:
        say(status.note)


@data.command("import")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def data_import(obj, name, file):
    """Copy a set's file into the data folder, after reading it from end to end."""
    from lox_kit.attacks import fetch_set, set_status

    there = set_status(name, obj["folder"])
    if there.here:
        raise FileExistsError(f"{there.path} exists; remove it to take another file.")
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file.")
    status = fetch_set(name, obj["folder"], url=file.resolve().as_uri())
    say(f"{status.path}: {status.rows} rows, sha256 {status.sha256}")
    if status.note:
        say(status.note)
