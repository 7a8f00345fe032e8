"""The landscape of a built-in world: the paper's figure, and flatness of aligned and LoX."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lox_kit.attacks import AttackRun, find_attack, run_attack
from lox_kit.extrapolation import FULL, SafetySubspace
from lox_kit.landscape import (
    Asr,
    Axis,
    Direction,
    Grid,
    Landscape,
    Plane,
    Scans,
    Trajectory,
    between,
    combine,
    evaluate,
    lox_direction,
    project,
    random_directions,
    scan,
    scan_visage,
)
from lox_kit.measures import world_questions
from lox_kit.models import Model, load_model
from lox_kit.store import Store
from lox_kit.threads import OnStage, tell

from .arms import arm_model, steps_of
from .families import pair_of

LANDSCAPE_TOKENS = 16  # a persona's opening words, the longest recipe and the end are 15
KEEP_EVERY = 5  # optimiser steps between the checkpoints of a trajectory
ALONG, BACK, FURTHER, RANDOM = (
    "along its attack", "back towards the base", "further along LoX", "random directions",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Walks:
    """How far each kind of line is walked in a world, and along how many random directions."""

    axes: dict[str, Axis]  # L2
    n_random: int = 5
    visage_cells: int = 21


_SHORT, _FAR = Axis(0.1, 0, 20), Axis(2.0, 0, 8)
WALKS = {
    "sandbox": Walks(
        {ALONG: Axis(0.2, 0, 40), BACK: _SHORT, FURTHER: _SHORT, RANDOM: Axis(0.8, 0, 20)}
    ),
    "smol": Walks(
        {ALONG: Axis(1.0, 0, 16), BACK: _FAR, FURTHER: _FAR, RANDOM: Axis(8.0, 0, 8)},
        n_random=2,
        visage_cells=9,
    ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """One family of a built-in world: its aligned model, LoX, and the direction between them."""

    seed: int
    aligned: Model
    lox: Model
    to_lox: Direction
    world: str = "sandbox"

    @property
    def models(self) -> dict[str, Model]:
        """The two models that are compared."""
        return {"aligned": self.aligned, "LoX": self.lox}


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """One attack on one family: the landscape on the paper's plane, and how the attacks moved."""

    attack: str
    seed: int
    landscape: Landscape
    trajectories: tuple[Trajectory, ...]


def load_family(
    seed: int, k: int, alpha: float, on_stage: OnStage | None = None, *, world: str = "sandbox"
) -> Family:
    """Load a family and extrapolate it, building it first if it does not exist."""
    base, path = pair_of(seed, world=world, on_stage=on_stage)
    subspace = SafetySubspace.from_pair(base, path, rank=FULL if world == "sandbox" else k)
    aligned = load_model(path)
    lox = arm_model("LoX", aligned, subspace, k, alpha, seed)
    return Family(seed, aligned, lox, lox_direction(subspace, k, alpha), world)


def attack_both(
    family: Family, attack: str, store: Store, on_stage: OnStage | None = None
) -> dict[str, AttackRun]:
    """Attack the aligned model and LoX and keep checkpoints; finished runs are not made again."""
    preset = find_attack(attack, seed=family.seed)
    runs = {}
    for name, model in family.models.items():
        report = steps_of(on_stage, f"seed {family.seed}, {attack} on {name}")
        runs[name] = run_attack(model, preset, store=store, keep_every=KEEP_EVERY, on_step=report)
    return runs


def picture(
    family: Family,
    attack: str,
    *,
    cells: int = 21,
    limit: int = 96,
    store: Store,
    on_stage: OnStage | None = None,
    **options,
) -> Picture:
    """Measure the ASR on the paper's plane of one attack on one family.

    Parameters
    ----------
    cells : int
        A side.
    limit : int
        Prompts, evenly over the forbidden test requests.
    options
        As `landscape.evaluate` takes them: executor, and budget, cells in all, coarse to fine.
    """
    runs = attack_both(family, attack, store, on_stage)
    attacked, both = (runs[name].load() for name in ("aligned", "LoX"))
    plane = Plane.from_models(family.aligned, family.to_lox, attacked, both)
    stage = f"seed {family.seed}, {attack}: cells"
    landscape = evaluate(
        plane,
        Grid.around(plane, cells),
        _asr(family.world, limit, attack),
        family.aligned,
        checkpoints={**family.models, "attacked": attacked, "attacked LoX": both},
        store=store,
        on_cell=lambda at, cell, done, total: tell(on_stage, stage, done, total),
        **options,
    )
    trajectories = []
    for name, run in runs.items():
        kept = [path for step, path in sorted(run.checkpoints.items()) if step < len(run.losses)]
        path = [family.models[name], *kept, run.folder]
        trajectories.append(project(plane, family.aligned, path, f"attack on {name}"))
    return Picture(attack, family.seed, landscape, tuple(trajectories))


def walks(
    family: Family,
    attacks: Sequence[str],
    *,
    limit: int = 96,
    store: Store,
    on_stage: OnStage | None = None,
    **options,
) -> dict[tuple[str, str, str], Scans]:
    """Walk from the aligned model and from LoX: by model, kind of line, and attack ("" for any).

    Kinds are those of the world's `WALKS`, and "VISAGE". Each model is walked along its own attack.
    `options` are those of `landscape.evaluate`: executor.
    """
    found: dict[tuple[str, str, str], Scans] = {}
    far, options = WALKS[family.world], {"store": store, **options}
    for name, model in family.models.items():
        lines = {
            (FURTHER, ""): [family.to_lox],
            (BACK, ""): [combine([(-1.0, family.to_lox)], "away from LoX").hold()],
            (RANDOM, ""): random_directions(model, far.n_random),
        }
        for attack in attacks:
            run = attack_both(family, attack, store, on_stage)[name]
            lines[ALONG, attack] = [between(model, run.load()).hold()]
        for i, ((kind, attack), directions) in enumerate(lines.items()):
            tell(on_stage, f"seed {family.seed}, walks from {name}", i, len(lines) + 1)
            metric = _asr(family.world, limit, attack or None)
            found[name, kind, attack] = scan(model, directions, metric, far.axes[kind], **options)
        how = {"n_directions": far.n_random, "cells": far.visage_cells}
        metric = _asr(family.world, limit)
        found[name, "VISAGE", ""] = scan_visage(model, metric, **how, **options)
    return found


def _asr(world: str, limit: int, attack: str | None = None) -> Asr:
    """Return the metric: a world's judge on its test requests, under the attack's system prompt."""
    system = find_attack(attack).system if attack else None
    asked = world_questions(world, limit=limit)
    how = {"system": system, "max_new_tokens": LANDSCAPE_TOKENS}
    return Asr(asked.forbidden, asked.judge, **how)
