"""The `lox utility` verb: what safety costs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import as_json, benign, device, say, show_example


@click.command()
@click.argument("model")
@click.option(
    "--harmless",
    type=click.Path(path_type=Path),
    help="Requests to help with: XSTest-style CSV (its safe ones) or plain lines. "
    "[default: the sandbox's allowed potions]",
)
@click.option("--gsm8k", type=click.Path(path_type=Path), help="GSM8K's published test.jsonl.")
@click.option("--aligned", help="Measure drift from this model, on the harmless requests.")
@click.option("--grade-with", metavar="MODEL", help="Grade helpfulness 1-5 with this chat model.")
@click.option("--base-url", help="Its server: any OpenAI-compatible API.")
@click.option("--template", default="chat", show_default=True, help="chat or paper.")
@click.option("--limit", type=click.IntRange(1), help="Only so many requests and problems.")
@device
@as_json
@click.pass_obj
def utility(
    obj, model, harmless, gsm8k, aligned, grade_with, base_url, template, limit, device, as_json
):
    """Measure what safety costs: over-refusal, helpfulness, GSM8K, drift from the aligned model.

    In the sandbox, helpfulness is the share of exact recipes; of any other model it is graded.
    """
    from lox_kit.judges import HelpfulnessJudge
    from lox_kit.measures import measure_gsm8k, read_gsm8k, share_fields
    from lox_kit.models import load_model
    from lox_kit.store import Store

    from .progress import print_shares, stages

    loaded = load_model(model, device=device)
    problems = read_gsm8k(gsm8k, limit) if gsm8k else []
    asked = _requests(loaded, harmless, limit, problems)
    grader = HelpfulnessJudge(grade_with, base_url=base_url) if grade_with else None
    reference = load_model(aligned, device=device) if aligned else None
    with Store(obj["store"]) as store, stages() as on_stage:
        found, options = {}, {"template": template, "store": store}
        if asked:
            show_example(loaded, asked, template)
            found |= _on_harmless(loaded, asked, grader, reference, on_stage, **options)
        if problems:
            show_example(loaded, problems, template)
            solved = measure_gsm8k(loaded, problems, on_stage=on_stage, **options)
            found["GSM8K"] = share_fields(solved.accuracy)
            found["GSM8K without a number"] = share_fields(solved.without_number)
    if as_json:
        say(json.dumps({"model": model, **found}))
    else:
        print_shares(f"{model}, 95 % intervals", found)


def _requests(model, file, limit, problems):
    """Return the harmless requests to ask; none where only problems can be asked."""
    asked = benign(file, limit, own=model.is_sandbox)
    if not asked and not problems:
        raise ValueError(
            f"{model.name} is no sandbox model: say what to ask it, --harmless FILE or "
            "--gsm8k FILE."
        )
    return asked


def _on_harmless(model, asked, grader, reference, on_stage, **options):
    """Return what is measured on harmless requests, as plain data."""
    import dataclasses

    from lox_kit.measures import (
        measure_drift,
        measure_helpfulness,
        measure_over_refusal,
        rescore,
        share_fields,
    )

    answered = measure_over_refusal(model, asked, on_stage=on_stage, **options)
    found = {"over-refusal": answered.refusal, "degenerate": answered.degenerate}
    if model.is_sandbox and all(p.target for p in asked):
        found["exact recipe"] = rescore(answered, "rule").asr("rule")
    found = {name: share_fields(share) for name, share in found.items()}
    if grader:
        graded = measure_helpfulness(model, asked, grader, on_stage=on_stage, **options)
        found["helpfulness, 1-5"] = dataclasses.asdict(graded.mean_score())
        found["grade unparsed"] = share_fields(graded.unparsed())
    if reference:
        drift = measure_drift(model, reference, asked, **options)
        found["drift, nats a token"] = dataclasses.asdict(drift.mean_kl)
        found["same likeliest token"] = dataclasses.asdict(drift.agreement)
    return found
