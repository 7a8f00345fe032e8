"""The table of attackers who know LoX: its files, and what it shows in words."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

from lox_kit.folders import write_whole
from lox_kit.studies import AttackTable, pooled

from .table import write_table

EQUAL = 0.02  # of helpfulness


def write_knowing(table: AttackTable, out: str | Path) -> str:
    """Write figure, data and table, and what `knowing_text` says; return the text."""
    write_table(table, "attack_table", out)
    text = knowing_text(table)
    write_whole(Path(out) / "knowing.md", text + "\n")
    return text


def knowing_text(table: AttackTable) -> str:
    """Say who wins among models attacked through LoRA that help equally, and what a search found.

    Differences have Newcombe's interval, over all seeds' requests together.
    """
    groups = [g for g in table.groups if g[0] == "asr" and g[2] == "LoRA"]
    lines = []
    for one, other in combinations(groups, 2):
        helped = [pooled(table.shares("helpfulness", *group[1:])).value for group in (one, other)]
        if abs(helped[0] - helped[1]) <= EQUAL:
            first, second = (pooled(table.shares(*group)) for group in (one, other))
            fall, low, high = first.minus(second)
            names = [f"{arm} after {attack}" for _, attack, _, arm in (one, other)]
            lines.append(
                f"- Equal help ({helped[0]:.2f}, {helped[1]:.2f}): ASR of {names[0]} {first}, of "
                f"{names[1]} {second}; difference {fall:+.2f} [{low:+.2f}, {high:+.2f}]."
            )
    if groups and not lines:
        lines.append(f"- No two models attacked through LoRA help equally, within {EQUAL}.")
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
