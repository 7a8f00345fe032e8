"""What every judge offers, and how each verdict is kept as soon as it is made."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Sequence

from lox_kit.models import Model, Prompt, ServerError, split_thought
from lox_kit.store import NUMBER, Store, content_key
from lox_kit.threads import OnStage, tell

Pair = tuple[Prompt, str]  # a request and the answer it got
REFUSED = "refused by the server"  # how the reason of a verdict begins that was not given


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One judge's word on one answer."""

    score: float | None  # on the judge's own scale; None if nothing could be read
    harmful: bool
    reason: str  # why; what the judge said, if that could not be read
    parsed: bool = True
    judge: str = ""  # who says so, and in which version
    version: str = ""

    @property
    def refused(self) -> bool:
        """Whether the judge's server would not say: a content filter, or an empty reply."""
        return not self.parsed and self.reason.startswith(REFUSED)


STORED = {  # what the store must have of a verdict
    "score": (*NUMBER, type(None)),
    "harmful": bool,
    "reason": str,
    "parsed": bool,
    "judge": str,
    "version": str,
}
Made = dict[str, Verdict]  # by key


class JudgingError(ServerError):
    """A judge stopped before the end: the budget is spent, or the server does not answer."""


class Judge:
    """What every judge offers; each verdict is kept in the store as soon as it is made.

    A new kind of judge overrides `_ask`, or the whole of `judge`.
    """

    name: str
    version: str  # changes with anything that could change a verdict
    keeps = True  # whether its verdicts cost time or money, so that they are kept
    ask_again = False  # for verdicts that could not be read when they were asked for before

    def check(self, model: Model, prompts: Sequence[Prompt]) -> None:
        """Raise ValueError if this judge cannot judge this model on these prompts; most can."""

    def judge(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        *,
        store: Store | None = None,
        on_stage: OnStage | None = None,
    ) -> list[Verdict]:
        """Return one verdict per response, in order; the same pair twice is judged once.

        A thought that a response begins with is not judged; one that was not finished leaves
        nothing to judge, and the verdict is unparsed.

        Parameters
        ----------
        store : Store, optional
            Where a judge that costs time or money looks first and keeps each verdict it gets.
        on_stage : callable, optional
            Told "judging", how many different answers have a verdict, and how many there are.

        Raises
        ------
        ValueError
            If there are not as many responses as prompts.
        JudgingError
            If a judge had to stop before the end; with a store its verdicts so far are kept.
        """
        pairs = [(p, split_thought(r)[1]) for p, r in zip(prompts, responses, strict=True)]
        keys = ["" if pair[1] is None else verdict_key(self, *pair) for pair in pairs]
        kept = store.get_many("verdict", keys, STORED) if store and self.keeps else {}
        known = {key: Verdict(**fields) for key, fields in kept.items()}
        known = {key: v for key, v in known.items() if v.parsed or not self.ask_again}
        if "" in keys:
            why = "the thought was not finished: allow more tokens"
            known[""] = self._signed(None, False, why)
        todo = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in known}
        total = len(known) + len(todo)
        if known:
            tell(on_stage, "judging", len(known), total)
        if not todo:
            return [known[key] for key in keys]
        try:
            # Closed, so that no more is asked once this loop has ended for any reason.
            with contextlib.closing(self._ask(todo)) as parts:
                for made in parts:
                    known |= made
                    if store and self.keeps:
                        fields = {key: dataclasses.asdict(v) for key, v in made.items()}
                        store.put_many("verdict", fields)
                    tell(on_stage, "judging", len(known), total)
        except ServerError as stop:
            kept = "kept in the store: run again to ask for the rest"
            raise JudgingError(
                f"the {self.name} judge stopped after {len(known)} of {total} verdicts: {stop} "
                f"What was judged is {kept if store else 'lost: give a store to keep it'}."
            ) from None
        return [known[key] for key in keys]

    def _ask(self, todo: dict[str, Pair]) -> Generator[Made]:
        """Yield verdicts on pairs by key as soon as they are made; may raise JudgingError."""
        raise NotImplementedError

    def _signed(self, score: float | None, harmful: bool, reason: str) -> Verdict:
        """Return a verdict with this judge's name and version; without a score it is unparsed."""
        return Verdict(score, harmful, reason, score is not None, self.name, self.version)


def verdict_key(judge: Judge, prompt: Prompt, response: str) -> str:
    """Return the key of one verdict: the judge in its version, the request, the answer."""
    return content_key(
        judge=judge.name,
        version=judge.version,
        prompt=prompt.text,
        target=prompt.target,
        response=response,
    )
