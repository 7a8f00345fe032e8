"""What every model of an experiment is asked and measured on: safety, and what safety costs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from lox_kit.judges import Judge, find_judge
from lox_kit.models import (
    Model,
    Prompt,
    read_prompts,
    sandbox_prompts,
    smol_prompts,
    with_template_args,
    world_of,
)
from lox_kit.store import Store, content_key
from lox_kit.threads import OnStage
from lox_kit.weights import is_own, own_world

from .asr import measure_asr
from .asr_result import AsrResult, is_degenerate
from .intervals import Share, share_fields

KINDS = {"forbidden": "safe", "allowed": "unsafe"}  # and the requests that are left out of a file
BY_RULE = ("rule", "keyword", "target")  # judges whose verdict says that a request was met
WORLDS = {"sandbox": sandbox_prompts, "smol": smol_prompts}
SMOL_TOKENS = 16
TOKENS = 24  # the longest recipe has 10 words after a persona's 4, the longest sum 14


@dataclasses.dataclass(frozen=True)
class Questions:
    """What every model is asked, and how.

    Helpfulness is counted where a judge says what helps, or where the allowed requests have targets
    (as the sandbox's have); refusal of them everywhere.

    Parameters
    ----------
    forbidden, allowed : sequence of Prompt
        Requests that should be refused, and requests that should be answered.
    judge : str or Judge
        Reads the answers to the forbidden ones; see `judges.find_judge`.
    template, max_new_tokens : see `measure_asr`
    template_args : mapping, optional
        Arguments of the chat template, such as `{"enable_thinking": False}`; kept in `template`.
    helpful : str or Judge, optional
        Reads the answers to the allowed ones. Without one exact answers count in the sandbox, and
        nothing elsewhere; see `with_help`.
    """

    forbidden: tuple[Prompt, ...]
    allowed: tuple[Prompt, ...] = ()
    judge: str | Judge = "rule"
    template: str = "chat"
    max_new_tokens: int = TOKENS
    helpful: str | Judge | None = None
    template_args: dataclasses.InitVar[Mapping[str, object] | None] = None

    def __post_init__(self, template_args: Mapping[str, object] | None):
        for kind in KINDS:
            object.__setattr__(self, kind, tuple(getattr(self, kind)))
        object.__setattr__(self, "template", with_template_args(self.template, template_args or {}))

    @classmethod
    def default(cls, model: Model | str | Path, limit: int | None = None, **given) -> Questions:
        """Return what a model is asked where nothing else is `given`.

        Of a world's model that is `limit` development requests of each kind, see
        `world_questions`. For other models there are no requests; the keyword judge reads answers
        of 60 tokens.

        Parameters
        ----------
        model : Model, path or sandbox name
        given
            Fields of the class, in place of the default's.
        """
        world = model.world if isinstance(model, Model) else world_of(model)
        if world:
            return dataclasses.replace(world_questions(world, "dev", limit), **given)
        asked = cls(**{"forbidden": (), "judge": "keyword", "max_new_tokens": 60, **given})
        return asked.with_help()

    def with_help(self) -> Questions:
        """Return these questions with a judge of help, where none is given.

        It is the judge of the forbidden requests if its verdict says that a request was met
        (`BY_RULE`). A judge that grades harm cannot tell that: "keyword" counts what is no refusal.
        """
        if self.helpful:
            return self
        name = self.judge.partition(":")[0] if isinstance(self.judge, str) else self.judge.name
        helpful = self.judge if name in BY_RULE else "keyword"
        return dataclasses.replace(self, helpful=helpful)

    @property
    def how(self) -> dict:
        """Template and length, as measures take them."""
        return {"template": self.template, "max_new_tokens": self.max_new_tokens}

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
        """Leave out the judges: the process that unpickles this makes its own."""
        return {name: value for name, value in self.__dict__.items() if name != "judges"}

    @property
    def key(self) -> str:
        """Hash of all of it, with the judges' versions."""
        prompts = {n: [dataclasses.asdict(p) for p in getattr(self, n)] for n in KINDS}
        named = {}
        for name, judge in self.judges.items():
            # Keys have always had some judges without their version 1.
            bare = getattr(self, name) in BY_RULE and judge.version == "1"
            named[name] = judge.name if bare else f"{judge.name} {judge.version}"
        return content_key(**prompts, **named, **self.how)


def world_questions(world: str, split: str = "test", limit: int | None = None) -> Questions:
    """Return all held-out requests of a world, or `limit` of each kind, and how they are read.

    The potion school's 348 forbidden and 216 allowed ones are read by its rule; smol's 240 of each
    by the keyword judge, in answers of 16 tokens: whether it refuses is said by then.

    Parameters
    ----------
    world : "sandbox", "smol", or the .toml file of your own
    split : "dev" or "test"

    Raises
    ------
    ValueError
        If world or split is another word, or the limit is below 1; or as `own_world`.
    """
    if not is_own(world):
        if world not in WORLDS:
            raise ValueError(f"world={world!r}: use {' or '.join(WORLDS)}, or a .toml file.")
        asked = (WORLDS[world](kind, split, limit) for kind in KINDS)
        if world == "sandbox":
            return Questions(*asked)
        return Questions(*asked, judge="keyword", max_new_tokens=SMOL_TOKENS, helpful="keyword")
    told = own_world(world)
    if split not in told:
        raise ValueError(f"{world}: has no [{split}] requests, which this is asked on; add them.")
    files = told[split]
    asked = (read_prompts(files[kind], limit, leave_out=KINDS[kind]) for kind in KINDS)
    how = {name: told[name] for name in ("judge", "template", "max_new_tokens")}
    return Questions(*asked, **how).with_help()


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
    on_stage: OnStage | None = None,
) -> dict[str, dict]:
    """Return shares of one model as plain data (value, low, high, count, n), by measure.

    asr, refusal and degenerate of the forbidden requests, and unparsed if a verdict is; helpfulness
    (what the judge of help counts, or the exact answer) and over_refusal of the allowed ones; task,
    the accuracy on an attack's own held-out questions; persona_asr, persona_refusal and
    persona_degenerate, the forbidden requests under `system`. A measure for which nothing was asked
    is left out.
    """
    options = {**questions.how, "store": store, "on_stage": on_stage}
    shares = _safety(model, questions, **options)
    if system:
        # The paper's template has no place for a persona; the attack's own has.
        form = "identity" if questions.template == "paper" else questions.template
        asked = _safety(model, questions, **options | {"template": form, "system": system})
        shares |= {f"persona_{name}": share for name, share in asked.items()}
    if questions.allowed:
        result, helped = _helped(model, questions, **options)
        shares |= {"helpfulness": Share(sum(helped), len(helped))} if helped else {}
        shares["over_refusal"] = result.refusal
    if task:
        options = {"max_new_tokens": questions.max_new_tokens, "store": store}
        shares["task"] = measure_asr(model, task, ["rule"], **options).asr()
    return {name: share_fields(share) for name, share in shares.items()}


def _safety(model: Model, questions: Questions, **options) -> dict[str, Share]:
    """Return ASR, refusal and degenerate share of the forbidden requests."""
    result = measure_asr(model, questions.forbidden, [questions.judges["judge"]], **options)
    shares = {"asr": result.asr(), "refusal": result.refusal, "degenerate": result.degenerate}
    unparsed = result.unparsed()
    return shares | ({"unparsed": unparsed} if unparsed.count else {})


def _helped(model: Model, questions: Questions, **options) -> tuple[AsrResult, list[bool]]:
    """Return the answers to the allowed requests, and of each whether it helps; [] if none can say.

    A broken one does not, unless it is the target.
    """
    judge = questions.judges.get("helpful")
    if not judge and model.is_sandbox and all(p.target for p in questions.allowed):
        judge = "rule"
    result = measure_asr(model, questions.allowed, [judge or "keyword"], **options)
    helped = [
        verdict.harmful and (not is_degenerate(response) or response.strip() == prompt.target)
        for prompt, response, verdict in zip(
            result.prompts, result.responses, result.of_judge(), strict=True
        )
    ]
    return result, helped if judge else []


def read_requests(
    model: Model, questions: Questions, *, store: Store | None = None
) -> dict[str, str]:
    """Return what is counted of each request, a letter each, for tests that pair two models.

    "forbidden" and "allowed" say what the answer does: refuses, answers, neither (r, a, n). "asr"
    and "helpfulness" say y where `measure` counts the answer and n where it does not.

    Parameters
    ----------
    store : Store, optional
        With the answers that `measure` put there, nothing is generated.
    """
    options = {**questions.how, "store": store}
    judge = questions.judges["judge"]
    answers = {"forbidden": measure_asr(model, questions.forbidden, [judge], **options)}
    counted = {"asr": [verdict.harmful for verdict in answers["forbidden"].of_judge()]}
    if questions.allowed:
        answers["allowed"], counted["helpfulness"] = _helped(model, questions, **options)
    found = {kind: "".join(r[0] for r in result.readings) for kind, result in answers.items()}
    told = {name: "".join("ny"[is_so] for is_so in each) for name, each in counted.items() if each}
    return found | told
