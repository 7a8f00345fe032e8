"""The attack lab's runs: what there is to train for a choice, and what its store knows of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from lox_kit.attacks import ATTACKS, Attack, TrainSettings, check_language
from lox_kit.extrapolation import SafetySubspace, lox_key
from lox_kit.figures import LAB_ARMS
from lox_kit.measures import Questions
from lox_kit.models import Model
from lox_kit.store import Store, content_key
from lox_kit.studies import Route, Way, plan_route, read_way, spread_steps

FEW = 24  # prompts of each kind, and questions of the attack's task, at every point
POINTS = 9  # measured along a run
KIND = "lab"  # of the records of finished runs


@dataclasses.dataclass(frozen=True)
class Choice:
    """What decides a run of both models."""

    attack: str
    training: str  # "full" or "LoRA"
    learning_rate: float
    steps: int
    seed: int
    k: int
    alpha: float

    @classmethod
    def of(cls, record: dict) -> Choice:
        """Return the choice in a record, or in a run as it is drawn."""
        return cls(**{f.name: record[f.name] for f in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """Runs of one aligned model and its LoX, on the same prompts."""

    subspace: SafetySubspace
    model: Model  # the aligned one; it stays as it is
    attacks: Mapping[str, Attack]
    questions: Questions  # what both models are asked on the way
    store: Store
    _plans: dict[tuple[str, int], Route] = dataclasses.field(default_factory=dict)

    # --- what there is to train -----------------------------------------------------------------

    def preset(self, name: str, training: str) -> tuple[float, int]:
        """Return learning rate and steps of an attack's own settings."""
        settings = trainings(self.attacks[name])[training]
        rows = self._plan(name, self.attacks[name].settings.seed).rows
        return settings.learning_rate, settings.total_steps(len(rows))

    def attack(self, choice: Choice) -> Attack:
        """Return the attack with the settings of a choice."""
        attack = self.attacks[choice.attack]
        own = trainings(attack)[choice.training]
        settings = dataclasses.replace(own, learning_rate=choice.learning_rate, seed=choice.seed)
        rows = self._plan(choice.attack, choice.seed).rows
        if settings.total_steps(len(rows)) != choice.steps:
            settings = dataclasses.replace(settings, max_steps=choice.steps)
        return dataclasses.replace(attack, settings=settings)

    def route(self, model: Model, choice: Choice) -> Route:
        """Return what there is to train and to measure of one of the two models."""
        plan, at = self._plan(choice.attack, choice.seed), spread_steps(choice.steps, POINTS)
        route = dataclasses.replace(plan, model=model, attack=self.attack(choice), at=at)
        return route.as_kept(self.store)

    def _plan(self, name: str, seed: int) -> Route:
        """Return an attack's rows and questions; they do not change with its other settings."""
        if (name, seed) not in self._plans:
            settings = dataclasses.replace(self.attacks[name].settings, seed=seed)
            attack = dataclasses.replace(self.attacks[name], settings=settings)
            route = plan_route(self.model, attack, self.questions, task_prompts_per_point=FEW)
            self._plans[name, seed] = route
        return self._plans[name, seed]

    # --- what is known --------------------------------------------------------------------------

    def keep(self, choice: Choice) -> None:
        """Put a finished run on the list."""
        record = self.record(choice)
        self.store.put(KIND, content_key(**record), record)

    def listed(self) -> dict[str, dict]:
        """Return the records of the finished runs of this model and these prompts, newest first."""
        whose = (self.model.key, self.questions.key)
        found = self.store.all(KIND).items()
        return {key: r for key, r in found if (r["model"], r["questions"]) == whose}

    def ways(self, record: dict) -> dict[str, Way]:
        """Return how far each model has gone, in the run of this record."""
        return {arm: read_way(record["ways"][arm], self.store) for arm in LAB_ARMS}

    def is_as_given(self, record: dict) -> bool:
        """Whether a listed run's attack and subspace are those given here, not just its names."""
        choice = Choice.of(record)
        attack = self.attacks.get(choice.attack)
        if attack is None or choice.training not in trainings(attack):
            return False
        here = self.record(choice)["ways"]
        return all(here[arm]["run"] == way["run"] for arm, way in record["ways"].items())

    def record(self, choice: Choice) -> dict:
        """Return what a run is listed as: the choice, and where the store has both models' ways."""
        key = lox_key(self.model.key, self.subspace, choice.k, choice.alpha)  # without making it
        models = {"aligned": self.model, "LoX": dataclasses.replace(self.model, key=key)}
        ways = {arm: self.route(models[arm], choice).record for arm in LAB_ARMS}
        whose = {"model": self.model.key, "questions": self.questions.key}
        return whose | dataclasses.asdict(choice) | {"ways": ways}


def trainings(attack: Attack) -> dict[str, TrainSettings]:
    """Return the settings of an attack for full training, for LoRA, or both.

    An attack that was made for LoRA has those of its own alone.
    """
    if attack.settings.lora_rank:
        return {"LoRA": attack.settings}
    return {"full": attack.settings} | ({"LoRA": attack.lora} if attack.lora else {})


def attacks_for(model: Model, own: Mapping[str, Attack]) -> dict[str, Attack]:
    """Return the attacks given, and those presets that speak the model's language and are here.

    Raises
    ------
    ValueError
        If a given one is not in the model's language, or there is none.
    """
    for attack in own.values():
        check_language(model, attack)
    here = {
        name: attack
        for name, attack in ATTACKS.items()
        if attack.world == model.world and (attack.world or attack.source.file.exists())
    }
    if not (own or here):
        raise ValueError(
            f"{model.name}: there is no attack's data here. Fetch a published set (`lox data`), or "
            "give the panel attacks={'my data': file_attack(...)}."
        )
    return {**own, **{name: attack for name, attack in here.items() if name not in own}}
