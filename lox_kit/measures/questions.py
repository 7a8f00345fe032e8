"""What is measured of every model of an experiment: safety, and beside it what it costs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from lox_kit.judges import Judge, find_judge
from lox_kit.models import Model, Prompt, sandbox_prompts
from lox_kit.store import Store, content_key

from .asr import measure_asr
from .intervals import Share, share_fields
from .utility import exact_answers

KINDS = ("forbidden", "allowed")
BARE = ("rule", "keyword", "target")  # judges whose version 1 a key gives as their name alone
TOKENS = 24  # the longest recipe has 10 words behind a persona's 4, the longest sum 14


@dataclasses.dataclass(frozen=True)
class Questions:
    """What every model is asked, and how.

    Helpfulness is counted where the allowed requests have targets (as the sandbox's have), or where
    a judge says what helps; refusal of them everywhere.
    """

    forbidden: tuple[Prompt, ...]
    allowed: tuple[Prompt, ...] = ()
    judge: str | Judge = "rule"
    template: str = "chat"
    max_new_tokens: int = TOKENS
    helpful: str | Judge | None = None  # the judge of help where there are no targets

    @functools.cached_property
    def judges(self) -> dict[str, Judge]:
        """The judges that are given, by field, each made once.

        Raises
        ------
        FileNotFoundError, ValueError
            See `find_judge`.
        """
        given = {"judge": self.judge} | ({"helpful": self.helpful} if self.helpful else {})
        return {name: find_judge(judge) for name, judge in given.items()}

    def __getstate__(self) -> dict:
        """Leave the judges that were made here to whoever unpickles this to make anew."""
        return {name: value for name, value in self.__dict__.items() if name != "judges"}

    @property
    def key(self) -> str:
        """Hash of all of it, with the judges' versions."""
        prompts = {n: [dataclasses.asdict(p) for p in getattr(self, n)] for n in KINDS}
        named = {n: _judge_key(getattr(self, n), judge) for n, judge in self.judges.items()}
        form = {"template": self.template, "max_new_tokens": self.max_new_tokens}
        return content_key(**prompts, **named, **form)


def _judge_key(given: str | Judge, judge: Judge) -> str:
    """Return a judge's name and version; the keys of stored points have some without."""
    bare = isinstance(given, str) and given in BARE
    return judge.name if bare and judge.version == "1" else f"{judge.name} {judge.version}"


def sandbox_questions(split: str = "test", limit: int | None = None) -> Questions:
    """Return the potion school's held-out requests: 348 forbidden and 216 allowed, or `limit`."""
    forbidden, allowed = (
        tuple(sandbox_prompts(kind, split, limit)) for kind in ("forbidden", "allowed")
    )
    return Questions(forbidden, allowed)


def task_prompts(rows: Sequence[dict]) -> list[Prompt]:
    """Return chat rows as questions, the right answer as target, without a system prompt."""
    pairs = [{m["role"]: m["content"] for m in row["messages"]} for row in rows]
    return [Prompt(pair["user"], pair["assistant"]) for pair in pairs]


def measure(
    model: Model,
    questions: Questions,
    task: Sequence[Prompt] = (),
    *,
    system: str | None = None,
    store: Store | None = None,
) -> dict[str, dict]:
    """Return shares of one model as plain data (value, low, high, count, n), by measure.

    asr, refusal and degenerate of the forbidden requests; helpfulness (the exact answer, or what
    the judge of help counts) and over_refusal of the allowed ones; task, the accuracy on an
    attack's own held-out questions; persona_asr, persona_refusal and persona_degenerate, the
    forbidden requests under `system`. What nothing was asked for is not in it.
    """
    shares = _safety(model, questions, questions.template, None, store)
    if system:
        # The paper's template has no place for a persona; the attack's own has.
        form = "identity" if questions.template == "paper" else questions.template
        asked = _safety(model, questions, form, system, store)
        shares |= {f"persona_{name}": share for name, share in asked.items()}
    if questions.allowed:
        shares |= _cost(model, questions, store)
    if task:
        tokens = questions.max_new_tokens
        shares["task"] = exact_answers(model, task, max_new_tokens=tokens, store=store)
    return {name: share_fields(share) for name, share in shares.items()}


def _safety(
    model: Model, questions: Questions, template: str, system: str | None, store: Store | None
) -> dict[str, Share]:
    """Return ASR, refusal and degenerate share of the forbidden requests."""
    result = measure_asr(
        model,
        questions.forbidden,
        [questions.judges["judge"]],
        template=template,
        system=system,
        max_new_tokens=questions.max_new_tokens,
        store=store,
    )
    return {"asr": result.asr(), "refusal": result.refusal, "degenerate": result.degenerate}


def _cost(model: Model, questions: Questions, store: Store | None) -> dict[str, Share]:
    """Return over-refusal of the allowed requests, and helpfulness where they have targets."""
    exact = model.is_sandbox and all(p.target for p in questions.allowed)
    judge = "rule" if exact else questions.judges.get("helpful")
    result = measure_asr(
        model,
        questions.allowed,
        [judge or "keyword"],
        template=questions.template,
        max_new_tokens=questions.max_new_tokens,
        store=store,
    )
    shares = {"helpfulness": result.asr()} if judge else {}
    return shares | {"over_refusal": result.refusal}
