"""`lox plan VERB ...`, and a line before long work: does it fit, and how long does it take?"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os

import click

from lox_kit import attacks, models, studies, weights
from lox_kit.threads import launched

from . import options
from .attacks import find_attack, given_only
from .progress import print_rows, say

WORTH = (1e9, 60.0)  # bytes and seconds that are worth a line
CARDS = (24, 48, 80)  # GB of memory that GPUs have
SAMPLE = 500  # rows whose tokens are counted
CHANGES = {  # options of a verb that make it take less memory; new ones have their place here
    **dict.fromkeys(
        ("attack", "align"),
        (
            {"lora": True},
            {"optimizer": "adamw-8bit"},
            {"optimizer": "adamw-8bit-bfloat16", "dtype": "bfloat16"},
            {"batch_size": 1},
            {"max_length": 512},
        ),
    ),
    **dict.fromkeys(
        ("table", "sweep"), ({"workers": 1}, {"optimizer": "adamw-8bit"}, {"max_length": 512})
    ),
    **{"asr": ({"batch_size": 8}, {"dtype": "bfloat16"})},
    **{"landscape": ({"workers": 1}, {"keep_on": "cpu"})},
}


def _training(model, preset, device, *, data=None, dtype=None, keep_every=None, **_):
    """Return what one run takes; where its rows are not here, of rows as long as can be."""
    how, rows = preset.settings, getattr(attacks.SETS.get(preset.name), "rows", None) or 10_000
    lengths = [how.max_length]
    with contextlib.suppress(OSError, ValueError, AttributeError):
        rows = sum(1 for _ in models.read_rows(data)) if data else rows
        tokenizer = models.load_tokenizer(weights.Checkpoint(model))
        found = preset.data(tokenizer)
        rows, some = len(found), found[:: len(found) // SAMPLE + 1]
        made = attacks.tokenize(tokenizer, some, how.loss_on, how.max_length)
        lengths = list(map(len, made["input_ids"]))
    batch, steps = min(how.batch_size, rows), how.total_steps(rows)
    longest = [max(lengths[i : i + batch]) for i in range(0, len(lengths), batch)]
    return models.training(
        models.size_of(model, dtype or "auto", how.lora_rank),
        device,
        batch=batch,
        longest=max(longest),
        typical=sum(longest) / len(longest),
        steps=steps,
        accumulation=how.accumulation,
        pairs=getattr(preset, "method", "") == "dpo",
        keep=steps // keep_every if keep_every else 0,
        optimizer=how.optimizer,
    )


def _settings(given, **more):
    """Return the settings of training among options."""
    names = [field.name for field in dataclasses.fields(attacks.TrainSettings)]
    return given_only(**{name: given.get(name) for name in names} | more)


def _attack(name, model, device, columns, form, out, dtype, keep_every, **settings):
    preset = find_attack(name, columns, form=form, **given_only(**settings))
    return _training(model, preset, device, dtype=dtype, keep_every=keep_every)


def _align(name, base, device, lora, **how):
    preset = attacks.find_alignment(name, **_settings(how, lora_rank=8 if lora else None))
    return _training(base, preset, device, **how)


def _asr(model, device, prompts, limit, max_new_tokens, lengths=None, by=(), dtype="auto", **how):
    world = None if prompts else models.world_of(model) or "sandbox"
    n = len(options.requests("forbidden", prompts, limit, world))
    size, tokens = models.size_of(model, dtype), max(lengths or [max_new_tokens])
    needs = models.answering(size, device, n, tokens, how.get("batch_size"))
    return dataclasses.replace(needs, calls=n * sum(judge.startswith("policy:") for judge in by))


def _aligned(world):
    """Return the aligned model of a built-in world."""
    if weights.is_own(world):
        raise ValueError(f"{world}: a plan takes --pair BASE ALIGNED and --prompts FILE instead.")
    return f"{world}/aligned"


def _processes(workers):
    """Return how many processes there are; of a cluster, whose memory is elsewhere, one."""
    return workers if isinstance(workers, int) else 1


def _table(device, names, pair, world, prompts, limit, max_new_tokens, seeds, workers, **how):
    model, arms = (pair[1] if pair else _aligned(world)), len(how.get("arms") or studies.TABLE_ARMS)
    workers = _processes(workers)
    if ks := how.get("ks"):  # a sweep
        arms = 1 + min(len(ks) * len(how["alphas"]), how["budget"] or len(ks) * len(how["alphas"]))
    asked = _asr(model, device, prompts, limit, max_new_tokens or 60)
    runs = [(2 * arms, asked)]  # forbidden and allowed requests
    few = studies.DEVELOPMENT if ks else None
    for name in names or attacks.world_attacks(models.world_of(model) or "sandbox")[:few]:
        for lora, count in ((False, arms), (True, len(studies.ON_BOTH) * how.get("lora", False))):
            attack = find_attack(name, how.get("columns"), lora=lora, **_settings(how))
            runs += [(count, _training(model, attack, device)), (2 * count, asked)]
    seconds = len(seeds) * sum(count * run.seconds for count, run in runs) / workers
    most = max((run for count, run in runs if count), key=lambda run: run.peak)
    kept = {"arms": 3 * models.size_of(model).stored}  # the dial's two, and another arm's
    memory = {part: workers * size for part, size in (most.memory | kept).items()}
    return dataclasses.replace(most, memory=memory, seconds=seconds)


def _landscape(checkpoints, device, world, cells, budget, workers, names, seeds, keep_on, **asking):
    model = checkpoints[0] if checkpoints else _aligned(world)
    workers = _processes(workers)
    cell, cells = _asr(model, device, lengths=None, **asking), min(budget or cells**2, cells**2)
    stored, beside = models.size_of(model).stored, keep_on == "cpu" != device and not names
    memory = cell.memory | {"plane": 0 if beside else 4 * stored}  # copy, directions, a model
    memory = {part: workers * size for part, size in memory.items()}
    times = cells * len(seeds) * len(names or "1")
    kept = 3 * workers * stored * beside  # copy and directions
    return models.Needs(memory, times * cell.seconds / workers, 0.0, cells * cell.calls, kept)


def _edit(verb, aligned, k=None, rank=None, paper=False, **_):
    rank = rank or (6 if paper else k) or 64
    return models.editing(aligned, verb, rank if isinstance(rank, int) else None)


VERBS = {"attack": _attack, "align": _align, "asr": _asr, "landscape": _landscape}
VERBS |= dict.fromkeys(("table", "sweep"), _table)
VERBS |= {v: functools.partial(_edit, v) for v in ("factor", "apply", "adapter", "extrapolate")}


def _needs(verb, params, device=None, **changed):
    """Return what a verb takes with these options, some of them changed, here or on a device."""
    device = device or models.pick_device().split(":")[0]
    return VERBS[verb](**{**params, **changed, "device": device})


def _changed(verb, params, device=None) -> dict[str, models.Needs]:
    """Return what a verb takes after each change, by its options as typed; last all together."""
    changes = [dict(c) for c in CHANGES.get(verb, ()) if not c.items() <= params.items()]
    for change in changes:
        if "batch_size" in change and "accumulation" in params:  # as many rows to a step
            presets = attacks.ATTACKS | attacks.ALIGNMENTS
            how = presets.get(params["name"], presets["sft"]).settings
            both = (params[n] or getattr(how, n) for n in ("batch_size", "accumulation"))
            change["accumulation"] = math.prod(both)
    changes += [{n: v for c in changes for n, v in c.items()}] if len(changes) > 1 else []
    typed = [" ".join(f"--{n.replace('_', '-')} {v}" for n, v in c.items()) for c in changes]
    needs = [_needs(verb, params, device, **change) for change in changes]
    return dict(zip((t.replace(" True", "") for t in typed), needs, strict=True))


def _room() -> float:
    """Return the bytes of memory that this machine has, or its GPU."""
    if models.pick_device().startswith("cuda"):
        import torch

        return float(torch.cuda.mem_get_info()[1])
    if not hasattr(os, "sysconf"):  # Windows
        return math.inf
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _fits(needs, room) -> str:
    return "yes" if needs.peak < room else "-"


def announced(command):
    """Return a command that first says on stderr what it takes, if that is much."""
    verb, work = command.name, command.callback

    def announce(**params):
        if launched():  # each process would measure the same GPU
            return work(**params)
        with contextlib.suppress(Exception):  # the work itself says what is wrong
            needs = _needs(verb, params)
            if needs.peak > WORTH[0] or needs.seconds > WORTH[1]:
                say(f"needs about {needs}", err=True)
            if needs.peak > _room():
                less = [
                    f"{option} ({changed.peak / 1e9:.1f} GB)"
                    for option, changed in _changed(verb, params).items()
                    if changed.peak <= needs.peak
                ]
                said = f"more than the {_room() / 1e9:.0f} GB that are here; with less:"
                say(f"{said} {', '.join(less) or '-'}", err=True)
        return work(**params)

    command.callback = functools.update_wrapper(announce, work)
    return command


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("verb", type=click.Choice(list(VERBS)))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def plan(ctx, verb, arguments):
    """Does it fit? What VERB would take with these ARGUMENTS, and what to change.

    Memory by part, time on this machine (within a factor of two), disk and calls of judges, and
    what fits on GPUs. A folder with a MODEL's config.json is enough (a hub id is fetched whole);
    -o is not needed. Where the rows to train on are not here, they are taken to be as long as
    --max-length.
    """
    command = ctx.parent.command.commands[verb]
    out = ["-o", "OUT"] if any(p.name == "out" and p.required for p in command.params) else []
    params = ctx.with_resource(command.make_context(verb, [*out, *arguments], parent=ctx)).params
    needs, room = _needs(verb, params), _room()
    parts = ", ".join(f"{part} {size / 1e9:.1f} GB" for part, size in needs.memory.items())
    say(f"needs about {needs}", f"memory: {parts}")
    here = {"as it is": needs, **_changed(verb, params)}
    there = {"as it is": _needs(verb, params, "cuda"), **_changed(verb, params, "cuda")}
    rows = []
    for option, gpu in there.items():
        sizes = [f"{needs.peak / 1e9:.1f} GB" for needs in (here[option], gpu)]
        row = {"options": option, "here": sizes[0], "fits": _fits(here[option], room)}
        row["on a GPU"] = sizes[1]
        rows.append(row | {f"{card} GB": _fits(gpu, 1e9 * card) for card in CARDS})
    print_rows(f"What fits: here are {room / 1e9:.0f} GB", rows)
