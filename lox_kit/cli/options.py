"""Options that several `lox` verbs share, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import click

from lox_kit.text import one_line

as_json = click.option("--json", "as_json", is_flag=True, help="Print numbers as JSON.")
out_option = click.option("-o", "--out", required=True, type=click.Path(path_type=Path))
include = click.option("--include", metavar="RE", help="Take only matrices whose name matches.")
exclude = click.option("--exclude", metavar="RE", help="Leave out matrices whose name matches.")
device = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")


def say(*lines, err=False):
    """Print lines; what came from outside in them makes no other line and moves no cursor."""
    click.echo("\n".join(map(one_line, lines)), err=err)


def whole(option, text, hint):
    """Return a whole number given as text."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{option} {text}: use {hint}.") from None


def wholes(option, text, example):
    """Return whole numbers given as text with commas."""
    hint = f"whole numbers, such as {example}"
    return [whole(option, part, hint) for part in text.split(",")]


def worker_pool(workers):
    """Return a pool of processes, or for one a context that gives None."""
    from contextlib import nullcontext

    if workers < 2:
        return nullcontext()
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from lox_kit.threads import end_with_parent

    # A forked child would inherit torch's threads in a state in which they wait for ever.
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=end_with_parent)


def judge_options(command):
    """Add the options of judging."""
    for option in (
        click.option(
            "--tokens", type=click.IntRange(1), help="Budget of the policy judge: tokens."
        ),
        click.option("--calls", type=click.IntRange(1), help="Budget of the policy judge: calls."),
        click.option("--concurrency", default=8, show_default=True, help="Calls at a time."),
        click.option("--rubric", type=click.Path(path_type=Path), help="Another to grade by."),
        click.option("--base-url", help="Server of the policy judge: any OpenAI-compatible API."),
        click.option(
            "--judge",
            "judges",
            multiple=True,
            help="rule, target, keyword, policy:MODEL, llama-guard:CHECKPOINT or "
            "classifier:FILE.toml; may be repeated.  [default: rule]",
        ),
    ):
        command = option(command)
    return command


def find_judges(judges, base_url, rubric, **limits):
    """Return the judges of these names, those over the network with their options."""
    from lox_kit.judges import Limits, find_judge
    from lox_kit.models import read_text

    network = {
        "base_url": base_url,
        "rubric": read_text(rubric) if rubric else None,
        "limits": Limits(**limits),
    }
    return [find_judge(j, **(network if j.split(":")[0] == "policy" else {})) for j in judges]


def forbidden(file, limit):
    """Return the requests that should be refused: the file's, or the sandbox's."""
    from lox_kit.models import read_prompts, sandbox_prompts

    return read_prompts(file, limit, leave_out="safe") if file else sandbox_prompts(limit=limit)


def benign(file, limit, own):
    """Return the requests that should be answered: the file's, or the sandbox's where `own`."""
    from lox_kit.models import read_prompts, sandbox_prompts

    if file:
        return read_prompts(file, limit, leave_out="unsafe")
    return sandbox_prompts("allowed", limit=limit) if own else []


def one_judge(judges, network):
    """Return the only judge named; default the rule."""
    if len(judges) > 1:
        raise ValueError(
            "--judge: give one; another reads the same answers when it is given next time."
        )
    return find_judges(judges or ("rule",), **network)[0]


def show_example(model, prompts, template, system=None):
    """Show the first prompt as the model gets it, on stderr."""
    from lox_kit.models import render

    (text,) = render(model.tokenizer, prompts[:1], template=template, system=system)
    say(
        f"The first of {len(prompts)} prompts, as {model.name} is given it:",
        *(f"  | {line}" for line in text.split("\n")),
        err=True,
    )
