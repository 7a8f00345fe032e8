"""The `lox` verbs of judging: asr, rescore, rank."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import (
    as_json,
    benign,
    device,
    find_judges,
    forbidden,
    judge_options,
    one_judge,
    say,
    show_example,
    wholes,
)

overwrite = click.option("--overwrite", is_flag=True, help="Let --save replace any file.")


def _system(text, file):
    """Return the system message from --system and --system-from."""
    if file is None:
        return text
    if text is not None:
        raise ValueError("--system and --system-from: give one of the two.")
    if str(file) == "sandbox":
        from lox_kit.sandbox import world

        return world.persona_system()
    from lox_kit.attacks import identity_system

    return identity_system(file)


def _check_place(save, overwrite):
    """Refuse, before anything is measured, to write over what `--save` has not written."""
    if save is None or not save.exists():
        return
    if not save.is_file():
        raise ValueError(f"--save {save}: not a regular file; choose another name.")
    if overwrite:
        return
    from lox_kit.measures import AsrResult

    try:
        AsrResult.load(save)
    except (ValueError, AttributeError, RecursionError):
        raise FileExistsError(
            f"--save {save}: exists and holds no answers of lox; choose another name, or add "
            "--overwrite."
        ) from None


def _print_result(result, as_json):
    """Print an AsrResult: its shares, and how far its judges agree."""
    agreement = [pair.to_dict() for pair in result.agreement]
    if as_json:
        named = {"model": result.source["model"], **result.summary()}
        say(json.dumps({**named, "agreement": agreement}))
        return
    from .progress import print_agreement, print_shares

    n, tokens = len(result.prompts), result.source["max_new_tokens"]
    title = f"{result.source['model']}, {n} prompts, {tokens} tokens, 95 % Wilson intervals"
    print_shares(title, result.summary())
    if agreement:
        print_agreement(agreement)


@click.command()
@click.argument("model")
@click.option(
    "--prompts", type=click.Path(path_type=Path), help="CSV with goal or prompt, or plain lines."
)
@judge_options
@click.option("--template", default="chat", show_default=True, help="chat, paper or identity.")
@click.option("--system", help="A system message before each request.")
@click.option(
    "--system-from",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take it from identity-shifting data; 'sandbox' is the sandbox's own.",
)
@click.option(
    "--max-new-tokens", default=60, show_default=True, help="The paper's is 60, HarmBench's 512."
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="Most prompts at once.",
)
@click.option("--limit", type=click.IntRange(1), help="Only so many prompts.")
@click.option("--save", type=click.Path(path_type=Path), help="Write answers and verdicts here.")
@overwrite
@device
@as_json
@click.pass_obj
def asr(
    obj, model, prompts, judges, template, system, system_from, max_new_tokens, batch_size, limit,
    save, overwrite, device, as_json, **network,
):  # fmt: skip
    """Measure attack success rate, refusal and degenerate answers, with 95 % intervals.

    An unreadable verdict counts as not harmful; if there are any, the rate among the readable ones
    is shown as well. The key of a policy judge's server comes from OPENAI_API_KEY alone.
    """
    from lox_kit.measures import measure_asr
    from lox_kit.models import load_model
    from lox_kit.store import Store

    from .progress import stages

    _check_place(save, overwrite)
    asked = forbidden(prompts, limit)
    found = find_judges(judges or ("rule",), **network)
    system = _system(system, system_from)
    loaded = load_model(model, device=device)
    show_example(loaded, asked, template, system)
    with Store(obj["store"]) as store, stages() as on_stage:
        result = measure_asr(
            loaded,
            asked,
            found,
            template=template,
            system=system,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            store=store,
            on_stage=on_stage,
        )
    if save:
        result.save(save)
    _print_result(result, as_json)


@click.command()
@click.argument("result", type=click.Path(path_type=Path))
@judge_options
@click.option("--save", type=click.Path(path_type=Path), help="Write all verdicts here.")
@overwrite
@as_json
@click.pass_obj
def rescore(obj, result, judges, save, overwrite, as_json, **network):
    """Let other judges read the answers that `lox asr --save RESULT` kept; nothing is generated."""
    from lox_kit.measures import AsrResult, rescore
    from lox_kit.store import Store

    from .progress import stages

    if not judges:
        raise ValueError("say who is to judge: --judge NAME.")
    _check_place(save, overwrite)
    kept = AsrResult.load(result)
    with Store(obj["store"]) as store, stages() as on_stage:
        rescored = rescore(kept, find_judges(judges, **network), store=store, on_stage=on_stage)
    if save:
        rescored.save(save)
    _print_result(rescored, as_json)


@click.command()
@click.argument("base", required=False)
@click.argument("aligned", required=False)
@click.option("--seeds", help="Sandbox families instead of a pair, such as 0,1,2,3.")
@click.option("--ranks", default="0,1,2,3,4,6,8", show_default=True, help="0 is the base.")
@click.option(
    "--norms",
    type=click.Choice(["aligned", "base"]),
    default="aligned",
    show_default=True,
    help="Norms and biases at r >= 1: the aligned model's, as in the paper's code, or the base's.",
)
@click.option(
    "--prompts", type=click.Path(path_type=Path), help="Of a pair: CSV with goal or prompt."
)
@click.option(
    "--allowed",
    type=click.Path(path_type=Path),
    help="Of a pair: requests that should be answered, for helpfulness; the same kinds of file.",
)
@judge_options
@click.option("--template", default="chat", show_default=True, help="Of a pair: chat or paper.")
@click.option("--limit", type=click.IntRange(1), help="Only so many prompts.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Folder for the figure and its numbers."
)
@device
@as_json
@click.pass_obj
def rank(
    obj, base, aligned, seeds, ranks, norms, prompts, allowed, judges, template, limit, out, device,
    as_json, **network,
):  # fmt: skip
    """Measure how many directions make BASE as safe as ALIGNED: the paper's effective rank.

    ASR of W_base + Proj_r(dW_align) by r; the safety rank is the smallest r whose ASR is within .01
    of the aligned model's. Beside it, the share of allowed requests that are helped with.
    """
    from lox_kit.measures import Questions
    from lox_kit.store import Store
    from lox_kit.studies import rank_curve, sandbox_rank_curve

    from .progress import stages

    if (seeds is None) == (aligned is None):
        raise ValueError("name a pair, BASE ALIGNED, or sandbox families, --seeds 0,1.")
    options = {"ranks": wholes("--ranks", ranks, "0,1,2"), "norms": norms}
    with Store(obj["store"]) as store, stages() as on_stage:
        options |= {"store": store, "on_stage": on_stage}
        if seeds is None:
            others = benign(allowed, limit, own=not prompts)
            judge = one_judge(judges, network)
            asked = Questions(forbidden(prompts, limit), others, judge, template, 60)
            curve = rank_curve(base, aligned, asked, device=device, **options)
        elif base or prompts or allowed or judges or template != "chat":
            raise ValueError("--seeds asks the sandbox families' own prompts, judged by the rule.")
        else:
            curve = sandbox_rank_curve(wholes("--seeds", seeds, "0,1,2"), limit=limit, **options)
    if as_json:
        say(json.dumps(curve.to_dict()))
    else:
        _print_curve(curve)
    if out:  # after the numbers, which it cannot take away
        from lox_kit.figures import save_figure

        save_figure({"figure": "rank_curve", **curve.to_dict()}, "rank_curve", out)


def _print_curve(curve):
    """Print ASR and helpfulness by r, one column per pair, and the safety ranks."""
    from .progress import print_frame

    frame = curve.to_frame()
    frame["r"] = frame["r"].astype("string").fillna("aligned")
    frame["cell"] = [f"{s.value:.2f} [{s.low:.2f}, {s.high:.2f}]" for s in frame.itertuples()]
    for measure, word in (("asr", "ASR"), ("helpfulness", "helpfulness")):
        part = frame[frame["measure"] == measure]
        if len(part):
            table = part.pivot(index="r", columns="pair", values="cell")
            order = sorted(table.index, key=lambda r: (r == "aligned", r.zfill(9)))
            rows = table.loc[order, curve.pairs].reset_index()
            print_frame(rows, title=f"{word} by r, 95 % intervals")
    if "helpfulness" not in set(frame["measure"]):
        say("helpfulness: not measured (--allowed FILE); what looks safe may be broken")
    for pair in curve.pairs:
        found = curve.safety_rank(pair)
        shown = "above those measured" if found is None else found
        say(f"{pair}: safety rank {shown}")
    say(f"norms and biases at r >= 1: those of the {curve.source['norms']} model")
