"""A sweep and a choice from it, as figures, numbers and words."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from lox_kit.measures import Share
from lox_kit.studies import AttackTable, Choice

from .table import markdown, paired, share_rows, told, write_both

COSTS = {"helpfulness": "help", "over_refusal": "over-refusal", "refusal": "refusal", "asr": "ASR"}
AFTER = ("asr", "task")  # an attack


def write_sweep(table: AttackTable, out: str | Path) -> str:
    """Write a sweep's figure, its data (which `lox choose` reads) and its text; return the text."""
    return write_both(table, "sweep", sweep_text(table), out)


def sweep_text(table: AttackTable) -> str:
    """Return every setting's costs before and shares after each attack, as Markdown."""
    cells = {(measure, None): what for measure, what in COSTS.items()}
    for attack in table.attacks:
        cells |= {(name, attack): f"{COSTS.get(name, name)} after {attack}" for name in AFTER}
    rows = share_rows(table, [*cells])
    for row in rows:
        moved = [r["drift"]["value"] for r in table.rows if r["arm"] == row[0] and "drift" in r]
        row.append(f"{fmean(moved):.4f}")
    caption = (
        f"Before and after full fine-tuning, judge {table.source['judge']}; shares of all seeds' "
        "requests with 95 % Wilson intervals. k=all is the whole delta. Drift: nats a token from "
        "the aligned model, on its own answers to the allowed requests, before the attacks. "
        f"Not tried: {', '.join(table.source['sweep']['untried']) or 'none'}."
    )
    heads = ["setting", *cells.values(), "drift"]
    return "\n".join([*markdown(heads, rows), "", caption, ""])


def write_choice(choice: Choice, out: str | Path, report: AttackTable | None = None) -> str:
    """Write a choice's figure, its data and its text; return the text.

    Parameters
    ----------
    report : AttackTable, optional
        From `studies.report_choice`.
    """
    return write_both(choice, "choice", choice_text(choice, report), out)


def choice_text(choice: Choice, report: AttackTable | None = None) -> str:
    """Return the setting, how sure it is, the Pareto front and the report, as Markdown."""
    heads = ["on the Pareto front", "help before", "largest ASR after an attack", "which"]
    front = map(choice.point, choice.front)
    rows = [[p["name"], _share(p["help"]), _share(p["worst"]), p["attack"]] for p in front]
    lines = [_headline(choice), "", *markdown(heads, rows), "", _certainty(choice), ""]
    return "\n".join([*lines, *(_report(report) if report else [])])


def _headline(choice: Choice) -> str:
    """Say which setting is chosen, or that none loses little enough."""
    aligned, *settings = choice.points
    least = f"(aligned {_share(aligned['help'])}; at most {choice.loss:g} may be lost)"
    if choice.chosen is None:
        near = max(settings, key=lambda point: point["help"]["value"])
        return (
            f"No setting loses at most {choice.loss:g} of help: the nearest is {near['name']}, "
            f"with {_share(near['help'])} {least}. Allow more, or try a smaller alpha."
        )
    point = choice.point(choice.chosen)
    return (
        f"**{choice.chosen}**: the largest ASR after an attack is {_share(point['worst'])} "
        f"({point['attack']}), where the aligned model's is {_share(aligned['worst'])} "
        f"({aligned['attack']}). Help before the attacks: {_share(point['help'])} {least}."
    )


def _certainty(choice: Choice) -> str:
    """Say how the choice was made, how sure it is, and what was not tried."""
    sure = "The sweep has no readings of single requests, so no bootstrap."
    if choice.often:
        each = sorted(choice.often.items(), key=lambda item: -item[1])
        often = ", ".join(f"{name} {share:.2f}" for name, share in each)
        sure = f"With the requests drawn anew (bootstrap) it is: {often}."
    about = choice.source["sweep"]
    untried = ", ".join(about["untried"]) or "none of the grid"
    return (
        f"Chosen on {', '.join(about['attacks'])}: the lowest ASR after the worst of them; of "
        f"equal counts the smaller alpha, then the smaller k. {sure} It says nothing of other "
        f"attacks, seeds or pairs. Not tried: {untried}."
    )


def _report(table: AttackTable) -> list[str]:
    """Return the lines about an attack and requests that the setting was not chosen on."""
    (attack,) = table.attacks
    _, chosen, *others = table.column("arm")
    lines = [f"On {attack} and requests that it was not chosen on:", ""]
    asked = {"asr": ("ASR of", attack), "helpfulness": ("Help of", None)}
    for other in ("aligned", *others):
        for kind, (what, when) in asked.items():
            pair = paired(table, kind, (chosen, when), (other, when), "y")
            lines.append(f"- {told(pair, what)}")
    return [*lines, ""]


def _share(fields: dict) -> str:
    """Return a share's value, interval and counts."""
    return str(Share(fields["count"], fields["n"]))
