"""Figures of a world's families: the paper's and ours, `lox figures`, and those of `lox demo`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

from lox_kit import studies
from lox_kit.attacks import find_attack, world_attacks
from lox_kit.extrapolation import FULL, SafetySubspace, energy_map_data, spectrum_data
from lox_kit.figures import save_figure
from lox_kit.folders import write_whole
from lox_kit.measures import world_questions
from lox_kit.store import Store
from lox_kit.threads import OnStage, tell

from .landscape import report
from .research import write_controls, write_sweep
from .table import write_table

CONTROLS = ("aligned", "LoX", "random subspace", "full delta", "bottom", "middle", "shuffled")


@dataclasses.dataclass(frozen=True)
class Drawing:
    """What the figures are drawn of, and where they go.

    Parameters
    ----------
    shared : dict
        store, executor and on_stage, as studies take them.
    """

    world: str
    seeds: Sequence[int]
    limit: int | None
    out: Path
    paper: bool
    shared: dict

    @property
    def alone(self) -> dict:
        """`shared`, for what takes no executor."""
        return {name: value for name, value in self.shared.items() if name != "executor"}

    @property
    def attacks(self) -> list[str]:
        """The attacks that are made for this world."""
        return world_attacks(self.world)

    def questions(self, split: str = "test"):
        """Return what the models are asked."""
        return world_questions(self.world, split, self.limit)

    def save(self, data: dict, caption: str, *, asked: bool = True) -> None:
        """Write a figure under its kind's name, and its caption with what its models were asked."""
        name = data["figure"]
        save_figure(data | ({"paper": True} if self.paper else {}), name, self.out)
        if asked:
            seeds, q = ", ".join(map(str, self.seeds)), self.questions()
            caption += (
                f" {Path(self.world).stem}, seeds {seeds}; {len(q.forbidden)} forbidden and "
                f"{len(q.allowed)} allowed requests each, template {q.template}, judge {q.judge}."
            )
        write_whole(self.out / f"{name}.md", f"{caption}\n")


def pipeline(d: Drawing) -> None:
    """Figure 1: what LoX does."""
    text = "LoX: the top k directions of what alignment changed, taken alpha times further."
    d.save({"figure": "pipeline", "k": 6, "alpha": 1.25}, text, asked=False)


def retained(d: Drawing) -> None:
    """Figure 2: R_ft / R_align against the ASR gained, by k and by the alignment's data."""
    amounts = studies.AMOUNTS if d.world == "sandbox" else (None,)
    how = {"amounts": amounts, "arms": ("aligned",), "world": d.world, **d.alone}
    names = d.attacks[: studies.DEVELOPMENT]
    text = (
        "R_ft / R_align after full training against the ASR gained: a point for each k, attack, "
        "family and amount of alignment data."
    )
    found = studies.erosion(d.seeds, names, questions=d.questions(), **how)
    d.save({"figure": "retained", **found.to_dict()}, text)


def r_bars(d: Drawing) -> None:
    """Figure 3: R_ft of every attack, aligned beside LoX, and the ASR."""
    how = {"world": d.world, "questions": d.questions(), **d.alone}
    text = "R_ft by attack, full training, and the ASR: means over seeds, dots for each seed."
    found = studies.erosion(d.seeds, d.attacks, **how)
    d.save({"figure": "r_bars", **found.to_dict()}, text)


def epochs(d: Drawing) -> None:
    """Figure 4: safety and utility along an attack, at two learning rates."""
    lines: list[dict] = []
    for seed in d.seeds:
        family = studies.load_family(seed, 6, 1.0, d.shared.get("on_stage"), world=d.world)
        attack = find_attack(d.attacks[0], seed=seed)
        rates = (attack.settings.learning_rate, 2 * attack.settings.learning_rate)
        how = {"learning_rates": rates, "every": 10, **d.alone}
        curve = studies.epoch_curve([family.aligned, family.lox], attack, d.questions(), **how)
        names = {model.name: name for name, model in family.models.items()}
        lines += [line | {"seed": seed, "model": names[line["model"]]} for line in curve["lines"]]
    text = f"Along {attack.name}, full training, at two learning rates: bands span the seeds."
    d.save({**curve, "lines": lines}, text)


def sweep(d: Drawing) -> None:
    """Figure 5: k and alpha, before and after attacks, on development requests."""
    names = d.attacks[: studies.DEVELOPMENT]
    how = {"world": d.world, "questions": d.questions("dev"), **d.shared}
    attacks = [find_attack(name) for name in names]
    write_sweep(studies.sweep(studies.KS, studies.ALPHAS, attacks, d.seeds[:1], **how), d.out)


def landscape(d: Drawing) -> None:
    """Figure 6: the surface, the map, and flatness."""
    size = {"cells": 21} if d.world == "sandbox" else {"cells": 15, "limit": 24}
    size |= {"limit": d.limit} if d.limit else {}
    report(d.attacks[:1], d.seeds[:1], d.out, world=d.world, **size, **d.shared)


def rank_curve(d: Drawing) -> None:
    """Figure 7: how many directions make the base as safe."""
    found = studies.world_rank_curve(d.seeds, world=d.world, limit=d.limit, **d.alone)
    text = "ASR of the base with the top r directions of the alignment's change, by r."
    d.save({"figure": "rank_curve", **found.to_dict()}, text)


def spectrum(d: Drawing) -> None:
    """Ours: singular values and energy, and where in the model the energy is."""
    pair = studies.pair_of(d.seeds[0], world=d.world, on_stage=d.shared.get("on_stage"))
    found = _subspace(pair, d.world)
    text = (
        f"Singular values of {found.info['aligned']} less {found.info['base']}, matrix by matrix."
    )
    d.save(spectrum_data(found), text, asked=False)
    text = "Where that change is in the model, and what share of it is in the top six directions."
    d.save(energy_map_data(found, k=6), text, asked=False)


def attack_table(d: Drawing) -> None:
    """Ours, of the paper's Table 1: every attack on every defence, full and through LoRA."""
    how = {"world": d.world, "questions": d.questions(), **d.shared}
    found = studies.attack_table(attacks=d.attacks, seeds=d.seeds, **how)
    write_table(found, "attack_table", d.out)


def controls(d: Drawing) -> None:
    """Ours: LoX beside steps as long in other directions."""
    how = {"world": d.world, "arms": CONTROLS, "limit": d.limit, **d.shared}
    write_controls(studies.compare_defences(d.seeds, d.attacks[0], **how), d.out / "controls")


FIGURES = {
    "1": pipeline,
    "2": retained,
    "3": r_bars,
    "4": epochs,
    "5": sweep,
    "6": landscape,
    "7": rank_curve,
    "spectrum": spectrum,
    "table": attack_table,
    "controls": controls,
}


def paper_figures(
    only: Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    *,
    world: str = "sandbox",
    limit: int | None = None,
    paper: bool = False,
    **shared,
) -> None:
    """Draw figures of the paper by number, and ours by name, of a world's families.

    All that is trained and measured is kept in the store; pairs are factored again.

    Parameters
    ----------
    only : of `FIGURES`
    limit : int, optional
        Requests of each kind; default all.
    paper : bool
        Draw the published numbers as well, in grey, in figures 2, 3 and 7.
    shared
        store, executor and on_stage.

    Raises
    ------
    ValueError
        If there is no such figure.
    """
    if unknown := [name for name in only if name not in FIGURES]:
        raise ValueError(f"figure {unknown[0]!r}: use some of {', '.join(FIGURES)}.")
    drawing = Drawing(world, seeds, limit, Path(out), paper, shared)
    for name in only:
        FIGURES[name](drawing)


def run_demo(
    seeds: Sequence[int],
    out: Path,
    *,
    store: Store,
    on_stage: OnStage | None = None,
    world: str = "sandbox",
    from_scratch: bool = False,
    executor: Executor | None = None,
) -> studies.AttackTable:
    """Factor, extrapolate, attack and measure a world's models; write figures and table to `out`.

    Everything finished is in the store: run again after a cut, it goes on where it was.
    """
    shared = {"store": store, "on_stage": on_stage, "executor": executor}
    if world == "sandbox":
        found = studies.compare_defences(seeds, rebuild=from_scratch, **shared)
    else:
        how = {"world": world, "lora": (), **shared}
        found = studies.attack_table(studies.ARMS, ("chat", "dragons"), seeds, **how)
    tell(on_stage, "drawing the figures", 0, 0)
    pair = studies.pair_of(seeds[0], from_scratch, world=world)
    subspace = _subspace(pair, world)
    save_figure(spectrum_data(subspace), "spectrum", out)
    save_figure(energy_map_data(subspace, k=6), "energy_map", out)
    write_table(found, "defences" if world == "sandbox" else "attack_table", out)
    return found


def _subspace(pair: tuple[str, str], world: str) -> SafetySubspace:
    """Return the subspace of a family whose spectrum is drawn."""
    return SafetySubspace.from_pair(*pair, rank=FULL if world == "sandbox" else 64)
