"""The whole story on the sandbox, as `lox demo` and `make demo` tell it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lox_kit.folders import write_whole
from lox_kit.store import Store
from lox_kit.studies import Comparison, OnStage


def run_demo(
    seeds: Sequence[int],
    out: Path,
    *,
    from_scratch: bool = False,
    store: Store,
    on_stage: OnStage,
) -> Comparison:
    """Factor, extrapolate, attack and measure the sandbox; write figures and table to `out`.

    Everything finished is in the store: run again after a cut, it goes on where it was.
    """
    from lox_kit.studies import compare_defences

    comparison = compare_defences(seeds, store=store, rebuild=from_scratch, on_stage=on_stage)
    on_stage("drawing the figures", 0, 0)
    _draw(seeds[0], from_scratch, comparison, Path(out))
    return comparison


def _draw(seed: int, from_scratch: bool, comparison: Comparison, out: Path) -> None:
    """Write the three figures and the table."""
    from lox_kit.extrapolation import FULL, SafetySubspace, energy_map_data, spectrum_data
    from lox_kit.figures import save_figure
    from lox_kit.studies import pair_of

    subspace = SafetySubspace.from_pair(*pair_of(seed, from_scratch), rank=FULL)
    save_figure(spectrum_data(subspace), "spectrum", out)
    save_figure(energy_map_data(subspace, k=6), "energy_map", out)
    save_figure({"figure": "defences", **comparison.to_dict()}, "defences", out)
    write_whole(out / "defences.md", markdown_table(comparison))


MEASURES = {
    "asr": "ASR",
    "refusal": "refusal",
    "degenerate": "broken",
    "helpfulness": "help",
    "over_refusal": "over-\nrefusal",
    "task": "task",
}
FALL = "fall of\nASR"


def table_rows(comparison: Comparison) -> list[list[tuple[str, str]]]:
    """Return the table's cells, each a value and its 95 % interval: seed, arm, when, shares, fall.

    One row per seed, arm and moment; the fall of ASR stands in the rows after the attack.
    """
    rows = []
    for row in comparison.rows:
        seed, arm, moment = row["seed"], row["arm"], row["moment"]
        shares = (row["measures"][m] for m in MEASURES)
        cells = [_cell(s["value"], s["low"], s["high"]) for s in shares]
        shown = moment == "after" and arm != "aligned"
        fall = _cell(*comparison.fall(seed, arm)) if shown else ("", "")
        rows.append([(str(seed), ""), (arm, ""), (moment, ""), *cells, fall])
    return rows


def _cell(value: float, low: float, high: float) -> tuple[str, str]:
    """Return a share and its interval as text: 0.91 and .88-.94."""
    ends = [f"{x:.2f}".replace("0.", ".", 1).replace("-.00", ".00") for x in (low, high)]
    between = " to " if low < 0 else "-"
    return f"{value:.2f}".replace("-0.00", "0.00"), between.join(ends)


def markdown_table(comparison: Comparison) -> str:
    """Return the table as Markdown, with what its numbers are."""
    heads = [h.replace("-\n", "-").replace("\n", " ") for h in (*MEASURES.values(), FALL)]
    lines = ["| " + " | ".join(["seed", "arm", "attack", *heads]) + " |", "|---" * 10 + "|"]
    for row in table_rows(comparison):
        cells = (f"{value} [{interval}]" if interval else value for value, interval in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", caption(comparison), ""])


def caption(comparison: Comparison) -> str:
    """Say in words what the table holds, what each arm did, and where LoX did not help."""
    s, seeds = comparison.source, comparison.seeds
    forbidden, allowed, sums = (
        comparison.share(seeds[0], "aligned", "after", m).n for m in ("asr", "helpfulness", "task")
    )
    others = [arm for arm in comparison.arms if arm != "aligned"]
    falls = {arm: [comparison.fall(seed, arm) for seed in seeds] for arm in others}
    means = ", ".join(f"{arm} {sum(f[0] for f in fs) / len(fs):.2f}" for arm, fs in falls.items())
    return (
        f"Sandbox, attack {s['attack']}, {s['split']} prompts of each seed: {forbidden} forbidden "
        "(ASR: the exact recipe; refusal; broken: empty or repeating itself), "
        f"{allowed} allowed (help: the exact recipe; over-refusal), {sums} held-out sums of the "
        f"attack's own task. LoX: k={s['k']}, alpha={s['alpha']:g}; the controls step equally far "
        "in every matrix. Ranges are 95 % Wilson intervals; fall of ASR is aligned minus this arm "
        f"after the attack, with Newcombe's interval."
        f"{_verdict(seeds, falls.get('LoX', []))}{f' Mean fall: {means}.' if means else ''}"
    )


def _verdict(seeds: Sequence[int], falls: list[tuple[float, float, float]]) -> str:
    """Say in which seeds LoX's fall of ASR is not clear of 0."""
    if not falls:
        return ""
    unclear = [str(seed) for seed, (_, low, _) in zip(seeds, falls, strict=True) if low <= 0]
    if unclear:
        return f" LoX does not clearly lower ASR in seed {', '.join(unclear)}."
    return " LoX lowers ASR in every seed with an interval that excludes 0."


def print_comparison(comparison: Comparison) -> None:
    """Print the table, narrow enough for a terminal of 80 columns."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=0)
    table.add_column("arm", no_wrap=True)
    table.add_column("attack", no_wrap=True)
    for head in (*MEASURES.values(), FALL):
        table.add_column(head, justify="right", no_wrap=True)
    last = None
    for row in table_rows(comparison):
        (seed, _), (arm, _), (moment, _), *cells = row
        if seed != last:
            table.add_row(f"[bold]seed {seed}[/]")
            last = seed
        shown = ["\n".join((value, f"[dim]{i}[/]")) if i else value for value, i in cells]
        table.add_row(arm.replace(" ", "\n"), moment, *shown, end_section=moment == "after")
    console = Console()
    console.print(table)
    console.print(caption(comparison), style="dim", width=min(console.width, 100))
