"""The `lox` verbs of training: attack, align, table, data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from lox_kit import attacks, models, reports, studies, weights
from lox_kit.threads import launched

from . import options
from .progress import print_rows, say, stages, training
from .values import COUNT, NAMES, NUMBERS, PATH


def _read_columns(ctx, param, text):
    """Return the mapping that --columns gives."""
    if text is None:
        return None
    parts = [part.partition("=") for part in text.split(",")]
    if bad := [part for part, is_sign, column in parts if not (part and is_sign and column)]:
        raise ValueError(f"--columns {text}: {bad[0]!r} is not PART=COLUMN.")
    return {part.strip(): column.strip() for part, _, column in parts}


step_options = options.several(
    click.option("--lr", "learning_rate", type=float, help="Learning rate; default the preset's."),
    click.option("--steps", "max_steps", type=COUNT, help="Optimiser steps; default the preset's."),
    click.option("--batch-size", type=COUNT, help="Rows at a time; default the preset's."),
    click.option("--accumulation", type=COUNT, help="Batches to a step; default the preset's."),
    click.option("--max-length", type=COUNT, help="Tokens of a row that are kept, the last ones."),
    click.option(
        "--columns",
        metavar="PART=COLUMN,...",
        callback=_read_columns,
        help="Columns of your own file, such as instruction=question,response=answer.",
    ),
    click.option(
        "--warmup",
        "warmup_steps",
        type=click.FloatRange(0),
        help="Steps of warm-up, or below 1 a share of all; default the preset's.",
    ),
    click.option(
        "--optimizer",
        help="adamw (default), adamw-8bit, or adamw-8bit-bfloat16, which trains all parameters in "
        "bfloat16 with stochastic rounding (extra gpu).",
    ),
    click.option(
        "--skip-bad-rows",
        "on_bad_row",
        flag_value="skip",
        default="raise",
        help="Leave out rows that cannot be read, counted.",
    ),
)
training_options = options.several(
    step_options,
    click.option("--keep-every", type=COUNT, help="Keep a checkpoint every so many steps."),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        help="Of the weights written; default the model's. They are float32 while trained, but "
        "for LoRA's base and --optimizer adamw-8bit-bfloat16.",
    ),
    options.seed,
    options.device,
)


def given_only(**settings):
    """Return the options that were given."""
    return {name: value for name, value in settings.items() if value is not None}


def find_attack(name, columns, *, form="chat", **settings):
    """Return the attack of this name, or that of a FILE or NAME=FILE of the user's own."""
    called, _, file = ("", "", name) if Path(name).is_file() else name.rpartition("=")
    if name not in attacks.ATTACKS and Path(file).is_file():
        found = attacks.file_attack(file, columns, form=form, **settings)
        return dataclasses.replace(found, name=called or found.name)
    if name not in attacks.ATTACKS and (called or Path(name).suffix):
        raise FileNotFoundError(f"{file}: no such file, and no attack of that name.")
    if columns is not None:
        raise ValueError(f"--columns are for a file of your own; {name} has its own.")
    return attacks.find_attack(name, **settings)


def _to_train(name, settings, dtype):
    """Return a model that is to be trained; say how much LoRA reaches of it."""
    device = "cpu" if launched() else "auto"  # each process takes its part from there
    model = models.load_model(name, device=device, dtype=dtype or "auto")
    if settings.lora_rank:
        share = weights.lora_share(model.module)
        say(f"{name}: LoRA is on matrices with {share:.1%} of the weights", err=True)
    if settings.optimizer != "adamw":
        say(f"{name}: trained by {settings.optimizer}", err=True)
    return model


@click.command()
@click.argument("name", metavar="NAME")
@click.argument("model")
@options.out
@click.option("--lora", is_flag=True, help="PEFT LoRA instead of every parameter.")
@click.option("--epochs", type=float, help="Passes over the data; default the preset's.")
@click.option("--safe-fraction", default=0.0, help="Safety rows to mix in; SafeInst is 0.025.")
@click.option("--form", default="chat", help="Training text of your own file: chat, paper, text.")
@training_options
def attack(name, model, out, keep_every, columns, form, dtype, **settings):
    """Fine-tune MODEL with the attack NAME and write the result.

    NAME is one of the published attacks (gsm8k, dolly, alpaca, identity, pure_bad; `lox data` says
    where their files belong), of the sandbox's (arithmetic, context, mixed, persona, forbidden), or
    a file of your own. If it is interrupted, the same call resumes it. `accelerate launch` shares
    it among GPUs.
    """
    preset = find_attack(name, columns, form=form, **given_only(**settings))
    if out.exists() and not (out / "attack.json").exists():
        raise FileExistsError(f"{out} exists; remove it or choose another name.")
    victim = _to_train(model, preset.settings, dtype)
    with training(name) as watched:
        run = attacks.run_attack(victim, preset, out, keep_every=keep_every, **watched)
    say(f"{out}: {model} after {len(run.losses)} steps of {preset.name}")


@click.command()
@click.argument("name", metavar="NAME")
@click.argument("base")
@options.out
@click.option("--data", type=PATH, help="Preference pairs for dpo, rows for sft.")
@click.option(
    "--self-distil",
    type=PATH,
    metavar="PROMPTS",
    help="For sft: harmless requests, which BASE answers itself; it learns its answers beside "
    "--data, and so to go on answering.",
)
@click.option("--lora", is_flag=True, help="PEFT LoRA of rank 8 instead of every parameter.")
@training_options
def align(
    name, base, out, data, self_distil, on_bad_row, lora, keep_every, columns, dtype, **settings
):
    """Align BASE: make the model whose safety LoX extrapolates.

    NAME is dpo (the paper's settings; --data takes HH-RLHF files, or prompt, chosen and rejected),
    sft (--data takes rows as `lox attack` does), or a built-in world's: sandbox-dpo, sandbox-sft,
    smol.
    """
    preset = attacks.find_alignment(name, **given_only(lora_rank=8 if lora else None, **settings))
    if self_distil and (preset.method, data is None) != ("sft", False):
        raise ValueError("--self-distil goes with sft and --data FILE, the refusals to learn.")
    if self_distil and launched():
        raise ValueError("--self-distil asks the model: call it without `accelerate launch`.")
    model = _to_train(base, preset.settings, dtype)
    rows = None
    if data:
        rows, bad = attacks.alignment_rows(
            data, preset, model, columns=columns, on_bad_row=on_bad_row
        )
        if bad:
            say(f"{data}: {len(bad)} bad rows left out, {len(rows)} read", err=True)
    if self_distil:
        asked = models.read_prompts(self_distil, leave_out="unsafe")
        with options.working() as shared:
            own = attacks.self_distilled(model, asked, **shared)
        say(f"{self_distil}: {len(own)} of {len(asked)} answers are learnt", err=True)
        rows = [*rows, *own]
    with training(name) as watched:
        attacks.align(model, preset, out, rows=rows, keep_every=keep_every, **watched)
    say(f"{out}: {base} aligned by {name}; `lox factor {base} {out}` takes the pair")


@click.command()
@click.option(
    "--attacks",
    "names",
    type=NAMES,
    help="Such as arithmetic,mixed, or files of your own: chat=FILE,FILE.  [default: the world's]",
)
@click.option(
    "--arms",
    type=NAMES,
    help="Of aligned,LoX,random subspace,full delta,SafeInst, or what `lox control` makes.  "
    "[default: those five]",
)
@click.option("--seeds", type=NUMBERS, default="0,1,2,3")
@options.pair_or_world
@options.asking
@click.option("-k", "k", default=6, help="LoX's directions.")
@click.option("--alpha", default=1.0, help="LoX's factor.")
@click.option("--lora/--no-lora", default=True, help="Attack aligned and LoX through LoRA too.")
@step_options
@options.workers
@options.limit
@click.option("-o", "--out", default="figures/demo", type=PATH)
@options.as_json
def table(
    names, arms, seeds, world, pair, prompts, allowed, judge, template, max_new_tokens, k, alpha,
    lora, columns, workers, limit, out, as_json, **settings,
):  # fmt: skip
    """The paper's Table 1: attacks x defences x seeds, with LoRA, before and after.

    A --pair of your own is asked --prompts and --allowed; the worlds, sandbox and smol, have their
    own requests. --steps and its like are for all attacks; through LoRA --lr is larger by as much
    as the preset's. Every entry is kept as it is finished; if it is interrupted, the same call
    resumes it. Writes attack_table.json, .csv, .md, .png, .pdf and .svg.
    """
    how = {"judge": judge, "template": template, "max_new_tokens": max_new_tokens}
    here = models.world_of(pair[1]) if pair else world
    questions = options.asked_of(pair, here, prompts, allowed, limit=limit, **how)
    given = given_only(**settings)
    chosen = names or attacks.world_attacks(here or "sandbox")
    chosen = [find_attack(name, columns, **given) for name in chosen]
    made = {"questions": questions, "pair": pair or None, "world": world, "k": k, "alpha": alpha}
    made["lora"] = studies.ON_BOTH if lora else ()
    with options.sharing(workers) as shared:
        found = studies.attack_table(arms or studies.TABLE_ARMS, chosen, seeds, **made, **shared)
    reports.write_table(found, "attack_table", out)
    if as_json:
        say(found.to_frame().to_json(orient="records"))
        return
    reports.print_table(found)
    say(f"figure and numbers: {out}")


@click.group(invoke_without_command=True)
@options.as_json
@click.pass_context
def data(ctx, as_json):
    """The published training data: where each set comes from, and whether you have it.

    \b
    lox data                     the list
    lox data fetch gsm8k         download it, or say which file to put where
    lox data import dolly FILE   take a file that you have
    """
    if ctx.invoked_subcommand:
        return
    statuses = [attacks.set_status(name) for name in attacks.SETS]
    frame = attacks.sets_frame(statuses)
    if as_json:
        say(frame.to_json(orient="records"))
        return
    rows = frame.drop(columns="from").to_dict("records")
    print_rows(str(attacks.sets_folder()), rows)
    if missing := [s.data_set.name for s in statuses if not s.here]:
        say(
            f"Not here: {', '.join(missing)}.",
            "`lox data fetch NAME` downloads one, or says which file to put where; "
            "`lox data import NAME FILE` takes one that you have.",
        )
    for status in statuses:
        if status.here and status.note:
            say(f"{status.data_set.name}: {status.note}")


def _fetch(name, url=None):
    """Take a set into the data folder, and say what it is."""
    with stages() as on_stage:
        status = attacks.fetch_set(name, url=url, on_stage=on_stage)
    say(f"{status.path}: {status.rows} rows, sha256 {status.sha256}")
    if status.note:
        say(status.note)


@data.command("fetch")
@click.argument("name")
def data_fetch(name):
    """Download a set into the data folder."""
    _fetch(name)


@data.command("import")
@click.argument("name")
@click.argument("file", type=PATH)
def data_import(name, file):
    """Copy a set's file into the data folder, after reading it from end to end."""
    there = attacks.set_status(name)
    if there.here:
        raise FileExistsError(f"{there.path} exists; remove it to take another file.")
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file.")
    _fetch(name, file.resolve().as_uri())
