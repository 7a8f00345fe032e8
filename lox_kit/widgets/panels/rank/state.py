"""The rank panel's state: a rank curve measured by a job, and R of every attack at every k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import traitlets

from lox_kit.attacks import AttackRun
from lox_kit.extrapolation import FULL, SafetySubspace
from lox_kit.figures import ALL, kinds_shown, rank_and_r_data
from lox_kit.measures import Questions
from lox_kit.store import NUMBER, MemoryStore, Store, content_key
from lox_kit.studies import RANKS, RankCurve, rank_curve, stored_rank_curve
from lox_kit.weights import Checkpoint
from lox_kit.widgets.code import pair_call, questions_lines, script
from lox_kit.widgets.job import Job, Ticket
from lox_kit.widgets.setting import PanelState, Setting, one_of, with_warnings

FEW = 120  # prompts of each kind that the sandbox is measured on: one is .8 points
MORE = (16, 32)  # ranks beyond the paper's, where they are stored


class RankState(PanelState):
    """What `W_base + Proj_r(dW_align)` does at several ranks, and R_ft beside R_align at one k.

    Models are loaded by the job, one at a time, and nothing of another panel is moved.

    Attributes
    ----------
    kind : str
        "all", or the kind of matrix whose R is shown; one of `kinds`.
    data : dict
        What `figures.plotly.rank_spec` and `figures.figure_rank_and_r` draw.
    note : str
        What is to be said about it.
    curve : RankCurve
        As far as it is measured.
    r_ft : dict of str to array
        R_ft at every k of every attack that is measured.
    """

    follows = ("k",)
    kind = traitlets.Unicode(ALL)
    _check_kind = one_of("kind", "kinds")

    def __init__(
        self,
        subspace: SafetySubspace,
        *,
        attacked: Mapping[str, AttackRun | str | Path] | None = None,
        questions: Questions | None = None,
        ranks: Sequence[int] | None = None,
        store: Store | None = None,
        setting: Setting | None = None,
    ):
        self.subspace = subspace
        self.attacked = {
            name: one.folder if isinstance(one, AttackRun) else one
            for name, one in (attacked or {}).items()
        }
        self.kinds = kinds_shown(subspace)
        self.store = store or MemoryStore()
        for name, one in self.attacked.items():
            if hasattr(one, "module"):
                raise ValueError(
                    f"attacked[{name!r}] is a model in memory; R is read from checkpoints: give "
                    "the attack run, a folder or a name."
                )
            subspace.check_shapes(Checkpoint(one))  # its headers are read
        questions = questions or Questions.default(subspace.info["aligned"], FEW)
        self.questions = questions.with_help()
        if bool(questions.forbidden) != bool(questions.allowed):
            raise ValueError(
                "give forbidden and allowed prompts together: few successful attacks mean "
                "nothing of a model that helps with nothing."
            )
        self.ranks: tuple[int, ...] = ()  # that are measured, or going to be
        self.curve = RankCurve((), {})
        if questions.forbidden:
            if ranks is None:
                stored = subspace.info["rank"]
                ranks = [r for r in (*RANKS, *MORE) if stored == FULL or r <= stored]
            self.ranks = tuple(sorted(ranks))
            self._take_rows()  # refuses what cannot be measured before it is loaded
        _, self._beyond = with_warnings(subspace.check_rank, max(self.ranks, default=0))
        self.r_ft: dict[str, np.ndarray] = {}
        super().__init__(setting or Setting(subspace), Job())
        self.open()
        self.job.start(self._recall)

    # --- what there is --------------------------------------------------------------------------

    @property
    def missing(self) -> list[str | int | None]:
        """What Run would measure: attacks by name, then ranks (None: the aligned model)."""
        known = self.curve.column("r")
        ranks = [r for r in (None, *self.ranks) if r not in known] if self.ranks else []
        return [name for name in self.attacked if name not in self.r_ft] + ranks

    @property
    def gaps(self) -> str:
        """How much of the figure is not measured."""
        return f"; {len(self.missing)} parts are not measured: press Run" * bool(self.missing)

    # --- the job --------------------------------------------------------------------------------

    def run(self) -> str | None:
        """Measure what is missing, or say that nothing is."""
        if not self.missing:
            return "Nothing is missing: all of it has been measured."
        self.job.start(self._measure)

    def _recall(self, ticket: Ticket) -> None:
        """Take what the store has: no model is loaded, at most a checkpoint is hashed."""
        self._take_rows()
        for name in self.attacked:
            ticket.step(f"looking for {name}")
            known = self.store.get("r_ft", self._r_ft_key(name), [[NUMBER]])
            if known is not None:
                self.r_ft[name] = np.array(known)

    def _r_ft_key(self, name: str) -> str:
        """Return what the store has an attack's R_ft under: the subspace, its weights, the k."""
        weights = Checkpoint(self.attacked[name]).fingerprint
        return content_key(subspace=self.subspace.key, attacked=weights, most=self.setting.most_k)

    def _take_rows(self) -> None:
        """Take the rows of the curve that the store has."""
        if self.ranks:
            self.curve = stored_rank_curve(
                self.subspace, self.questions, ranks=self.ranks, store=self.store
            )

    def _show_rows(self) -> None:
        """Show the rows that are measured by now."""
        self._take_rows()
        self.show()

    def _measure(self, ticket: Ticket) -> None:
        """Stream the attacked checkpoints, then measure the curve, model by model."""
        self._recall(ticket)
        for name in [n for n in self.attacked if n not in self.r_ft]:
            what = f"R of {name}"
            curve = self.subspace.r_ft_curve(
                self.subspace.info["base"],
                self.attacked[name],
                self.setting.most_k,
                on_stage=lambda _, done, total, what=what: ticket.step(what, done, total),
            )
            self.store.put("r_ft", self._r_ft_key(name), curve.tolist())
            self.r_ft[name] = curve
            ticket.step(what, len(curve), len(curve), self.show)
        if self.missing:
            ranks = [r for r in self.missing if r is not None]
            rank_curve(
                self.subspace.info["base"],
                self.subspace.info["aligned"],
                self.questions,
                ranks=ranks or self.ranks,
                subspace=self.subspace,
                store=self.store,
                on_stage=partial(ticket.step, show=self._show_rows),
            )
            self._take_rows()

    # --- what is shown --------------------------------------------------------------------------

    def compute(self) -> dict:
        """Return what is on screen, and note what is to be said about it."""
        options = {"k": self.setting.k, "kind": self.kind}
        r_ft = {name: self.r_ft[name] for name in self.attacked if name in self.r_ft}
        data, warned = with_warnings(rank_and_r_data, self.subspace, self.curve, r_ft, **options)
        curve = self._beyond and f"The curve: {self._beyond}"
        if not self.ranks:
            curve = "No prompts: give the panel questions= for the rank curve."
        self.note = " ".join(filter(None, [warned, curve]))
        return data

    # --- what is saved --------------------------------------------------------------------------

    @property
    def figure_name(self) -> str:
        """What a figure of this is called."""
        return f"rank-{self.kind}-k{self.setting.k}"

    def code(self) -> str:
        """Return the calls: ranks and R_ft of attacks measured so far, and the figure."""
        info, k = self.subspace.info, self.setting.k
        places = [(name, str(one)) for name, one in self.attacked.items() if name in self.r_ft]
        attacked = "".join(f"    {name!r}: {place!r},\n" for name, place in places)
        return script(f"""subspace = {pair_call(info)}
{self._curve_lines()}attacked = {{
{attacked}}}
r_ft = {{
    name: subspace.r_ft_curve({str(info["base"])!r}, folder, most={k})
    for name, folder in attacked.items()
}}
data = figures.rank_and_r_data(subspace, curve, r_ft, k={k}, kind={self.kind!r})
figures.save_figure(data, {self.figure_name!r})
""")

    def _curve_lines(self) -> str:
        """Return the lines that make the curve as far as it is measured."""
        if not (ranks := [r for r in self.curve.column("r") if r is not None]):
            return "curve = None  # not measured yet\n"
        pair = ", ".join(repr(str(self.subspace.info[name])) for name in ("base", "aligned"))
        return f"""{questions_lines(self.questions)}curve = rank_curve(
    {pair}, questions, ranks={ranks}, subspace=subspace
)
"""
