"""The `lox` verbs that measure: asr, rescore, compare, and utility, what safety costs."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress

import click

from lox_kit import attacks, judges, measures, models, sandbox

from . import cards, options
from .progress import print_rows, print_shares, say
from .values import COUNT, NUMBERS, PATH


def _system(text, file):
    """Return the system message from --system and --system-from."""
    if file is None:
        return text
    if text is not None:
        raise ValueError("--system and --system-from: give one of the two.")
    return (
        sandbox.world.persona_system() if str(file) == "sandbox" else attacks.identity_system(file)
    )


def _as_data(result, card):
    """Return the shares of an AsrResult, how far its judges agree, and what a card says."""
    said = {"model": result.source["model"], **result.summary(), **cards.corrected(result, card)}
    return {**said, "agreement": [pair.to_dict() for pair in result.agreement]}


def _print(result, card):
    """Print the same."""
    n, tokens = len(result.prompts), result.source["max_new_tokens"]
    limit = f"{tokens} tokens" if tokens else f"token limit unknown ({result.source['answers']})"
    title = f"{result.source['model']}, {n} prompts, {limit}, 95 % Wilson intervals"
    print_shares(title, result.summary())
    if "keyword" in result.verdicts:
        say("keyword counts every answer that neither refuses nor is broken, harmful or not")
    if result.agreement:
        names = ("both", "only_first", "only_second", "neither", "left_out", "agree", "kappa")
        rows = [
            {"judges": f"{pair.first}, {pair.second}"}
            | {name.removeprefix("only_").replace("_", " "): getattr(pair, name) for name in names}
            for pair in result.agreement
        ]
        print_rows("harmful by ... of two judges", rows)
    if card:
        cards.print_card(**cards.corrected(result, card))


@click.command()
@click.argument("model", required=False)
@options.served
@options.prompts
@options.judging
@options.template
@click.option("--system", help="A system message before each request.")
@click.option(
    "--system-from",
    type=PATH,
    metavar="FILE",
    help="Take it from identity-shifting data; 'sandbox' is the sandbox's own.",
)
@options.max_new_tokens
@click.option(
    "--lengths",
    type=NUMBERS,
    help="Judge one generation cut at several limits, 30,60,120; --save keeps the longest.",
)
@click.option(
    "--batch-size", type=COUNT, help="Most prompts at once. [default: 32 on a CPU, else 128]"
)
@click.option("--samples", type=COUNT, help="Draw so many answers to each prompt, not greedily.")
@click.option("--temperature", default=1.0, help="Of --samples.")
@options.limit
@options.save
@cards.card_option
@options.device
@options.dtype
@options.as_json
def asr(
    model, served, name, served_option, prompts, template, system, system_from, max_new_tokens,
    lengths, batch_size, samples, temperature, limit, save, overwrite, card, dtype, as_json,
    **judging,
):  # fmt: skip
    """Measure attack success rate, refusal and degenerate answers, with 95 % intervals.

    An unreadable verdict counts as not harmful; if there are any, the rate among the readable ones
    is shown as well. The key of every server comes from OPENAI_API_KEY alone.
    """
    if (name is None) != (served is None) or (model is None) == (served is None):
        raise ValueError("name a model: MODEL, or --served URL --model NAME.")
    world = (model and models.world_of(model)) or "sandbox"
    asked = options.requests("forbidden", prompts, limit, world)
    again = save and not overwrite and _is_of(save, model or name, asked)
    options.check_place(save, overwrite or again)
    readers = options.find_judges(len(asked), world=world, **judging)
    how = {"template": template, "system": _system(system, system_from)}
    if served:
        how["template"], arguments = models.template_args(template)
        if arguments:
            served_option = (*served_option, {"chat_template_kwargs": arguments})
        given = (len(asked), served, name, served_option, max_new_tokens)
        loaded = options.find_served(*given, **judging)
    else:
        loaded = models.load_model(model, dtype=dtype)
        options.show_example(loaded, asked, **how)
    how["batch_size"] = batch_size
    if samples:
        if served or lengths or save or card or len(readers) > 1:
            raise ValueError("--samples: without --served, --lengths, --save, --card; one judge.")
        how |= {"samples": samples, "temperature": temperature, "max_new_tokens": max_new_tokens}
        with options.working() as shared:
            drawn = measures.measure_samples(loaded, asked, readers[0], **how, **shared)
        _say_samples(drawn, temperature, as_json)
        return
    with options.working() as shared:
        how["lengths"] = lengths or [max_new_tokens]
        found = measures.measure_at_lengths(loaded, asked, readers, **how, **shared)
    *_, longest = found.values()
    if again and not longest.is_in(save):
        options.check_place(save, overwrite)
    if save:
        longest.save(save)
    if not as_json:
        for result in found.values():
            _print(result, card)
    elif lengths:
        by_length = {tokens: _as_data(result, card) for tokens, result in found.items()}
        say(json.dumps({"model": longest.source["model"], "lengths": by_length}))
    else:
        say(json.dumps(_as_data(longest, card)))


def _is_of(file, model, asked):
    """Whether a saved result is of this model and these requests: perhaps of the same call."""
    with suppress(OSError, ValueError):
        found = measures.AsrResult.load(file)
        return (found.source["model"], found.prompts) == (model, tuple(asked))
    return False


def _say_samples(drawn, temperature, as_json):
    """Print both rates of drawn answers."""
    if as_json:
        say(json.dumps({"temperature": temperature, **drawn.to_dict()}))
        return
    n = len(drawn.results)
    say(
        f"{n} answers to each of {len(drawn.harmful)} prompts, drawn at temperature {temperature}",
        f"asr of one draw: {drawn.asr}",
        f"at least one of {n} harmful: {drawn.any}",
    )


@click.command()
@click.argument("result", type=PATH)
@options.judging
@options.answered_by
@options.save
@cards.card_option
@options.device
@options.as_json
def rescore(result, model, save, overwrite, card, as_json, **judging):
    """Let other judges read the answers that `lox asr --save RESULT` kept; nothing is generated.

    RESULT may also be answers made elsewhere: CSV, TSV, JSON(L) or parquet with prompt (goal,
    instruction) and response (completion, answer, output).
    """
    if not (judging["by"] or card):
        raise ValueError("say who is to judge: --judge NAME.")
    options.check_place(save, overwrite)
    kept = measures.read_result(result, model=model)
    if not (judging["by"] or kept.verdicts):
        raise ValueError(f"{result}: nobody has judged these answers; say who: --judge NAME.")
    if judging["by"]:
        found = options.find_judges(len(kept.prompts), **judging)
        with options.working() as shared:
            kept = measures.rescore(kept, *found, **shared)
    if save:
        kept.save(save)
    if as_json:
        say(json.dumps(_as_data(kept, card)))
    else:
        _print(kept, card)


@click.command()
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option("--judge", help="Whose verdicts. [default: the first judge of A]")
@options.as_json
def compare(a, b, judge, as_json):
    """Compare two saved results, prompt by prompt: exact McNemar, and the difference of the shares.

    Of the same prompts, read by the same judge. The interval is Newcombe's for paired shares. Says
    also how many prompts it takes to see ten points.
    """
    one, other = measures.AsrResult.load(a), measures.AsrResult.load(b)
    found = measures.compare(one, other, judge)
    if not found.n:
        raise ValueError(f"{a} and {b}: there is no prompt whose verdict was read in both.")
    shares = found.shares
    value, low, high = found.difference
    needed = found.prompts_needed(0.1)
    if as_json:
        said = {"value": value, "low": low, "high": high}
        say(json.dumps({**found.to_dict(), "difference": said, "prompts_for_ten_points": needed}))
        return
    say(
        f"{found.first}: {shares[0]}",
        f"{found.second}: {shares[1]}",
        f"difference: {value:.2f} [{low:.2f}, {high:.2f}], first minus second",
        str(found),
        f"ten points are seen in four studies of five with {needed} prompts; here are {found.n}",
    )
    for name in ("template", "system", "max_new_tokens"):
        if one.source.get(name) != other.source.get(name):
            say(f"mind that {name} differs: {one.source.get(name)}, {other.source.get(name)}")


@click.command()
@click.argument("model")
@click.option(
    "--harmless",
    type=PATH,
    help="Requests to help with: XSTest-style CSV or lines of .txt. "
    "[default: those of the sandbox, or of smol]",
)
@click.option("--gsm8k", type=PATH, help="GSM8K's published test.jsonl.")
@click.option("--aligned", help="Measure drift from this model, on the harmless requests.")
@click.option("--grade-with", metavar="MODEL", help="Grade helpfulness 1-5 with this chat model.")
@click.option("--base-url", help="Its server: any OpenAI-compatible API.")
@options.template
@options.limit
@options.save
@options.device
@options.dtype
@options.as_json
def utility(
    model, harmless, gsm8k, aligned, grade_with, base_url, template, limit, save, overwrite,
    dtype, as_json,
):  # fmt: skip
    """Measure what safety costs: over-refusal, helpfulness, GSM8K, drift from the aligned model.

    In the sandbox, helpfulness is the share of exact recipes; of any other model it is graded. If
    --harmless has requests labelled unsafe as well, as XSTest does, the refusal of those is
    measured too, and its difference from over-refusal. The paper's GSM8K is what #### solves, of
    all. --save keeps the answers to what --harmless asks, or to GSM8K where it alone is asked.
    """
    options.check_place(save, overwrite)
    loaded = models.load_model(model, dtype=dtype)
    problems = measures.read_gsm8k(gsm8k, limit) if gsm8k else []
    asked = options.requests("allowed", harmless, limit, loaded.world)
    labelled = models.read_prompts(harmless) if harmless else []
    unsafe = [prompt for prompt in labelled if prompt.label == "unsafe"][:limit]
    if not asked and not problems:
        raise ValueError(
            f"{loaded.name} is of no built-in world: say what to ask it, --harmless FILE or "
            "--gsm8k FILE."
        )
    grader = judges.HelpfulnessJudge(grade_with, base_url=base_url) if grade_with else None
    reference = models.load_model(aligned, dtype=dtype) if aligned else None
    found, kept = {}, None
    with options.working() as shared:
        shared["template"] = template
        if asked:
            options.show_example(loaded, asked, template)
            kept, found = _on_harmless(loaded, asked, grader, reference, **shared)
        if unsafe:
            kept = measures.measure_asr(loaded, [*asked, *unsafe], ["keyword"], **shared)
            found |= {name: s for name, s in kept.summary().items() if "safe" in name}
        if problems:
            options.show_example(loaded, problems, template)
            solved = measures.measure_gsm8k(loaded, problems, **shared)
            kept = kept or solved
            shares = {"GSM8K": solved.asr(), "GSM8K without a number": solved.unparsed()}
            for rule, share in measures.by_rule(solved).items():
                shares[f"GSM8K, of those read by {rule}"] = share
            found |= {name: measures.share_fields(share) for name, share in shares.items()}
    if save:
        kept.save(save)
    if as_json:
        say(json.dumps({"model": model, **found}))
    else:
        print_shares(f"{model}, 95 % intervals", found)


def _on_harmless(model, asked, grader, reference, *, on_stage, **options):
    """Return the answers to harmless requests, and what is measured on them as plain data."""
    answered = measures.measure_over_refusal(model, asked, on_stage=on_stage, **options)
    found = {"over-refusal": answered.refusal, "degenerate": answered.degenerate}
    if model.is_sandbox and all(p.target for p in asked):
        answered = measures.rescore(answered, "rule")
        found["exact recipe"] = answered.asr("rule")
    found = {name: measures.share_fields(share) for name, share in found.items()}
    if grader:
        graded = measures.measure_helpfulness(model, asked, grader, on_stage=on_stage, **options)
        found["helpfulness, 1-5"] = dataclasses.asdict(graded.mean_score())
        found["grade unparsed"] = measures.share_fields(graded.unparsed())
    if reference:
        drift = measures.measure_drift(model, reference, asked, **options)
        found["drift, nats a token"] = dataclasses.asdict(drift.mean_kl)
        found["same likeliest token"] = dataclasses.asdict(drift.agreement)
    return answered, found
