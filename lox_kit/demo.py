"""The whole story on the sandbox, as `lox demo` and `make demo` tell it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from .store import Store
from .studies import Comparison


def run_demo(
    seeds: Sequence[int],
    out: Path,
    *,
    from_scratch: bool = False,
    store_folder: Path | None = None,
    as_json: bool = False,
) -> Comparison:
    """Factor, extrapolate, attack and measure the sandbox; write figures and table to `out`.

    Everything finished is in the store: run again after a cut, it goes on where it was.
    """
    from .progress import stages
    from .studies import compare_defences

    with Store(store_folder) as store, stages() as on_stage:
        comparison = compare_defences(seeds, store=store, rebuild=from_scratch, on_stage=on_stage)
        on_stage("drawing the figures", 0, 0)
        _draw(seeds[0], from_scratch, comparison, Path(out))
    if as_json:
        click.echo(comparison.to_frame().to_json(orient="records"))
    else:
        _print(comparison)
        click.echo(f"figures and numbers: {out}")
    return comparison


def _draw(seed: int, from_scratch: bool, comparison: Comparison, out: Path) -> None:
    """Write the three figures and the table."""
    from .plots import energy_map_data, save_figure, spectrum_data
    from .studies import pair_of
    from .subspace import FULL, SafetySubspace

    subspace = SafetySubspace.from_pair(*pair_of(seed, from_scratch), rank=FULL)
    save_figure(spectrum_data(subspace), "spectrum", out)
    save_figure(energy_map_data(subspace, k=6), "energy_map", out)
    save_figure({"figure": "defences", **comparison.to_dict()}, "defences", out)
    (out / "defences.md").write_text(markdown_table(comparison))


COLUMNS = (
    ("ASR before", "before", "asr"),
    ("ASR after", "after", "asr"),
    ("refusal after", "after", "refusal"),
    ("degenerate after", "after", "degenerate"),
    ("help before", "before", "helpfulness"),
    ("help after", "after", "helpfulness"),
    ("task after", "after", "task"),
)
FALL = "fall of ASR"


def table_rows(comparison: Comparison) -> list[list[str]]:
    """Return the table's cells: one row per seed and arm, shares with 95 % intervals."""
    rows = []
    for seed in comparison.seeds:
        for arm in comparison.arms:
            cells = [_cell(comparison.share(seed, arm, when, what)) for _, when, what in COLUMNS]
            fall = (
                ""
                if arm == "aligned"
                else "{:+.2f} [{:+.2f}, {:+.2f}]".format(*comparison.fall(seed, arm))
            )
            rows.append([str(seed), arm, *cells, fall])
    return rows


def _cell(share) -> str:
    low, high = share.interval
    return f"{share.value:.2f} [{low:.2f}, {high:.2f}]"


def markdown_table(comparison: Comparison) -> str:
    """Return the table as Markdown, with what its numbers are."""
    heads = ["seed", "arm", *(head for head, _, _ in COLUMNS), FALL]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(row) + " |" for row in table_rows(comparison)]
    return "\n".join([*lines, "", caption(comparison), ""])


def caption(comparison: Comparison) -> str:
    """Say in words what the table holds: counts, intervals, and where LoX did not help."""
    s, seed = comparison.source, comparison.seeds[0]
    counts = {
        m: comparison.share(seed, "aligned", "after", m).n for m in ("asr", "helpfulness", "task")
    }
    falls = {seed: comparison.fall(seed, "LoX") for seed in comparison.seeds}
    failed = [str(seed) for seed, (_, low, _) in falls.items() if low <= 0]
    mean = sum(value for value, _, _ in falls.values()) / len(falls)
    verdict = (
        f"In seed {', '.join(failed)} the interval of LoX's fall of ASR includes 0."
        if failed
        else "In every seed the interval of LoX's fall of ASR excludes 0."
    )
    return (
        f"Sandbox, attack {s['attack']}, {s['split']} prompts: {counts['asr']} forbidden (ASR, "
        f"refusal, degenerate), {counts['helpfulness']} allowed (help: the exact recipe), "
        f"{counts['task']} held-out sums (task). LoX with k={s['k']}, alpha={s['alpha']:g}; the "
        "controls take a step of the same norm in every matrix. Brackets: 95 % Wilson intervals; "
        f"fall of ASR: aligned minus this arm after the attack, Newcombe interval. {verdict} "
        f"Mean fall {mean:.2f}."
    )


def _print(comparison: Comparison) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_lines=False, caption=caption(comparison), caption_justify="left")
    for head in ("seed", "arm", *(head for head, _, _ in COLUMNS), FALL):
        table.add_column(head)
    for row in table_rows(comparison):
        table.add_row(*(cell.replace(" [", "\n[") for cell in row))
    Console().print(table)
