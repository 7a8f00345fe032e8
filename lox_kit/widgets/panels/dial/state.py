"""The LoX dial's state: k, alpha, prompts, and the answers and measures that follow from them.

Answers come first and by themselves; measures follow by themselves only while they are quick.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import traitlets

from lox_kit.extrapolation import LoxDial, SafetySubspace, save_adapter
from lox_kit.measures import KINDS, Questions, Reference
from lox_kit.models import Model, Prompt, generate, load_model, render
from lox_kit.store import Store
from lox_kit.studies import measure_shares
from lox_kit.widgets.job import Job, Ticket
from lox_kit.widgets.setting import STEP, PanelState, Setting, check_aligned

from .code import dial_code
from .table import verdict

BASE, ALIGNED, LOX = "base", "aligned", "LoX"
QUICK = 1.0  # seconds of work that start by themselves
SETTLE = 0.1  # seconds a setting must last before models are asked
SETTLE_K = 0.3  # of a new k, which other panels draw meanwhile
PAGE = 2  # evaluation prompts shown at a time, of each kind
FEW = 60  # prompts of each kind that the sandbox is measured on


class DialState(PanelState):
    """One aligned model under the dial, beside others that stay as they are.

    The model's weights are turned in place by a job; `close` gives them back as they were.

    Attributes
    ----------
    prompt : str
        The request in the prompt box.
    page : int
        Which of the evaluation prompts are shown with it.
    table : dict
        Columns (models, with their shares) and rows (prompts, with an answer from each).
    curve : dict
        What has been measured at this k, as `figures.figure_alpha` draws it.
    job : Job
    """

    prompt = traitlets.Unicode()
    page = traitlets.Int(0)
    table = traitlets.Dict(read_only=True)
    curve = traitlets.Dict(read_only=True)

    def __init__(
        self,
        subspace: SafetySubspace,
        model: Model,
        *,
        base: Model | None = None,
        with_base: bool = True,
        attacked: Mapping[str, Model] | None = None,
        questions: Questions | None = None,
        store: Store | None = None,
        setting: Setting | None = None,
    ):
        self.take(model)
        check_aligned(subspace, model)
        self.subspace, self.model = subspace, model
        self.setting = setting or Setting(subspace)
        self.dial = LoxDial(model, subspace)
        self.ends.callback(self._let_go)
        self.job = Job()
        self._own_key = model.key
        self._models = {BASE: base} if with_base else {}
        self._models |= {ALIGNED: model, LOX: model} | dict(attacked or {})
        self.questions = (questions or Questions.default(model, FEW)).with_help()
        self.store = store
        self._answers: dict[tuple[str, str], str] = {}  # by the model's key and the rendered text
        self._shares: dict[str, dict] = {}  # by the model's key
        self._turned: dict[tuple[int, float], str] = {}  # the model's key at each k and alpha
        self._keys = {name: m.key for name, m in self._models.items() if m and name != LOX}
        self._stood: tuple[int, float] | None = None  # where the dial's answers were given
        self._reference: Reference | None = None
        self._seconds = 0.0 if model.is_sandbox else float("inf")  # of the last measurement
        super().__init__(prompt=self._first_prompt())
        self.observe(self._follow, ["prompt", "page"])
        self.follow(self._follow, ["k", "alpha"])
        self._follow()

    # --- what is asked --------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The columns, left to right."""
        return list(self._models)

    @property
    def _order(self) -> list[str]:
        """The columns as they are asked: the dial first."""
        return sorted(self._models, key=lambda name: name != LOX)

    def shown(self) -> list[tuple[Prompt, str]]:
        """Return the prompts on screen, each with its kind: yours, forbidden, allowed."""
        known = {p.text: p for p in (*self.questions.forbidden, *self.questions.allowed)}
        text = self.prompt.strip()
        rows = [(known.get(text, Prompt(text)), "your prompt")] if text else []
        for kind in KINDS:
            prompts = getattr(self.questions, kind)
            first = self.page * PAGE + 1  # the one before is in the box at the start
            places = range(first, first + min(PAGE, len(prompts)))
            rows += [(prompts[i % len(prompts)], kind) for i in places]
        return rows

    def other_prompts(self) -> None:
        """Show the next evaluation prompts."""
        self.page += 1

    def reset(self) -> None:
        """Go back to the start; what was measured is kept."""
        self.setting.reset()
        self.prompt, self.page = self._first_prompt(), 0

    def _let_go(self) -> None:
        """Give the model its aligned weights back, and drop the others."""
        self.dial.off()
        self._reference = None
        self._models = dict.fromkeys(self._models, self.model)

    def _first_prompt(self) -> str:
        """Return the request that stands in the box at the start."""
        return self.questions.forbidden[0].text if self.questions.forbidden else ""

    def _follow(self, change=None) -> None:
        """Show what is known of this setting, and start on what is not."""
        self._show()
        settle = SETTLE_K if change is not None and change["name"] == "k" else SETTLE
        self.job.start(partial(self._answer, settle))

    # --- the job --------------------------------------------------------------------------------

    def _answer(self, settle: float, ticket: Ticket, *, measure: bool = False) -> None:
        """Ask the dial first, then the others what they have not been asked; measure if quick."""
        ticket.settle(settle)
        k, alpha, prompts = self.setting.k, self.setting.alpha, [p for p, _ in self.shown()]
        try:
            for i, name in enumerate(self._order, start=1):
                self._ask(name, k, alpha, prompts)
                ticket.step(f"answers of {name}", i, len(self._order), self._show)
            if measure or (self._can_measure and self._seconds < QUICK):
                self._measure_columns(ticket, k, alpha)
        finally:
            self._turn(k, alpha)

    def measure(self) -> None:
        """Measure every column at this setting."""
        self._need_prompts()
        self.job.start(partial(self._answer, 0.0, measure=True))

    def measure_axis(self) -> None:
        """Measure along the alpha axis at this k, in steps of 0.5."""
        self._need_prompts()
        self.job.start(self._measure_axis)

    def _measure_axis(self, ticket: Ticket) -> None:
        k, here = self.setting.k, self.setting.alpha
        alphas = [2 * STEP * i for i in range(int(self.setting.most_alpha / (2 * STEP)) + 1)]
        try:
            for i, alpha in enumerate(alphas):
                what = f"alpha = {alpha:g}"
                ticket.step(what, i, len(alphas), self._show)
                self._measure(LOX, k, alpha, partial(ticket.step, what, i, len(alphas)))
            ticket.step("alpha axis", len(alphas), len(alphas), self._show)
        finally:
            self._turn(k, here)

    def _measure_columns(self, ticket: Ticket, k: int, alpha: float) -> None:
        """Measure the dial and, once, each of the others."""
        for i, name in enumerate(self._order):
            what = f"measures of {name}"
            start = time.thread_time()  # waiting for another process is not slowness of ours
            self._measure(name, k, alpha, partial(ticket.step, what, i, len(self._order)))
            if name == LOX:
                self._seconds = time.thread_time() - start
            ticket.step(what, i + 1, len(self._order), self._show)

    def _turn(self, k: int, alpha: float) -> None:
        """Put the model there, unless it is."""
        if (self.dial.k, self.dial.alpha) != (k, alpha):
            self.dial.set(k=k, alpha=alpha)

    def _model(self, name: str, k: int, alpha: float) -> Model:
        """Return a column's model; the dial's and the aligned one are turned to be so."""
        if name == ALIGNED:
            self._turn(0, 0.0)
        elif name == LOX:
            self._turn(k, alpha)
            self._turned[k, alpha] = self.model.key
        elif self._models[name] is None:  # the base, when it is first asked
            found = load_model(self.subspace.info["base"], device=str(self.model.device))
            self._models[name], self._keys[name] = found, found.key
        return self._models[name]

    def _key(self, name: str, k: int, alpha: float) -> str | None:
        """Return the key of a column's model, or None before it has been there."""
        return self._turned.get((k, alpha)) if name == LOX else self._keys.get(name)

    def _ask(self, name: str, k: int, alpha: float, prompts: list[Prompt]) -> None:
        """Get one column's answers to these prompts, where they are not known."""
        texts = self._render(prompts)
        key = self._key(name, k, alpha)
        if key is None or any((key, text) not in self._answers for text in texts):
            model = self._model(name, k, alpha)
            key = model.key
            new = [t for t in dict.fromkeys(texts) if (key, t) not in self._answers]
            made = generate(
                model, new, max_new_tokens=self.questions.max_new_tokens, store=self.store
            )
            self._answers |= {(key, t): answer for t, answer in zip(new, made, strict=True)}
        if name == LOX:
            self._stood = (k, alpha)

    def _measure(self, name: str, k: int, alpha: float, check) -> None:
        """Get one model's shares and drift, where they are not known; `check` between batches."""
        key = self._key(name, k, alpha)
        if key is None or key not in self._shares:
            if self._reference is None:
                aligned = self._model(ALIGNED, k, alpha)
                asked = self.questions.allowed
                self._reference = Reference(aligned, asked, **self.questions.how, store=self.store)
            model = self._model(name, k, alpha)
            key = model.key
            if key not in self._shares:
                options = {"store": self.store, "on_stage": lambda *_: check()}
                shares = measure_shares(model, self.questions, **options)
                self._shares[key] = shares | {"drift": self._reference.compare(model).to_dict()}

    def _render(self, prompts: Sequence[Prompt]) -> list[str]:
        """Return the text every model is given: the aligned model's own rendering."""
        return render(self.model.tokenizer, prompts, template=self.questions.template)

    @property
    def _can_measure(self) -> bool:
        return bool(self.questions.forbidden and self.questions.allowed)

    def _need_prompts(self) -> None:
        if not self._can_measure:
            raise ValueError("nothing to measure on: give the panel questions= of both kinds.")

    # --- what is shown --------------------------------------------------------------------------

    def _show(self) -> None:
        """Put what is known now into `table` and `curve`."""
        with self.job.lock:
            k, alpha = self.setting.k, self.setting.alpha
            self.set_trait("table", {"columns": self._columns(k, alpha), "rows": self._rows()})
            points = [
                {"alpha": a, **self._shares[key]}
                for a, key in sorted(self._points(k).items())
                if key in self._shares
            ]
            self.set_trait("curve", {"figure": "alpha", "k": k, "points": points})

    def _points(self, k: int) -> dict[float, str]:
        """Return the models measured at this k by alpha; the aligned one is alpha = 0 of any k."""
        turned = list(self._turned.items())  # a copy: the job adds to it
        return {0.0: self._own_key} | {a: key for (at, a), key in turned if at == k}

    def _columns(self, k: int, alpha: float) -> list[dict]:
        columns = []
        for name in self.names:
            pending = name == LOX and self._stood != (k, alpha)
            key = self._key(name, k, alpha)
            at = {"k": k, "alpha": alpha} if name == LOX else {}
            shares = self._shares.get(key)
            columns.append({"name": name, **at, "pending": pending, "shares": shares})
        return columns

    def _rows(self) -> list[dict]:
        rows, shown, rule = [], self.shown(), self.questions.judge == "rule"
        texts = self._render([p for p, _ in shown]) if shown else []
        for (prompt, kind), text in zip(shown, texts, strict=True):
            answers = []
            for name in self.names:
                key = self._key(name, *(self._stood or (0, 0.0)))
                answer = self._answers.get((key, text))
                about = {"rule": rule, "forbidden": prompt in self.questions.forbidden}
                judged = None if answer is None else verdict(prompt, answer, **about)
                answers.append({"text": answer, "verdict": judged})
            rows.append({"prompt": prompt.text, "kind": kind, "answers": answers})
        return rows

    # --- what is saved --------------------------------------------------------------------------

    def figure_data(self) -> dict:
        """Return the data of the alpha axis, for `figures.figure_alpha`.

        Raises
        ------
        ValueError
            If nothing has been measured at this k.
        """
        if not self.curve["points"]:
            raise ValueError(f"nothing is measured at k={self.setting.k} yet: press Measure.")
        return self.curve

    @property
    def figure_name(self) -> str:
        """What a figure of this is called."""
        return f"alpha-k{self.setting.k}"

    def code(self) -> str:
        """Return the calls that give the answers and the alpha axis on screen."""
        return dial_code(self)

    @property
    def adapter_name(self) -> str:
        """A folder's name for what the dial shows."""
        return f"lox-k{self.setting.k}-alpha{self.setting.alpha:g}"

    def save_adapter(self, folder: str | Path) -> str:
        """Write what the dial shows as a PEFT adapter of the aligned model; say what was done.

        Raises
        ------
        ValueError, FileExistsError
            As `extrapolation.save_adapter`; also at alpha = 0, where there is nothing to add.
        """
        k, alpha = self.setting.k, self.setting.alpha
        if alpha == 0:
            raise ValueError("alpha=0 is the aligned model itself; turn the dial first.")
        if not str(folder).strip():
            raise ValueError("the folder has no name.")
        left_out = save_adapter(self.subspace, self.subspace.info["aligned"], folder, k, alpha)
        rest = f"; left out: {', '.join(left_out)}" if left_out else ""
        return f"Saved the adapter (k={k}, alpha={alpha:g}) in {Path(folder).resolve()}{rest}"
