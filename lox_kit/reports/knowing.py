"""The table of attackers who know LoX: its files, and what it shows in words."""

from __future__ import annotations

from pathlib import Path

from lox_kit.folders import write_whole
from lox_kit.studies import AttackTable, pooled

from .table import write_table

EQUAL = 0.02  # of helpfulness
SHOWN = ("asr", "refusal", "helpfulness", "task")


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
