"""Options that several `lox` verbs share, and what is made of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from lox_kit import judges, measures, models
from lox_kit.store import Store

from .progress import Workers, say, stages, worker_pool
from .values import COUNT, PATH, Fields, World

MANY_CALLS = 2000  # to one server; more need a yes or a budget

as_json = click.option("--json", "as_json", is_flag=True, help="Print numbers as JSON.")
out = click.option("-o", "--out", required=True, type=PATH)
include = click.option("--include", metavar="RE", help="Take only matrices whose name matches.")
exclude = click.option("--exclude", metavar="RE", help="Leave out matrices whose name matches.")
seed = click.option("--seed", default=0, help="Of all random draws.")


def _work_on(ctx, param, device):
    """Let "auto" be this device until the verb ends, in the processes that it starts as well."""
    if device != "auto":
        before = os.environ.get(models.DEVICE, "auto")
        os.environ[models.DEVICE] = models.pick_device(device)
        ctx.call_on_close(lambda: os.environ.update({models.DEVICE: before}))


device = click.option(
    "--device",
    default="auto",
    expose_value=False,
    callback=_work_on,
    help="auto, cpu, cuda or mps: where all models are.",
)
keep_on = click.option(
    "--keep-on",
    type=click.Choice(["device", "cpu"]),
    default="device",
    help="Where copy and directions are; with cpu a GPU holds one of CHECKPOINTS at a time.",
)
dtype = click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    help="To compute in; auto is the checkpoint's own.",
)
limit = click.option("--limit", type=COUNT, help="Only so many prompts of each kind.")
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


def several(*given: Callable) -> Callable:
    """Return one decorator that adds all of these options, in this order."""

    def add(command):
        for option in reversed(given):
            command = option(command)
        return command

    return add


workers = several(
    click.option(
        "--workers",
        "--executor",
        "workers",
        type=Workers(),
        default="1",
        help="Processes for the work, or those of a Dask cluster: dask://HOST:PORT, dask:// a new "
        "one.",
    ),
    device,
)
with_paper = click.option(
    "--with-paper", "paper", is_flag=True, help="The published numbers as well, in grey."
)
save = several(
    click.option("--save", type=PATH, help="Write answers and verdicts here."),
    click.option("--overwrite", is_flag=True, help="Let --save replace a file."),
)


def _add_template_args(ctx, param, values):
    """Put the arguments of a chat template beside its name."""
    for given in values:
        ctx.params["template"] = models.with_template_args(ctx.params["template"], given)


template = several(
    click.option(
        "--template", default="chat", is_eager=True, help="chat, paper; for personas identity."
    ),
    click.option(
        "--template-arg",
        type=Fields(),
        multiple=True,
        expose_value=False,
        callback=_add_template_args,
        help="For the chat template, such as enable_thinking=false; may be repeated.",
    ),
)
world = click.option(
    "--world", "--models", "world", type=World(), default="sandbox", help="Whose families."
)
pair_or_world = several(
    world,
    click.option("--pair", nargs=2, metavar="BASE ALIGNED", help="A pair of your own instead."),
)
asking = several(
    prompts,
    allowed,
    click.option("--judge", help="Who judges the answers to --prompts.  [default: rule]"),
    template,
    click.option("--max-new-tokens", type=COUNT, help="For --prompts.  [default: 60, the paper's]"),
)
network = several(
    click.option("--base-url", help="Server of the policy judge: any OpenAI-compatible API."),
    click.option("--rubric", type=PATH, help="Another to grade by."),
    click.option(
        "--judge-option",
        type=Fields(),
        multiple=True,
        help="Fields of the policy judge's requests: seed=none leaves one out, max_tokens=512.",
    ),
    click.option("--ask-again", is_flag=True, help="Ask for refused or garbled replies again."),
    click.option("--allow-http", is_flag=True, help="Send the key to other machines in clear."),
    click.option("--concurrency", default=8, help="Calls at a time."),
    click.option("--calls", type=COUNT, help="Budget of each server: calls."),
    click.option("--tokens", type=COUNT, help="Budget of each server: tokens."),
)
judging = several(
    click.option(
        "--judge",
        "by",
        multiple=True,
        help="rule, target, keyword, policy:MODEL, llama-guard:CHECKPOINT or classifier:FILE.toml; "
        "may be repeated.  [default: rule; for smol keyword]",
    ),
    network,
)
served = several(
    click.option("--served", metavar="URL", help="Ask a model behind an OpenAI-compatible API."),
    click.option("--model", "name", help="Its name, as the server has it."),
    click.option(
        "--served-option", type=Fields(), multiple=True, help="As --judge-option, for --served."
    ),
)


@contextmanager
def working() -> Iterator[dict]:
    """Yield the arguments that long work takes: lox's --store, and a progress bar on stderr."""
    with Store(click.get_current_context().obj) as store, stages() as on_stage:
        yield {"store": store, "on_stage": on_stage}


@contextmanager
def sharing(workers: int | str) -> Iterator[dict]:
    """Yield the arguments of work that is shared out: those of `working`, and an executor."""
    with working() as shared, worker_pool(workers) as executor:
        yield shared | {"executor": executor}


def find_judges(n, *, by, base_url, rubric, judge_option, world="sandbox", **network):
    """Return the judges of these names, those over the network for up to `n` answers.

    Without a name it is the judge of a world; default the sandbox's.
    """
    found = []
    for name in by or (measures.world_questions(world, limit=1).judge,):
        options = {}
        if name.split(":")[0] == "policy":
            options = {"rubric": models.read_text(rubric) if rubric else None}
            options |= _network(base_url, judge_option, **network)
        found.append(judges.find_judge(name, **options))
        if options:
            _announce(found[-1].chat, n, len(found[-1].rubric))
    return found


def find_served(n, url, name, fields, max_new_tokens, *, by, base_url, rubric, judge_option, **how):
    """Return the model behind a server, for `n` prompts."""
    network = _network(url, fields, **how)
    if network["options"].get("max_tokens", max_new_tokens) != max_new_tokens:
        raise ValueError("max_tokens and --max-new-tokens differ: give both the same number.")
    chat = models.ChatModel(name, reply_tokens=max_new_tokens, **network)
    _announce(chat, n)
    return chat


def _network(base_url, fields, *, ask_again, allow_http, **limits):
    """Return what a ChatModel is made with."""
    return {
        "base_url": base_url,
        "options": {name: value for given in fields for name, value in given.items()},
        "ask_again": ask_again,
        "allow_http": allow_http,
        "limits": models.Limits(**limits),
    }


def _announce(chat, n, characters=0):
    """Say what a server may be asked for; of many calls without a budget, ask whether to go on.

    A question has `characters`, and 800 for request and answer; a token has four.
    """
    tokens = n * ((characters + 800) // 4 + (chat.reply_tokens or 0))
    what = f"{chat.name} at {chat.base_url}: up to {n:,} calls and about {tokens:,} tokens"
    say(f"{what}; what the store has is not asked.", err=True)
    if n <= MANY_CALLS or chat.limits.calls or chat.limits.tokens:
        return
    if not sys.stdin.isatty():
        raise ValueError(f"{what}: allow that with --calls {n} or --tokens.")
    click.confirm("Go on?", abort=True, err=True)


def one_judge(n, *, by, **network):
    """Return the only judge named; default the rule."""
    if len(by) > 1:
        raise ValueError(
            "--judge: give one; another reads the same answers when it is given next time."
        )
    return find_judges(n, by=by, **network)[0]


def requests(kind, file, limit, world=None):
    """Return forbidden or allowed requests: the file's, or a world's if there is one."""
    if file:
        return models.read_prompts(file, limit, leave_out=measures.KINDS[kind])
    return measures.WORLDS[world](kind, limit=limit) if world else []


def check_place(save, overwrite):
    """Refuse, before anything is measured, to write over what is there."""
    if save is None or not save.exists():
        return
    if not save.is_file():
        raise ValueError(f"--save {save}: not a regular file; choose another name.")
    if not overwrite:
        raise FileExistsError(
            f"--save {save}: exists; choose another name, or let it be replaced with --overwrite."
        )


def show_example(model, asked, template, system=None):
    """Show the first prompt as the model gets it, on stderr."""
    (text,) = models.render(model.tokenizer, asked[:1], template=template, system=system)
    say(
        f"The first of {len(asked)} prompts, as {model.name} is given it:",
        *(f"  | {line}" for line in text.split("\n")),
        err=True,
    )


def asked_of(
    pair, world, prompts, allowed, *, split="test", limit=None, judge, template, max_new_tokens
):
    """Return the questions of a study: a world's own, or what --prompts and --allowed hold."""
    own = prompts or allowed or (judge, template, max_new_tokens) != (None, "chat", None)
    if world and not prompts:
        if own:
            raise ValueError(
                "--allowed, --judge, --template and --max-new-tokens go with --prompts FILE."
            )
        return measures.world_questions(world, split, limit)
    if not pair or prompts is None:
        raise ValueError(
            "--pair of no built-in world and --prompts FILE, what it should refuse, go together."
        )
    # A file of both kinds, as XSTest's, serves as both.
    asked = requests("forbidden", prompts, limit), requests("allowed", allowed, limit)
    return measures.Questions(*asked, judge or "rule", template, max_new_tokens or 60)
