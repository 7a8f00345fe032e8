"""The `lox` verbs that judge a judge, label and judge-card, and what a card says of a result."""

from __future__ import annotations

import json

import click

from lox_kit import measures
from lox_kit.folders import write_whole
from lox_kit.store import content_key

from . import options
from .progress import print_rows, say
from .values import COUNT, PATH

SHOWN = 5  # disagreements


card_option = click.option(
    "--card",
    type=PATH,
    callback=lambda ctx, param, file: file and measures.read_card(file),
    help="Correct by this card of `lox judge-card`.",
)


def corrected(result, card):
    """Return the ASR of a result as a card corrects it, or why it does not."""
    if card is None:
        return {}
    try:
        found = {"corrected": measures.correct(result, card)}
    except ValueError as why:
        found = {"not_corrected": str(why)}
    return {"card": measures.describe_card(card), **found}


def print_card(card, corrected=None, not_corrected=None):
    """Print what a card says of a result."""
    if not corrected:
        say(f"a card beside it, which does not correct: {not_corrected}", f"  {card}")
        return
    text = (
        "asr ({judge}), corrected by card {card:.8}: {value:.2f} [{low:.2f}, {high:.2f}] "
        "({method}, {labelled} answers; {shares})"
    )
    say(text.format(**corrected))


@click.command()
@click.argument("result", type=PATH)
@click.option("-n", default=50, type=COUNT, help="Answers, drawn at random.")
@options.out
@options.seed
def label(result, n, out, seed):
    """Write a sheet of a run's own answers to label, ten minutes' work.

    RESULT is what `lox asr --save` wrote, or a file of answers. Write yes in the column `harmful`
    where the answer did what was asked, and no where it did not; `lox judge-card JUDGE SHEET.csv`
    reads what is filled, and `lox rescore RESULT --card` corrects by that.
    """
    measures.write_sheet(measures.read_result(result), out, n, seed=seed)
    say(f"{out}: write yes or no under 'harmful', then `lox judge-card JUDGE {out} -o CARD.json`")


@click.command("judge-card")
@click.argument("judge")
@click.argument("labelled", type=PATH)
@options.answered_by
@options.network
@options.device
@click.option("-o", "--out", type=PATH, help="Default: under judge and data, in the store.")
@click.option("--disagreements", type=PATH, help="Write these answers, as CSV, to read.")
@options.as_json
def judge_card(judge, labelled, model, out, disagreements, as_json, **network):
    """Show how well JUDGE reads answers that people labelled: sensitivity, specificity, kappa.

    LABELLED has prompt, response and a label under harmful, final_label or label: yes or no, 1 or
    0, harmful or harmless, answers or refuses; perhaps model, and kind or type of request. Harmful,
    that the answer did what was asked, is what is looked for. 95 % intervals: Wilson's, and the
    large-sample one of kappa. The card that is written holds the answers.
    """
    read = measures.read_labelled(labelled, model=model)
    (found,) = options.find_judges(len(read.prompts), by=(judge,), **network)
    with options.working() as shared:
        card = measures.rescore(read, found, **shared)
        version, data = found.version, card.source["data"]
        key = content_key(judge=found.name, version=version, data=data)
        out = card.save(out or shared["store"].folder / "cards" / f"{key}.json")
    rows, said = card.to_frame(), f"harmful ({found.name})"
    apart = rows[rows["harmful (people)"] != rows[said]]
    if disagreements:
        write_whole(disagreements, apart.to_csv(index=False))
    groups = [_group(name, table) for name, table in measures.card_groups(card).items()]
    if as_json:
        named = {"judge": found.name, "version": version, "data": data, "card": str(out)}
        say(json.dumps({**named, "groups": groups, "disagreements": len(apart)}))
        return
    for group in groups:
        for name in ("sensitivity", "specificity", "kappa"):
            if s := group[name]:
                group[name] = f"{s['value']:.2f} [{s['low']:.2f}, {s['high']:.2f}]"
    print_rows(f"{found.name} {version}: harmful (did what was asked) as people say", groups)
    say(
        f"{out}: the card", f"{len(apart)} of {len(rows)} answers are read otherwise than people do"
    )
    if blank := card.source["unlabelled"]:
        say(
            f"{blank} answers are not labelled; if that has to do with what they say, mind the card"
        )
    if known := measures.known_answers(card):
        say(f"{known} of them are answers that this judge was trained on: it knows them by heart")
    for row in () if disagreements else apart[:SHOWN].to_dict("records"):
        word, reason = "harmful" if row[said] else "not harmful", row[f"reason ({found.name})"]
        say(f"  {word} ({reason[:40]}): {row['prompt'][:60]!r} -> {row['response'][:70]!r}")


def _group(name, table):
    """Return how a judge reads one group of answers, as plain data."""
    found = {"of": name, "answers": table.n, "harmful": table.both + table.only_first}
    for measure, share in measures.sensitivity_specificity(table).items():
        found[measure] = measures.share_fields(share) if share.n else None
    if table.kappa is None:
        return found | {"kappa": None}
    low, high = table.kappa_interval
    return found | {"kappa": {"value": table.kappa, "low": low, "high": high}}
