"""The LoX dial's state: k, alpha, prompts, and the answers and measures that follow from them.

Answers come first and by themselves; measures follow by themselves only while they are quick.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import traitlets

from lox_kit.extrapolation import LoxDial, SafetySubspace, kinds_of, lox_key
from lox_kit.measures import KINDS, Questions, Reference
from lox_kit.models import Model, Prompt, generate_likely, load_model, render
from lox_kit.store import MemoryStore, Store
from lox_kit.studies import measure_shares
from lox_kit.widgets.job import Job, Ticket
from lox_kit.widgets.setting import STEP, PanelState, Setting, check_aligned, one_of

from .places import ALL, Place, depth_of, pattern, save_at
from .script import dial_script
from .verdict import verdict

BASE, ALIGNED, LOX = "base", "aligned", "LoX"
QUICK = 1.0  # seconds of work that start by themselves
SETTLE = 0.1  # seconds a setting must last before models are asked
SETTLE_K = 0.3  # of a new k, which other panels draw meanwhile
PAGE = 2  # evaluation prompts shown at a time, of each kind
ALPHAS = tuple(2 * STEP * i for i in range(int(Setting.most_alpha / (2 * STEP)) + 1))
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
    kind : str
        Which matrices are turned, of `kinds`.
    layers : (int, int)
        The first and last layer that is turned.
    kept : tuple of Place
        Settings that stand beside the one that is turned.
    data : dict
        `table` has columns (models, with their shares) and rows (prompts, with an answer from
        each, "pending" while it is that of the setting before), `curve` what has been measured at
        this k, as `figures.figure_alpha` draws it.
    """

    prompt = traitlets.Unicode()
    page = traitlets.Int(0)
    kind = traitlets.Unicode(ALL)
    layers = traitlets.Tuple(traitlets.Int(), traitlets.Int())
    kept = traitlets.Tuple()
    _check_kind = one_of("kind", "kinds")

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
        keep_on: str = "device",
        setting: Setting | None = None,
    ):
        self.take(model)
        check_aligned(subspace, model)
        self.subspace, self.model = subspace, model
        self.dial = LoxDial(model, subspace, keep_on)
        self.depth, self.kinds = depth_of(subspace), [ALL, *kinds_of(subspace)]
        self.ends.callback(self._let_go)
        self._models = {BASE: base} if with_base else {}
        self._models |= {ALIGNED: model, LOX: model} | dict(attacked or {})
        self.keys = {name: m.key for name, m in self._models.items() if m}
        self.keys.setdefault(BASE, subspace.info["base_fingerprint"])
        self.questions = (questions or Questions.default(model, FEW)).with_help()
        self.store = store or MemoryStore()  # answers that were measured are shown as well
        self._answers: dict[tuple[str, str], str] = {}  # by the model's key and the rendered text
        self._shares: dict[str, dict] = {}  # by the model's key
        self._measured: set[Place] = set()
        self._stood = Place(0, 0.0)  # where the dial's answers were all given
        self._reference: Reference | None = None
        self._seconds = 0.0 if model.is_sandbox else float("inf")  # of the last measurement
        first = self.questions.forbidden[0].text if self.questions.forbidden else ""
        every = (0, max(self.depth - 1, 0))
        super().__init__(setting or Setting(subspace), Job(), prompt=first, layers=every)
        self.open()
        self.job.start(partial(self._work, SETTLE, None))

    # --- what is asked --------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The columns, left to right: kept settings after the dial's."""
        kept = [str(place) for place in self.kept]
        return [n for m in self._models for n in ((m, *kept) if m == LOX else (m,))]

    @property
    def _order(self) -> list[str]:
        """The columns as they are asked: the dial first."""
        return sorted(self.names, key=lambda name: name != LOX)

    def keep(self) -> str:
        """Let this setting stand beside what the dial is turned to; say which do."""
        self.kept = tuple(dict.fromkeys((*self.kept, self.dial_place)))
        return "Kept: " + "; ".join(map(str, self.kept))

    def forget(self) -> None:
        """Take the kept settings out of the table; what was measured is kept."""
        self.kept = ()

    def shown(self, page: int | None = None) -> list[tuple[Prompt, str]]:
        """Return the prompts on a page, default this one, with kinds: yours, forbidden, allowed."""
        page = self.page if page is None else page
        known = {p.text: p for p in (*self.questions.forbidden, *self.questions.allowed)}
        text = self.prompt.strip()
        rows = [(known.get(text, Prompt(text)), "your prompt")] if text else []
        for kind in KINDS:
            prompts = getattr(self.questions, kind)
            first = page * PAGE + 1  # the one before is in the box at the start
            places = range(first, first + min(PAGE, len(prompts)))
            rows += [(prompts[i % len(prompts)], kind) for i in places]
        return rows

    def other_prompts(self) -> None:
        """Show the next evaluation prompts."""
        self.page += 1

    def _let_go(self) -> None:
        """Give the model its aligned weights back, and drop the others."""
        self.dial.off()
        self._reference = None
        self._models = dict.fromkeys(self._models, self.model)

    def changed(self, change) -> None:
        """Show what is known of this setting, and start on what is not."""
        self.show()
        settle = SETTLE_K if change["name"] == "k" else SETTLE
        self.job.start(partial(self._work, settle, None))

    # --- the job --------------------------------------------------------------------------------

    def measure(self) -> None:
        """Measure every column at this setting."""
        self.job.start(self.measuring([(name, self.dial_place) for name in self._order]))

    def measure_axis(self) -> None:
        """Measure along the alpha axis at this k, in steps of 0.5."""
        axis = [(LOX, self.dial_place._replace(alpha=a)) for a in ALPHAS]
        self.job.start(self.measuring(axis))

    def measuring(
        self, columns: list[tuple[str, Place]], pages: Sequence[int | None] = (None,)
    ) -> Callable[[Ticket], None]:
        """Return the work that measures columns, and asks them the prompts of these pages."""
        if not self._can_measure:
            raise ValueError("nothing to measure on: give the panel questions= of both kinds.")
        return partial(self._work, 0.0, columns, pages=pages)

    def _work(
        self, settle: float, columns: list | None, ticket: Ticket, pages: Sequence = (None,)
    ) -> None:
        """Ask the dial first, then the others, what they have not been asked; then measure.

        The dial is asked the first prompt alone, so that one answer is there soon. `columns` are
        those that are measured; default is all of them here, if that is quick.
        """
        ticket.settle(settle)
        at, prompts = self.dial_place, [p for page in pages for p, _ in self.shown(page)]
        try:
            for i, name in enumerate(self._order, start=1):
                for asked in (prompts[:1], prompts) if name == LOX else (prompts,):
                    self._ask(name, at, asked)
                    ticket.step(f"answers of {name}", i, len(self._order), self.show)
                if name == LOX:
                    self._stood = at
            if columns is None and self._can_measure and self._seconds < QUICK:
                columns = [(name, at) for name in self._order]
            for i, (name, place) in enumerate(columns or (), start=1):
                what = f"measures of {name}" + f" at alpha = {place[1]:g}" * (name == LOX)
                self._measure(name, place, partial(ticket.step, what, i - 1, len(columns)))
                self._ask(name, place, prompts)
                ticket.step(what, i, len(columns), self.show)
        finally:
            self._turn(at)

    @property
    def dial_place(self) -> Place:
        """Where the sliders stand."""
        include = pattern(self.kind, self.layers, self.depth)
        return Place(self.setting.k, self.setting.alpha, include)

    def _place(self, name: str, at: Place) -> Place | None:
        """Return where a column's model is turned to, if it is."""
        return {ALIGNED: Place(0, 0.0), LOX: at, **{str(p): p for p in self.kept}}.get(name)

    def _turn(self, at: Place) -> None:
        """Put the model there, unless it is."""
        if Place(self.dial.k, self.dial.alpha, self.dial.include) != at:
            self.dial.set(**at._asdict())

    def _model(self, name: str, at: Place) -> Model:
        """Return a column's model; the dial's and the aligned one are turned to be so."""
        if place := self._place(name, at):
            self._turn(place)
            return self.model
        if self._models[name] is None:  # the base, when it is first asked
            found = load_model(self.subspace.info["base"], device=str(self.model.device))
            self._models[name], self.keys[name] = found, found.key
        return self._models[name]

    def _key(self, name: str, at: Place) -> str:
        """Return the key of a column's model, which need not be there yet."""
        if (place := self._place(name, at)) is None:
            return self.keys[name]
        return lox_key(self.keys[LOX], place.part_of(self.subspace), place.k, place.alpha)

    def _ask(self, name: str, at: Place, prompts: list[Prompt]) -> None:
        """Get one column's answers to these prompts, where they are not known.

        What was answered elsewhere, last at the setting before, is likely to be answered here.
        """
        key, texts = self._key(name, at), dict.fromkeys(self._render(prompts))
        if new := [text for text in texts if (key, text) not in self._answers]:
            earlier = list(reversed(self._answers.items()))
            likely = {text: [a for (_, t), a in earlier if t == text] for text in new}
            model, limit = self._model(name, at), self.questions.max_new_tokens
            made = generate_likely(model, new, likely, max_new_tokens=limit, store=self.store)
            self._answers |= {(model.key, t): answer for t, answer in zip(new, made, strict=True)}

    def _measure(self, name: str, at: Place, check: Callable[[], None]) -> None:
        """Get one model's shares and drift, where they are not known; `check` between batches."""
        if self._key(name, at) not in self._shares:
            start = time.thread_time()  # waiting for another process is not slowness of ours
            if self._reference is None:
                aligned, asked = self._model(ALIGNED, at), self.questions.allowed
                self._reference = Reference(aligned, asked, **self.questions.how, store=self.store)
            model = self._model(name, at)
            options = {"store": self.store, "on_stage": lambda *_: check()}
            shares = measure_shares(model, self.questions, **options)
            self._shares[model.key] = shares | {"drift": self._reference.compare(model).to_dict()}
            if name == LOX:
                self._seconds = time.thread_time() - start
        if name == LOX:
            self._measured.add(at)

    def _render(self, prompts: Sequence[Prompt]) -> list[str]:
        """Return the text every model is given: the aligned model's own rendering."""
        return render(self.model.tokenizer, prompts, template=self.questions.template)

    @property
    def _can_measure(self) -> bool:
        return bool(self.questions.forbidden and self.questions.allowed)

    # --- what is shown --------------------------------------------------------------------------

    def compute(self) -> dict:
        """Return the table and the alpha axis, with the alpha that the dial is at."""
        return self.at(self.dial_place, self.page)

    def at(self, at: Place, page: int) -> dict:
        """Return `data` with the dial at a place and on a page of prompts, as far as known."""
        k, alpha, include = at
        there = list(self._measured)  # the job adds to it
        measured = {0.0} | {p.alpha for p in there if (p.k, p.include) == (k, include)}
        keys = {a: self._key(LOX, at._replace(alpha=a)) for a in sorted(measured)}
        known = {a: self._shares[key] for a, key in keys.items() if key in self._shares}
        points = [{"alpha": a, **shares} for a, shares in known.items()]
        turned = {LOX: {"at": str(at)}, **{str(p): {"at": str(p)} for p in self.kept}}
        shares = {name: self._shares.get(self._key(name, at)) for name in self.names}
        columns = [{"name": n, **turned.get(n, {}), "shares": s} for n, s in shares.items()]
        return {
            "alpha": alpha,
            "table": {"columns": columns, "rows": self._rows(at, page)},
            "curve": {"figure": "alpha", "k": k, "points": points},
        }

    def _rows(self, at: Place, page: int) -> list[dict]:
        rows, shown, rule = [], self.shown(page), self.questions.judge == "rule"
        texts = self._render([p for p, _ in shown]) if shown else []
        keys, before = ([self._key(n, p) for n in self.names] for p in (at, self._stood))
        for (prompt, kind), text in zip(shown, texts, strict=True):
            about = {"rule": rule, "forbidden": prompt in self.questions.forbidden}
            answers = []
            for key, earlier in zip(keys, before, strict=True):
                pending = (key, text) not in self._answers
                answer = self._answers.get((earlier if pending else key, text))
                judged = None if answer is None else verdict(prompt, answer, **about)
                answers.append({"text": answer, "verdict": judged, "pending": pending})
            rows.append({"prompt": prompt.text, "kind": kind, "answers": answers})
        return rows

    # --- what is saved --------------------------------------------------------------------------

    @property
    def gaps(self) -> str:
        """How few points along alpha the figure has."""
        n = len(self.data["curve"]["points"])
        return f"; it has only {n} values of alpha: press Measure along alpha" * (n < 5)

    def figure_data(self) -> dict:
        """Return the data of the alpha axis, for `figures.figure_alpha`.

        Raises
        ------
        ValueError
            If nothing has been measured at this k.
        """
        curve = self.data["curve"]
        if not curve["points"]:
            raise ValueError(f"nothing is measured at k={self.setting.k} yet: press Measure.")
        return curve

    @property
    def figure_name(self) -> str:
        """What a figure of this is called."""
        return f"alpha-k{self.setting.k}"

    def code(self) -> str:
        """Return the calls that give the answers, and measure the alphas measured so far."""
        return dial_script(self)

    def save_adapter(self) -> str:
        """Write what the dial shows as an adapter, see `save_at`; say what was done."""
        return save_at(self.dial_place, self.subspace)
