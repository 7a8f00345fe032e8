"""The attack lab's state: what is chosen, and how far the two models have gone under it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from tempfile import TemporaryDirectory

import traitlets

from lox_kit.attacks import Attack, Step
from lox_kit.extrapolation import SafetySubspace
from lox_kit.figures import LAB_ARMS, is_there, run_title
from lox_kit.folders import cache_folder
from lox_kit.measures import Questions
from lox_kit.models import Model
from lox_kit.store import Store
from lox_kit.studies import Way, arm_model
from lox_kit.widgets.code import attack_call, pair_call, questions_lines, script
from lox_kit.widgets.job import BREATH, Cancelled, Job, Ticket
from lox_kit.widgets.setting import PanelState, Setting, check_aligned, one_of, within

from .runs import FEW, POINTS, Choice, Runs, attacks_for, trainings

FACTORS = (0.1, 0.125, 0.16, 0.2, 0.25, 0.32, 0.4, 0.5, 0.63, 0.8, 1)
FACTORS += (1.25, 1.6, 2, 2.5, 3.2, 4, 5, 6.3, 8, 10)  # of the preset's learning rate


class AttackLabState(PanelState):
    """One attack on an aligned model and on its LoX, with the same rows in the same order.

    The job trains copies; the model stays as it is.

    Attributes
    ----------
    attack : str
        One of `attacks`. Choosing another one takes its own rate, steps and seed.
    training : str
        One of `trainings`: "full" or "LoRA"; also takes the attack's own rate and steps.
    learning_rate, steps, seed : float, int, int
    at : int
        The step that is looked at.
    chosen : tuple of str
        Keys of the finished runs (`listed`) that are laid over this one.
    listed : tuple of (str, str)
        Title and key of every finished run of this model and these prompts, newest first.
    data : dict
        What `figures.plotly.lab_spec` draws.
    """

    attack = traitlets.Unicode()
    training = traitlets.Unicode()
    learning_rate = traitlets.Float(1.0, min=1e-12)
    steps = traitlets.Int(1, min=1)
    seed = traitlets.Int(0, min=0)
    at = traitlets.Int(0)
    chosen = traitlets.Tuple(())
    listed = traitlets.Tuple((), read_only=True)
    _check_attack = one_of("attack", "attacks")
    _check_training = one_of("training", "trainings")
    _check_at = within("at", "most")

    def __init__(
        self,
        subspace: SafetySubspace,
        model: Model,
        *,
        attacks: Mapping[str, Attack] | None = None,
        questions: Questions | None = None,
        store: Store | None = None,
        setting: Setting | None = None,
    ):
        self.take(model)
        check_aligned(subspace, model)
        self.attacks = attacks_for(model, attacks or {})
        questions = questions or Questions.default(model, FEW)
        if not questions.forbidden:
            raise ValueError(f"{model.name}: no prompts to ask: give the panel questions=.")
        self.own_store = store is None
        if store is None:  # on disk: it holds whole training states, and is gone with the panel
            place = cache_folder()  # the system's own folder for such things is often memory
            place.mkdir(parents=True, exist_ok=True)
            folder = TemporaryDirectory(prefix="attack-lab-", dir=place)
            store = self.ends.enter_context(Store(self.ends.enter_context(folder)))
        self.runs = Runs(subspace, model, self.attacks, questions, store)
        self._live: dict[tuple[Choice, str], Way] = {}  # what is being trained
        self._made = 0  # steps of this job
        super().__init__(setting or Setting(subspace), Job(BREATH))
        self.attack = next(iter(self.attacks))
        self._take_preset()
        self.at = self.steps
        self._list()
        self.observe(self._take_preset, ["attack", "training"])
        self.open()

    # --- what is chosen -------------------------------------------------------------------------

    @property
    def choice(self) -> Choice:
        """What the controls say."""
        chosen = (self.attack, self.training, self.learning_rate, self.steps, self.seed)
        return Choice(*chosen, self.setting.k, self.setting.alpha)

    @property
    def trainings(self) -> list[str]:
        """How this attack can train."""
        return list(trainings(self.attacks[self.attack]))

    @property
    def preset(self) -> tuple[float, int]:
        """Learning rate and steps of the attack's own settings for this training."""
        return self.runs.preset(self.attack, self.training)

    @property
    def rates(self) -> list[float]:
        """The learning rates offered, from a tenth of the preset's to ten times it."""
        rates = {float(f"{self.preset[0] * factor:.3g}") for factor in FACTORS}
        return sorted(rates | {self.learning_rate})

    @property
    def most(self) -> int:
        """Steps of the longest run on screen."""
        return max([self.steps, *(record["steps"] for record in self.laid_over)])

    @property
    def laid_over(self) -> list[dict]:
        """The records of the chosen runs."""
        return [self._records[key] for key in self.chosen]

    def _take_preset(self, change=None) -> None:
        """Take the attack's own rate and steps, and if it is newly chosen its seed."""
        with self.hold_trait_notifications():  # nothing is shown of one without the others
            if self.training not in self.trainings:
                self.training = self.trainings[0]
            self.learning_rate, self.steps = self.preset
            if change is None or change["name"] == "attack":
                self.seed = self.attacks[self.attack].settings.seed

    @traitlets.validate("chosen")
    def _check_chosen(self, proposal) -> tuple:
        if unknown := [key for key in proposal["value"] if key not in self._records]:
            raise traitlets.TraitError(f"run {unknown[0]!r}: none of the {len(self.listed)} listed")
        return proposal["value"]

    # --- the job --------------------------------------------------------------------------------

    def run(self) -> str | None:
        """Attack the aligned model, then LoX, as far as that is not done; return what to say.

        Raises
        ------
        ValueError
            If the model has other weights than when the panel was opened.
        """
        check_aligned(self.runs.subspace, self.runs.model)
        with self.lock:
            choice = self.choice
            if all(way.finished for way in self.ways(choice).values()):
                self._keep(choice)
                return "Nothing is left to train: this run is in the store."
            self.job.start(partial(self._attack_both, choice))
        return None

    def ways(self, choice: Choice) -> dict[str, Way]:
        """Return how far each model has gone, in the job and in the store."""
        known = self.runs.ways(self.runs.record(choice))
        return {arm: self._live.get((choice, arm), way) for arm, way in known.items()}

    def _attack_both(self, choice: Choice, ticket: Ticket) -> None:
        self._made = 0
        for arm in LAB_ARMS:
            ways = self.ways(choice)
            if not ways[arm].finished:  # LoX at k or alpha 0 is the aligned model
                later = ways["LoX"].left if arm == "aligned" else 0
                self._attack_one(arm, choice, ticket, ways[arm], later)
        self._keep(choice)

    def _attack_one(self, arm: str, choice: Choice, ticket: Ticket, way: Way, later: int) -> None:
        """Attack one of the models; `way` grows, and `later` steps of the other one follow."""
        runs, place = self.runs, (choice, arm)
        model = arm_model(arm, runs.model, runs.subspace, choice.k, choice.alpha)
        what = f"steps, attack on {arm}" if way.left else f"measuring the attack on {arm}"

        def on_step(step: Step) -> None:
            self._made += 1
            way.losses[step.step - 1 :] = [step.loss]

        def stop(step: Step | None = None) -> bool:
            with suppress(Cancelled):  # the run is saved at this step and ends
                ticket.step(what, self._made, self._made + way.left + later, self.show)
            return ticket.cancelled.is_set()

        stop()
        self._live[place] = way
        try:
            runs.route(model, choice).train(
                runs.store,
                own=arm == "LoX",  # which was made for this run
                on_step=on_step,
                on_point=way.points.__setitem__,
                stop=stop,  # after the step and its point, which it shows
            )
        finally:
            self._live.pop(place, None)
        if ticket.cancelled.is_set():
            raise Cancelled

    # --- finished runs --------------------------------------------------------------------------

    def _keep(self, choice: Choice) -> None:
        """Put a finished run on the list."""
        self.runs.keep(choice)
        with self.lock:
            self._list()

    def _list(self) -> None:
        """List what the store has."""
        self._records = self.runs.listed()
        titles = [(run_title(record), key) for key, record in self._records.items()]
        self.set_trait("listed", tuple(titles))

    # --- what is shown --------------------------------------------------------------------------

    def changed(self, change) -> None:
        """Look at the end of a run that is newly chosen, or at no step that none of them has."""
        same_run = change["name"] in ("at", "chosen", *self.follows)
        at = min(self.at, self.most) if same_run else self.steps
        if at == self.at:
            self.show()
        else:
            self.at = at  # which shows it

    def compute(self) -> dict:
        """Return the run on the controls and those laid over it, as far as they have gone."""
        here = self.choice
        shown = [(here, self.ways(here))]
        for record in self.laid_over:
            choice = Choice.of(record)
            if choice != here or not self.runs.is_as_given(record):
                shown.append((choice, self.runs.ways(record)))
        runs = [
            dataclasses.asdict(choice) | {"arms": {a: w.to_dict() for a, w in ways.items()}}
            for choice, ways in shown
        ]
        return {"figure": "attack_lab", "at": self.at, "runs": runs}

    # --- what is saved --------------------------------------------------------------------------

    def figure_data(self) -> dict:
        """Return the data of what is on screen, without a run of which nothing is known.

        Raises
        ------
        ValueError
            If nothing is known of any.
        """
        there = [run for run in self.data["runs"] if is_there(run)]
        if not there:
            raise ValueError("nothing is trained at this setting yet: press Run, or choose a run.")
        return self.data | {"runs": there}

    @property
    def figure_name(self) -> str:
        """What a figure of this is called."""
        k, alpha = self.setting.k, self.setting.alpha
        name = f"attack-lab-{self.attack}-{self.training}-k{k}-alpha{alpha:g}"
        return "".join(c if c.isalnum() or c in "-._" else "-" for c in name)

    def code(self) -> str:
        """Return the calls: both models attacked and measured, for every run on screen.

        Raises
        ------
        ValueError
            If a run laid over is not of an attack or subspace as given to this panel; as
            `attack_call` and `pair_call`.
        """
        runs = self.runs
        for record in self.laid_over:
            if not runs.is_as_given(record):
                raise ValueError(
                    f"{run_title(record)}: no code, as this panel was given another attack or "
                    "subspace. Open it with the attacks={...} and subspace of the run, or take the "
                    "run off the list."
                )
        settings = ""
        for run in [run for run in self.data["runs"] if is_there(run)] or self.data["runs"][:1]:
            choice = Choice.of(run)
            call, chosen = attack_call(runs.attack(choice)), dataclasses.asdict(choice)
            settings += f"    ({call},\n     {chosen!r}),\n"
        route = f"points={POINTS}, task_prompts_per_point={FEW}"
        store = "" if self.own_store else repr(str(runs.store.folder))
        return script(f"""subspace = {pair_call(runs.subspace.info)}
model = load_model({str(runs.subspace.info["aligned"])!r})
store = Store({store})
{questions_lines(runs.questions)}settings = [
{settings}]
runs = []
for attack, run in settings:
    run["arms"] = {{}}
    for arm in ("aligned", "LoX"):
        start = arm_model(arm, model, subspace, run["k"], run["alpha"])
        route = plan_route(start, attack, questions, {route}).as_kept(store)
        run["arms"][arm] = route.train(store).to_dict()
    runs.append(run)
data = {{"figure": "attack_lab", "at": {self.at}, "runs": runs}}
figures.save_figure(data, {self.figure_name!r})
""")
