"""The `lox utility` verb: what safety costs."""

from __future__ import annotations

import dataclasses
import json

import click

from lox_kit import judges, measures, models

from . import options
from .options import PATH
from .progress import print_shares, say


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
    as_json, **how,
):  # fmt: skip
    """Measure what safety costs: over-refusal, helpfulness, GSM8K, drift from the aligned model.

    In the sandbox, helpfulness is the share of exact recipes; of any other model it is graded. If
    --harmless has requests labelled unsafe as well, as XSTest does, the refusal of those is
    measured too, and its difference from over-refusal. The paper's GSM8K is what #### solves, of
    all. --save keeps the answers to what --harmless asks, or to GSM8K where it alone is asked.
    """
    options.check_place(save, overwrite)
    loaded = models.load_model(model, **how)
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
    reference = models.load_model(aligned, **how) if aligned else None
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
