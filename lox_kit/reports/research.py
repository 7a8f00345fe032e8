"""Studies in words: k and alpha, controls, what lies in the subspace, and who gets past it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np

from lox_kit.folders import write_whole
from lox_kit.measures import Share
from lox_kit.studies import AttackTable, Choice, Overlaps, pooled
from lox_kit.text import p_text

from .table import markdown, paired, share_rows, table_caption, told, write_both, write_table

EQUAL = 0.02  # of helpfulness
SHOWN = ("asr", "refusal", "helpfulness", "task")  # of attackers who know LoX
COSTS = {"helpfulness": "help", "over_refusal": "over-refusal", "refusal": "refusal", "asr": "ASR"}
AFTER = {"asr": "ASR", "task": "task"}  # of a sweep, after an attack


def write_sweep(table: AttackTable, out: str | Path) -> str:
    """Write a sweep's figure, its data (which `lox choose` reads) and its text; return the text."""
    return write_both(table, "sweep", sweep_text(table), out)


def sweep_text(table: AttackTable) -> str:
    """Return every setting's costs before and shares after each attack, as Markdown."""
    cells = {(measure, None): what for measure, what in COSTS.items()}
    for attack in table.attacks:
        cells |= {(name, attack): f"{what} after {attack}" for name, what in AFTER.items()}
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


def write_controls(table: AttackTable, out: str | Path) -> str:
    """Write figure, data and table as `write_table` does, and the paired tests; return those."""
    write_table(table, "defences", out)
    text = controls_text(table)
    write_whole(Path(out) / "controls.md", text)
    return text


def controls_text(table: AttackTable) -> str:
    """Return LoX beside each other arm after every attack, as Markdown.

    The requests of all seeds are paired one by one (exact McNemar); the p-values of all tests
    together are adjusted by Holm's method.
    """
    others = [arm for arm in table.column("arm") if arm != "LoX"]
    cells = list(product(table.attacks, others))
    pairs = [paired(table, "asr", (arm, at), ("LoX", at), "y") for at, arm in cells]
    rows = []
    for (attack, arm), pair, p in zip(cells, pairs, holm([x.p_value for x in pairs]), strict=True):
        difference = "{:+.2f} [{:+.2f}, {:+.2f}]".format(*pair.difference)
        counts = f"{pair.only_first} : {pair.only_second}"
        helped = table.pooled("helpfulness", None, arm)
        rows.append(
            [attack, arm, helped, *pair.shares, difference, counts, p_text(p).removeprefix("p = ")]
        )
    heads = ["after", "arm", "help before", "its ASR", "LoX's ASR", "difference", "only one", "p"]
    helped = table.pooled("helpfulness", None, "LoX")
    caption = (
        f"LoX's help before the attack: {helped}. Only one: requests that harm in the arm alone, "
        "and in LoX alone. p: exact McNemar over all seeds' requests, which takes seeds as alike; "
        f"Holm's method for all rows. {table_caption(table)}"
    )
    return "\n".join([*markdown(heads, rows), "", caption, ""])


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return p-values adjusted for their number, step-down (Holm 1979): at most 1, in their order.

    Rejecting those up to .05 keeps the chance of any false rejection to .05.
    """
    p, order = np.asarray(p_values, float), np.argsort(p_values, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted


def write_overlaps(found: Overlaps, out: str | Path) -> str:
    """Write the figure, its data and its text; return the text."""
    return write_both(found, "overlaps", overlaps_text(found), out)


def overlaps_text(found: Overlaps) -> str:
    """Return a row per change and seed, and the rank correlation with the ASR gained."""
    heads = ["seed", "change", "in the subspace", "by chance", "ASR before", "ASR after"]
    rows = []
    for row in found.rows:
        before, after = (Share(s["count"], s["n"]) for s in (row["before"], row["measures"]["asr"]))
        asr = (before, after) if row["gained"] is not None else ("", after)
        shares = (f"{row[name]:.3f}" for name in ("share", "chance"))
        rows.append([row["seed"], row["change"], *shares, *asr])
    lines = [*markdown(heads, rows), ""]
    if len(found.gains()) > 2:
        rho, p, n = found.rank_correlation()
        lines += [
            f"Over {n} attacks the overlap beyond chance and the ASR gained have a rank "
            f"correlation (Spearman) of {rho:+.2f}, permutation p = {p:.2g}, which takes seeds as "
            "independent.",
            "",
        ]
    k = found.source["k"]
    lines += [
        f"In the subspace: |U_k U_k^T dW|² / |dW|² over all matrices, k = {k}, of the weights' "
        "change by the attack, or by aligning the same base once more in another order, or on half "
        "of the rows. By chance: of a random subspace of that rank.",
        "",
    ]
    return "\n".join(lines)


def write_knowing(table: AttackTable, out: str | Path) -> str:
    """Write figure, data and table, and what `knowing_text` says; return the text."""
    write_table(table, "attack_table", out)
    text = knowing_text(table)
    write_whole(Path(out) / "knowing.md", text + "\n")
    return text


def knowing_text(table: AttackTable) -> str:
    """Say who wins at equal help among models attacked through LoRA, and what a search found.

    Not clearly worse than the lowest ASR is what Newcombe's interval of the difference says, over
    all seeds' requests together.
    """
    found = {}
    for _, *group in table.groups:
        shares = {name: table.shares(name, *group) for name in SHOWN}
        if group[1] == "LoRA" and shares["helpfulness"]:
            found[f"{group[2]} after {group[0]}"] = {n: pooled(s) for n, s in shares.items() if s}
    lines = [
        f"- {name}: {', '.join(f'{what} {share}' for what, share in shares.items())}."
        for name, shares in found.items()
    ]
    if found:
        most = max(shares["helpfulness"].value for shares in found.values())
        near = {n: s["asr"] for n, s in found.items() if s["helpfulness"].value >= most - EQUAL}
        least = min(near.values(), key=lambda asr: asr.value)
        win = [name for name, asr in near.items() if asr.minus(least)[1] <= 0]
        lines.append(
            f"- Of the {len(near)} that help as much as any, within {EQUAL:g}, the lowest ASR, or "
            f"not clearly more: {'; '.join(win) if len(win) < len(near) else 'all of them'}."
        )
    trials = table.source.get("trials", [])
    for arm, seed in dict.fromkeys((t["arm"], t["seed"]) for t in trials):
        tried = [t for t in trials if (t["arm"], t["seed"]) == (arm, seed)]
        best, within = max(tried, key=lambda t: t["value"]), sum(t["value"] >= 0 for t in tried)
        how = f"{'LoRA' if best['lora'] else 'full'}, learning rate {best['learning_rate']:.2g}"
        lines.append(
            f"- {arm}, seed {seed}: {within} of {len(tried)} trials keep help and task within "
            f"{table.source['loss']:g}; the worst ({how}, {best['max_steps']} steps) has ASR "
            f"{best['measures']['asr']['value']:.2f} on development requests."
        )
    return "\n".join(lines)
