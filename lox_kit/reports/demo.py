"""The whole story on the sandbox, as `lox demo` and `make demo` tell it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lox_kit.store import Store
from lox_kit.studies import AttackTable
from lox_kit.threads import OnStage

from .table import write_table


def run_demo(
    seeds: Sequence[int],
    out: Path,
    *,
    from_scratch: bool = False,
    store: Store,
    on_stage: OnStage,
) -> AttackTable:
    """Factor, extrapolate, attack and measure the sandbox; write figures and table to `out`.

    Everything finished is in the store: run again after a cut, it goes on where it was.
    """
    from lox_kit.extrapolation import FULL, SafetySubspace, energy_map_data, spectrum_data
    from lox_kit.figures import save_figure
    from lox_kit.studies import compare_defences, pair_of

    found = compare_defences(seeds, store=store, rebuild=from_scratch, on_stage=on_stage)
    on_stage("drawing the figures", 0, 0)
    subspace = SafetySubspace.from_pair(*pair_of(seeds[0], from_scratch), rank=FULL)
    save_figure(spectrum_data(subspace), "spectrum", out)
    save_figure(energy_map_data(subspace, k=6), "energy_map", out)
    write_table(found, "defences", out)
    return found
