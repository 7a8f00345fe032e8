"""The whole story on a built-in world, as `lox demo`, `make demo` and `lox smol demo` tell it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lox_kit.extrapolation import FULL, SafetySubspace, energy_map_data, spectrum_data
from lox_kit.figures import save_figure
from lox_kit.studies import ARMS, AttackTable, attack_table, compare_defences, pair_of

from .table import write_table


def run_demo(
    seeds: Sequence[int],
    out: Path,
    *,
    world: str = "sandbox",
    from_scratch: bool = False,
    **shared,
) -> AttackTable:
    """Factor, extrapolate, attack and measure a world's models; write figures and table to `out`.

    Everything finished is in the store: run again after a cut, it goes on where it was. `shared`
    is store, executor and on_stage, as studies take them.
    """
    if world == "sandbox":
        found = compare_defences(seeds, rebuild=from_scratch, **shared)
    else:
        found = attack_table(ARMS, ("chat", "dragons"), seeds, world=world, lora=(), **shared)
    shared["on_stage"]("drawing the figures", 0, 0)
    pair = pair_of(seeds[0], from_scratch, world=world)
    subspace = SafetySubspace.from_pair(*pair, rank=FULL if world == "sandbox" else 64)
    save_figure(spectrum_data(subspace), "spectrum", out)
    save_figure(energy_map_data(subspace, k=6), "energy_map", out)
    write_table(found, "defences" if world == "sandbox" else "attack_table", out)
    return found
