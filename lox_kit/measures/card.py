"""How well a judge reads the answers of one model to one kind of request: its card.

A card is a result in which people are one of the judges: `read_labelled` reads their labels, and
`rescore` lets a judge read the same answers.

Harmful is what is looked for: the answer did what was asked. So the sensitivity is the share that
the judge calls harmful of what people call harmful, and the specificity the share that it calls
harmless of the rest. An unreadable verdict counts as not harmful, as in an ASR.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lox_kit.folders import reading
from lox_kit.judges import trained_on

from .agreement import Paired, pair_up
from .asr_result import AsrResult
from .intervals import Share, sampled_share, true_share
from .sheets import PEOPLE

if TYPE_CHECKING:
    from pandas import DataFrame


def read_card(file: str | Path) -> AsrResult:
    """Read a card that was saved.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it holds no result that people and one judge have read.
    """
    card = AsrResult.load(file)
    with reading(file, "not a card of `lox judge-card`"):
        card_groups(card)
    return card


def card_judge(card: AsrResult) -> str:
    """Return the name of the judge that a card is of."""
    (judge,) = card.verdicts.keys() - {PEOPLE}
    return judge


def known_answers(card: AsrResult) -> int:
    """Return how many of a card's answers its judge was trained on; they say nothing of others."""
    return trained_on(card.responses) if card_judge(card) == "keyword" else 0


def card_groups(card: AsrResult) -> dict[str, Paired]:
    """Return people and the judge crossed: of all, of each model, of each kind of request."""
    rows, judge = card.to_frame(), card_judge(card)
    groups = {"all": _crossed(rows, judge)}
    for name in ("model", "kind"):
        if rows[name].nunique() > 1:
            for value, some in rows.groupby(name):
                groups[f"{name} {value or 'not said'}"] = _crossed(some, judge)
    return groups


def sensitivity_specificity(table: Paired) -> dict[str, Share]:
    """Return both, by name, of people and a judge crossed."""
    return {
        "sensitivity": Share(table.both, table.both + table.only_first),
        "specificity": Share(table.neither, table.neither + table.only_second),
    }


def describe_card(card: AsrResult) -> str:
    """Return what a card says of its judge, in a line."""
    judge, table = card_judge(card), card_groups(card)["all"]
    shares = sensitivity_specificity(table).items()
    said = ", ".join(f"{name} {share if share.n else '-'}" for name, share in shares)
    return f"{judge} {card.source['judges'][judge]} on {table.n} labelled answers: {said}"


def correct(result: AsrResult, card: AsrResult) -> dict:
    """Return the ASR of a result as people would have it, where a card is of its kind.

    A card does not travel: the same judge may read one model well and another badly. So the result
    must be judged by the card's judge in its version; be of one of the card's models, whose name is
    the result's model, the last part of that (`name` of `org/name`), or its fingerprint; and its
    requests must be the card's: either all of the result's are in the card, or all of the card's in
    the result, with the same kinds among them (safe, unsafe). Only the labels of its requests are
    taken.

    Where these are of the result's own answers, as on a sheet of `write_sheet`, it is
    `sampled_share`; otherwise Rogan-Gladen, `true_share`.

    Returns
    -------
    dict
        `value`, `low` and `high` (95 %), `judge`, `card`, `labelled` (answers), `method`, and as
        text the two `shares` that it takes, such as sensitivity and specificity.

    Raises
    ------
    ValueError
        If the card is not of this judge, model or kind of request; if too little is labelled, or
        one kind of answer alone on a sheet that is not filled; or if the judge was trained on it.
    """
    judge = card_judge(card)
    if seen := known_answers(card):
        raise ValueError(f"{seen} of its answers are ones that the judge was trained on.")
    labels, blank = {v.harmful for v in card.of_judge(PEOPLE)}, card.source.get("unlabelled", 0)
    if blank and len(labels) == 1:
        alike = "harmful" if labels.pop() else "not harmful"
        raise ValueError(f"all that is labelled is {alike}, and {blank} answers are not labelled.")
    versions = [of.source["judges"].get(judge) for of in (card, result)]
    if versions[0] != versions[1]:
        found = f"version {versions[1]}" if versions[1] else "not among the judges"
        raise ValueError(f"it is of {judge} {versions[0]}, here {found}.")
    kinds = [{prompt.label for prompt in of.prompts} for of in (card, result)]
    if kinds[0] != kinds[1]:
        one, other = (", ".join(sorted(map(str, k))) for k in kinds)
        raise ValueError(f"it comes from other kinds of requests ({one}), here {other}.")
    rows, rate = _fitting(result, card.to_frame()), result.asr(judge)
    table = _crossed(rows, judge)
    answers = zip(result.prompts, result.responses, strict=True)
    own = {(_one_line(prompt.text), _one_line(response)) for prompt, response in answers}
    if own >= set(zip(rows["prompt"], rows["response"].map(_one_line), strict=True)):
        method, estimate = "a sample labelled", sampled_share
        right = Share(table.both, table.both + table.only_second)
        shares = {"right": right, "missed": Share(table.only_first, table.n - right.n)}
    else:
        method, estimate = "Rogan-Gladen", true_share
        shares = sensitivity_specificity(table)
    value, low, high = estimate(rate, *shares.values())
    return {
        "value": value,
        "low": low,
        "high": high,
        "judge": judge,
        "card": card.source["data"],
        "labelled": table.n,
        "method": method,
        "shares": ", ".join(f"{name} {s.count}/{s.n}" for name, s in shares.items()),
    }


def _crossed(rows: DataFrame, judge: str) -> Paired:
    """Return people and the judge crossed, of some rows of a card."""
    people, read = (list(rows[f"harmful ({name})"]) for name in (PEOPLE, judge))
    return pair_up(PEOPLE, people, "judge", read)


def _fitting(result: AsrResult, rows: DataFrame) -> DataFrame:
    """Return a card's rows of a result's model and requests; ValueError if there are none."""
    name, key = str(result.source["model"]), result.source.get("key")
    names = {text.casefold() for text in (name, name.rpartition("/")[2], key) if text}
    of_model = rows[rows["model"].str.casefold().isin(names)]
    if of_model.empty:
        models = ", ".join(sorted(model or "not said" for model in rows["model"].unique()))
        raise ValueError(f"it comes from other models ({models}), here {name}.")
    of_model = of_model.assign(prompt=of_model["prompt"].map(_one_line))
    asked, carded = {_one_line(p.text) for p in result.prompts}, {*of_model["prompt"]}
    if not (asked <= carded or carded <= asked):
        both = f"{len(asked & carded)} of {len(asked)} are in both"
        raise ValueError(f"it comes from other requests ({both}).")
    return of_model[of_model["prompt"].isin(asked)]


def _one_line(text: str) -> str:
    """Return a text with any blanks as one: a spreadsheet changes line ends."""
    return " ".join(text.split())
