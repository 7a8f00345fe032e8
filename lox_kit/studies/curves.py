"""How safety and its cost change along one axis: LoX's alpha, or the steps of an attack."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from lox_kit.attacks import (
    Attack,
    Step,
    attack_key,
    check_language,
    fine_tune,
    finished_run,
    past_steps,
    resume_folder,
    rows_key,
    work_folder,
)
from lox_kit.extrapolation import LoxDial
from lox_kit.folders import locked, remove_folder
from lox_kit.measures import TOKENS, Questions, measure, task_prompts
from lox_kit.models import Model, Prompt, generate, render
from lox_kit.store import NUMBER, SHARES, Store, content_key
from lox_kit.threads import OnStage, tell

from .arms import steps_of


def ask(model: Model, prompts: Sequence[Prompt]):
    """Return a frame of prompts and answers."""
    import pandas as pd

    texts = render(model.tokenizer, prompts)
    answers = generate(model, texts, max_new_tokens=TOKENS)
    return pd.DataFrame({"prompt": [p.text for p in prompts], "answer": answers})


def alpha_curve(
    model: Model,
    dial: LoxDial,
    k: int | None,
    alphas: Sequence[float],
    questions: Questions,
    *,
    store: Store | None = None,
) -> dict:
    """Return ASR, refusal and helpfulness at each alpha, as `figures.figure_alpha` draws them.

    The dial is off again afterwards.
    """
    points, questions = [], questions.with_help()
    try:
        for alpha in alphas:
            dial.set(k=k, alpha=alpha)
            points.append({"alpha": alpha, **measure_shares(model, questions, store=store)})
            tell(None, "measuring along alpha", len(points), len(alphas))
    finally:
        dial.off()
    return {"figure": "alpha", "k": k, "points": points}


def measure_shares(model: Model, questions: Questions, **options) -> dict[str, dict]:
    """Return a model's ASR, refusal and helpfulness; `options` are those of `measures.measure`."""
    shares = measure(model, questions.with_help(), **options)
    return {name: shares[name] for name in ("asr", "refusal", "helpfulness")}


def epoch_curve(
    models: Sequence[Model],
    attack: Attack,
    questions: Questions,
    *,
    learning_rates: Sequence[float],
    every: int,
    store: Store,
    task_prompts_per_point: int = 200,
    on_stage: OnStage | None = None,
) -> dict:
    """Return safety and utility along an attack, as `figures.figure_epochs` draws them.

    Each model is attacked at each learning rate on the same rows in the same order, and measured
    before the first step and after every `every` steps. Points are kept in the store as they are
    made: a call that was cut off is resumed, and a second one trains nothing.

    Parameters
    ----------
    models : sequence of Model
        Such as the aligned model and its LoX. They stay as they are.
    every : int
        Optimiser steps between points; `attack.settings.steps_per_epoch(rows)` is an epoch.

    Raises
    ------
    ValueError
        If the attack's data is not in a model's language, or `every` is below 1.
    """
    if every < 1:
        raise ValueError(f"every={every}: use at least 1 optimiser step.")
    lines = []
    for model in models:
        route = plan_route(model, attack, questions, task_prompts_per_point=task_prompts_per_point)
        at = tuple(range(0, route.total + 1, every))
        for rate in learning_rates:
            settings = dataclasses.replace(attack.settings, learning_rate=rate)
            own = dataclasses.replace(attack, settings=settings)
            line = dataclasses.replace(route, attack=own, at=at)
            report = steps_of(on_stage, f"{model.name}, {attack.name} at {rate:g}")
            points = line.train(store, on_step=report).to_dict()["points"]
            lines.append({"model": model.name, "learning_rate": rate, "points": points})
    return {"figure": "epochs", "attack": attack.name, "lines": lines}


# --- one model along one attack ---------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Way:
    """How far one model has gone along an attack."""

    total: int  # optimiser steps to its end
    at: tuple[int, ...]  # the steps at which it is measured
    losses: list[float]  # of the steps made, in nats per token
    points: dict[int, dict[str, dict]]  # what `measure` gave, by step

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train or to measure."""
        return self.left == 0 and len(self.points) == len(self.at)

    @property
    def left(self) -> int:
        """How many steps are left to train."""
        return self.total - len(self.losses)

    def to_dict(self) -> dict:
        """Return losses and points as plain data."""
        points = [{"step": step, "measures": self.points[step]} for step in sorted(self.points)]
        return {"losses": self.losses[:], "points": points}


def read_way(record: dict, store: Store) -> Way:
    """Return what a store knows of a way, given the route's record."""
    keys = {int(step): key for step, key in record["points"].items()}
    found = store.get_many("curve", keys.values(), SHARES)
    points = {step: found[key] for step, key in keys.items() if key in found}
    run = finished_run(store, record["run"])
    losses = run.losses if run else store.get("losses", record["run"], [NUMBER]) or ()
    return Way(record["total"], tuple(keys), list(losses), points)


@dataclasses.dataclass(frozen=True, eq=False)
class Route:
    """What to train, and when to measure, of one model along one attack; see `plan_route`.

    `dataclasses.replace` changes the model, the attack's settings (not their seed, which decides
    the rows) and `at`.
    """

    model: Model
    attack: Attack
    questions: Questions
    task: list[Prompt]
    rows: list[dict]
    rows_key: str
    at: tuple[int, ...]

    @property
    def total(self) -> int:
        """Optimiser steps to the attack's end."""
        return self.attack.settings.total_steps(len(self.rows))

    @cached_property
    def record(self) -> dict:
        """The keys under which a store has the losses and the points, for `read_way`."""
        run = attack_key(self.model, self.attack, self.rows_key)
        task = [dataclasses.asdict(t) for t in self.task]
        asked = {"questions": self.questions.key, "task": task, "system": self.attack.system}
        points = {str(step): content_key(run=run, step=step, **asked) for step in self.at}
        return {"run": run, "total": self.total, "points": points}

    def as_kept(self, store: Store) -> Route:
        """Return the route for which nothing is trained if `run_attack` left this run in a store.

        It measures at those steps with a checkpoint, or a point, that are nearest to `at`.
        """
        if not (run := finished_run(store, self.record["run"])):
            return self
        known = sorted({0, self.total, *run.checkpoints, *read_way(self.record, store).points})
        at = {min(known, key=lambda step: abs(step - wanted)) for wanted in self.at}
        return dataclasses.replace(self, at=tuple(sorted(at)))

    def train(
        self,
        store: Store,
        *,
        own: bool = False,
        on_step: Callable[[Step], None] | None = None,
        on_point: Callable[[int, dict], None] | None = None,
        stop: Callable[[Step], bool] | None = None,
    ) -> Way:
        """Train a copy of the model and measure the points that the store lacks.

        Nothing is trained where the store has the whole way, or the run's checkpoints at all the
        missing points. Points are kept as they are made, and the losses with them. A run that was
        stopped or killed is resumed by the same call, and on a CPU ends as if nothing had happened.

        Parameters
        ----------
        own : bool
            Train the model itself after measuring it, without a second one in memory. For a model
            made for this run alone; its key names the trained weights from then on.
        on_step : callable, optional
            Called after every optimiser step, before the point that may be due there.
        on_point : callable, optional
            Called with step and measures of every new point. Raising from either ends the run
            where the last save left it.
        stop : callable, optional
            Asked after every step and its point; True saves the run there and ends it.

        Raises
        ------
        ValueError
            If the loss is no longer a number.
        """
        record = self.record
        known = read_way(record, store)
        if known.finished:
            return known
        found, run = dict(known.points), finished_run(store, record["run"])
        missing = {step: record["points"][str(step)] for step in self.at if step not in found}
        folder = store.run_folder(content_key(curve=record["run"]))
        losses = _losses_so_far(folder, min([s for s in missing if s], default=self.total))
        victim = self.model if own else dataclasses.replace(self.model)

        def keep() -> None:
            if len(losses) > len(known.losses):
                store.put("losses", record["run"], losses)

        def point(step: int, model: Model) -> None:
            if step in missing:
                asked = self.questions, self.task
                found[step] = measure(model, *asked, system=self.attack.system, store=store)
                store.put("curve", missing[step], found[step])
                keep()
                if on_point:
                    on_point(step, found[step])

        def take(step: Step) -> None:
            losses.append(step.loss)
            if on_step:
                on_step(step)
            victim.key = content_key(run=record["run"], step=step.step)
            victim.module.eval()
            point(step.step, victim)
            victim.module.train()

        keep()
        point(0, self.model)
        if run:
            store.put("losses", record["run"], known.losses)
        if run and missing.keys() <= {0, self.total, *run.checkpoints}:
            for step in sorted(missing.keys() - {0}):
                point(step, run.load(str(self.model.device), step=step))
                if stop and stop(Step(step, self.total, known.losses[step - 1])):
                    break
            return Way(self.total, self.at, known.losses, found)
        if not own:
            victim.module = copy.deepcopy(victim.module)
        victim.key = record["run"]
        made_of = victim.module, victim.tokenizer, self.rows, self.attack.settings
        try:
            with work_folder(folder):
                fine_tune(*made_of, on_step=take, stop=stop, folder=folder)
        finally:
            keep()
        if len(losses) == self.total:
            remove_folder(folder)
        return Way(self.total, self.at, losses, found)


def plan_route(
    model: Model,
    attack: Attack,
    questions: Questions,
    *,
    points: int = 2,
    task_prompts_per_point: int = 200,
) -> Route:
    """Return what to train and when to measure of a model along an attack.

    Parameters
    ----------
    points : int
        At how many steps it is measured, see `spread_steps`.
    task_prompts_per_point : int
        Questions of the attack's own task, where it has one.

    Raises
    ------
    ValueError
        If the attack's data is not in the model's language, or there are fewer than 2 points.
    """
    check_language(model, attack)
    rows = attack.data(model.tokenizer)
    task = task_prompts(attack.held_out(task_prompts_per_point))
    at = spread_steps(attack.settings.total_steps(len(rows)), points)
    return Route(model, attack, questions, task, rows, rows_key(rows), at)


def spread_steps(total: int, points: int) -> tuple[int, ...]:
    """Return so many steps from 0, which is before the first, to the last; no step twice.

    Raises
    ------
    ValueError
        If there are fewer than 2 points.
    """
    if points < 2:
        raise ValueError(f"points={points}: use at least 2, before the attack and after it.")
    return tuple(sorted({round(i * total / (points - 1)) for i in range(points)}))


def _losses_so_far(folder: Path, first: int) -> list[float]:
    """Return the losses recorded before training resumes.

    None are, and training begins anew, if it would resume at `first` or later: the model at that
    step is still to be measured.
    """
    past = past_steps(folder)
    if len(past) >= first:
        with locked(folder):  # another process may be training there
            remove_folder(resume_folder(folder))
        return []
    return [step.loss for step in past]
