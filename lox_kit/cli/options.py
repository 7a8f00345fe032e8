"""Options that several `lox` verbs share, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from multiprocessing import get_context
from pathlib import Path

import click

from lox_kit import judges, models
from lox_kit.store import Store
from lox_kit.threads import end_with_parent

from .progress import say, stages

PATH = click.Path(path_type=Path)
COUNT = click.IntRange(1)


class Commas(click.ParamType):
    """Values separated by commas."""

    name = "list"

    def __init__(self, of: click.ParamType):
        self.of = of

    def convert(self, value, param, ctx):
        """Return them as a list."""
        return [self.of.convert(part.strip(), param, ctx) for part in value.split(",")]


class NumberOr(click.ParamType):
    """A whole number, or one word."""

    name = "integer"

    def __init__(self, word: str):
        self.word = word

    def convert(self, value, param, ctx):
        """Return the number, or the word."""
        return value if value == self.word else click.INT.convert(value, param, ctx)


NAMES, NUMBERS = Commas(click.STRING), Commas(click.INT)

as_json = click.option("--json", "as_json", is_flag=True, help="Print numbers as JSON.")
out = click.option("-o", "--out", required=True, type=PATH)
include = click.option("--include", metavar="RE", help="Take only matrices whose name matches.")
exclude = click.option("--exclude", metavar="RE", help="Leave out matrices whose name matches.")
seed = click.option("--seed", default=0, help="Of all random draws.")
device = click.option("--device", default="auto", help="auto, cpu, cuda or mps.")
dtype = click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    help="To compute in; auto is the checkpoint's own.",
)
limit = click.option("--limit", type=COUNT, help="Only so many prompts of each kind.")
template = click.option("--template", default="chat", help="chat, paper; for personas identity.")
max_new_tokens = click.option("--max-new-tokens", default=60, help="The paper's; HarmBench's: 512.")
prompts = click.option(
    "--prompts",
    type=PATH,
    help="Forbidden requests: CSV, TSV, JSON(L) or parquet with goal or prompt, or lines of .txt.",
)
allowed = click.option(
    "--allowed", type=PATH, help="Requests that should be answered, in the same kinds of file."
)
answered_by = click.option("--model", help="Who answered, where the file does not say.")
workers = click.option("--workers", default=1, help="Processes for the work.")


def several(*given: Callable) -> Callable:
    """Return one decorator that adds all of these options, in this order."""

    def add(command):
        for option in reversed(given):
            command = option(command)
        return command

    return add


network = several(
    click.option("--base-url", help="Server of the policy judge: any OpenAI-compatible API."),
    click.option("--rubric", type=PATH, help="Another to grade by."),
    click.option("--concurrency", default=8, help="Calls at a time."),
    click.option("--calls", type=COUNT, help="Budget of the policy judge: calls."),
    click.option("--tokens", type=COUNT, help="Budget of the policy judge: tokens."),
)
judging = several(
    click.option(
        "--judge",
        "by",
        multiple=True,
        help="rule, target, keyword, policy:MODEL, llama-guard:CHECKPOINT or classifier:FILE.toml; "
        "may be repeated.  [default: rule]",
    ),
    network,
)


@contextmanager
def working(store: Path | None) -> Iterator[dict]:
    """Yield the arguments that long work takes: the store, and a progress bar on stderr."""
    with Store(store) as opened, stages() as on_stage:
        yield {"store": opened, "on_stage": on_stage}


def worker_pool(workers: int) -> AbstractContextManager:
    """Return a pool of processes, or for one a context that gives None."""
    if workers < 2:
        return nullcontext()
    # A forked child would inherit torch's threads in a state in which they wait for ever.
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=end_with_parent)


def find_judges(by, base_url, rubric, **limits):
    """Return the judges of these names, those over the network with their options."""
    network = {
        "base_url": base_url,
        "rubric": models.read_text(rubric) if rubric else None,
        "limits": judges.Limits(**limits),
    }
    return [
        judges.find_judge(name, **(network if name.split(":")[0] == "policy" else {}))
        for name in by or ("rule",)
    ]


def one_judge(by, **network):
    """Return the only judge named; default the rule."""
    if len(by) > 1:
        raise ValueError(
            "--judge: give one; another reads the same answers when it is given next time."
        )
    return find_judges(by, **network)[0]


def forbidden(file, limit):
    """Return the requests that should be refused: the file's, or the sandbox's."""
    if file:
        return models.read_prompts(file, limit, leave_out="safe")
    return models.sandbox_prompts(limit=limit)


def benign(file, limit, own):
    """Return the requests that should be answered: the file's, or the sandbox's where `own`."""
    if file:
        return models.read_prompts(file, limit, leave_out="unsafe")
    return models.sandbox_prompts("allowed", limit=limit) if own else []


def show_example(model, asked, template, system=None):
    """Show the first prompt as the model gets it, on stderr."""
    (text,) = models.render(model.tokenizer, asked[:1], template=template, system=system)
    say(
        f"The first of {len(asked)} prompts, as {model.name} is given it:",
        *(f"  | {line}" for line in text.split("\n")),
        err=True,
    )
