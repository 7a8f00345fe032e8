"""Attack success rate: generate, once or several times, let judges read, and read again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace

from lox_kit import __version__
from lox_kit.extrapolation import LoxDial
from lox_kit.judges import Judge, Verdict, find_judge
from lox_kit.models import (
    ChatModel,
    Model,
    Prompt,
    dtype_of,
    generate_answers,
    opens_thought,
    render,
)
from lox_kit.store import MemoryStore, Store
from lox_kit.threads import OnStage

from .asr_result import AsrResult
from .intervals import Mean, Share, share_fields


def measure_asr(
    model: Model | ChatModel,
    prompts: Sequence[Prompt],
    judges: Sequence[str | Judge] = ("rule",),
    *,
    template: str = "chat",
    system: str | None = None,
    max_new_tokens: int = 60,
    shorter: Sequence[int] = (),
    batch_size: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    store: Store | None = None,
    on_stage: OnStage | None = None,
) -> AsrResult:
    """Put every prompt to the model and let every judge read the answers.

    Parameters
    ----------
    model : Model or ChatModel
        From `load_model`; or behind a server, which has its own template and batches. What a server
        refuses to answer has no readable verdict, and is counted as refused by the server.
    judges : sequence of judge or judge name
        "rule" (the sandbox), "target", "keyword", or any judge of `lox_kit.judges`.
    template, system : see `models.render`
    max_new_tokens : int
        60 is the paper's, 512 HarmBench's; recorded in the result.
    shorter : see `models.generate_answers`; `measure_at_lengths` measures there
    batch_size : int, optional
        Most prompts decoded together, see `models.generate_answers`; the sizes used are recorded.
    temperature, seed : see `models.generate_answers`; default greedy, as in the paper
    store : Store, optional
        Where answers and verdicts are kept as they are made; a second run makes what is missing.
    on_stage : callable, optional
        Told of the answers ("answering"), then of each judge's verdicts ("judging").

    Raises
    ------
    ValueError
        If there are no prompts, two judges have one name, or a judge cannot judge this model; if
        a server is given a template, a batch size or a temperature; before anything is generated.
    JudgingError, ServerError
        If a judge or a server has to stop before the end; with a store nothing is lost.
    """
    if not prompts:
        raise ValueError("no prompts: an attack success rate of nothing is not a number.")
    found = _find_judges(judges, model, prompts)
    served = isinstance(model, ChatModel)
    if served and (template != "chat" or batch_size or temperature):
        raise ValueError("a server has its own template, batches and sampling: leave them out.")
    source = {
        "model": model.name,
        "key": model.key,
        "sandbox": model.is_sandbox,
        "template": template,
        "system": system,
        "max_new_tokens": max_new_tokens,
        "judges": {},
        "version": __version__,
    }
    how = {"max_new_tokens": max_new_tokens, "store": store, "on_stage": on_stage}
    if served:
        replies = model.answers(prompts, system=system, **how)
        said = tuple("" if reply.refused else reply.text for reply in replies)
        source["served"] = str(model)
        source["refused"] = {str(i): r.text for i, r in enumerate(replies) if r.refused}
    else:
        texts = render(model.tokenizer, prompts, template=template, system=system)
        drawn = {"temperature": temperature, "seed": seed} if temperature else {}
        source |= drawn
        how |= {"shorter": shorter, "batch_size": batch_size, **drawn}
        answers = generate_answers(model, texts, **how)
        said = tuple(opens_thought(t) + a.text for t, a in zip(texts, answers, strict=True))
        source["dtype"] = dtype_of(model)
        source["batch_sizes"] = sorted({answer.batch_size for answer in answers})
    return _judged(AsrResult(tuple(prompts), said, {}, source), found, store, on_stage)


def measure_at_lengths(
    model: Model,
    prompts: Sequence[Prompt],
    judges: Sequence[str | Judge] = ("rule",),
    *,
    lengths: Sequence[int],
    store: Store | None = None,
    **options,
) -> dict[int, AsrResult]:
    """Measure one generation at several lengths (token limits): harm may come late in an answer.

    The longest answers are generated. They begin with the shorter ones, token by token: each
    result is that of `measure_asr` at that `max_new_tokens`. Other options are as it takes them.

    Raises
    ------
    ValueError
        If a length is below 1, or there are none; otherwise as `measure_asr`.
    """
    if not lengths or min(lengths) < 1:
        raise ValueError(f"lengths={list(lengths)}: use whole numbers of tokens from 1.")
    if isinstance(model, ChatModel) and len(lengths) > 1:
        raise ValueError("a server's answers are not cut here: ask it for one length at a time.")
    options |= {"shorter": lengths, "store": store or MemoryStore()}
    found = {
        n: measure_asr(model, prompts, judges, max_new_tokens=n, **options)
        for n in sorted({*lengths}, reverse=True)
    }
    return dict(sorted(found.items()))


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Several drawn answers to each of the same prompts, one result for each round of draws."""

    results: tuple[AsrResult, ...]

    @property
    def harmful(self) -> list[list[bool]]:
        """Whether each answer is harmful by the first judge, shape (prompts, samples)."""
        rounds = [[verdict.harmful for verdict in r.of_judge()] for r in self.results]
        return [list(prompt) for prompt in zip(*rounds, strict=True)]

    @property
    def asr(self) -> Mean:
        """Attack success rate of one draw: each prompt's share, and the mean over prompts.

        Its interval is over prompts: more samples of the same prompts do not make it vanish.
        """
        return Mean.of([sum(prompt) / len(prompt) for prompt in self.harmful])

    @property
    def any(self) -> Share:
        """Share of prompts with at least one harmful answer: an attacker who asks again."""
        return Share(sum(map(any, self.harmful)), len(self.harmful))

    def to_dict(self) -> dict[str, object]:
        """Return how many samples there are and both rates, as plain data."""
        rates = {"asr": dataclasses.asdict(self.asr), "any": share_fields(self.any)}
        return {"samples": len(self.results), **rates}


def measure_samples(
    model: Model,
    prompts: Sequence[Prompt],
    judge: str | Judge = "rule",
    *,
    samples: int,
    temperature: float,
    seed: int = 0,
    **options,
) -> Samples:
    """Draw several answers to every prompt and let a judge read them.

    Parameters
    ----------
    samples : int
        Answers to each prompt; round i draws with the seed `seed` + i.
    temperature : float
        Above 0, see `models.generate_answers`.
    options
        As `measure_asr` takes them; with a store a call with more samples draws the new ones alone.

    Raises
    ------
    ValueError
        If there are no samples, or the temperature is 0: every answer would be the same.
    """
    if samples < 1 or not temperature > 0:
        raise ValueError(
            f"samples={samples}, temperature={temperature}: use at least 1 sample, drawn at a "
            "temperature above 0."
        )
    options |= {"temperature": temperature}
    rounds = range(seed, seed + samples)
    return Samples(tuple(measure_asr(model, prompts, [judge], seed=i, **options) for i in rounds))


def measure_asr_at(
    dial: LoxDial,
    model: Model,
    prompts: Sequence[Prompt],
    judges: Sequence[str | Judge] = ("rule",),
    *,
    k: int | None,
    alpha: float,
    **options,
) -> AsrResult:
    """Turn the dial of `model` to k and alpha, leave it there, and measure; for sliders and loops.

    `options` are those of `measure_asr`.
    """
    dial.set(k=k, alpha=alpha)
    return measure_asr(model, prompts, judges, **options)


def rescore(
    result: AsrResult,
    *judges: str | Judge,
    store: Store | None = None,
    on_stage: OnStage | None = None,
) -> AsrResult:
    """Let other judges read the answers of a result; nothing is generated.

    Returns
    -------
    AsrResult
        The old verdicts and the new ones; a judge replaces one of the same name.

    Raises
    ------
    ValueError, JudgingError
        As in `measure_asr`.
    """
    about = {"name": result.source["model"], "is_sandbox": result.source["sandbox"]}
    found = _find_judges(judges, SimpleNamespace(**about), result.prompts)  # all a check looks at
    return _judged(result, found, store, on_stage)


def _find_judges(
    judges: Sequence[str | Judge], model: Model | SimpleNamespace, prompts: Sequence[Prompt]
) -> list[Judge]:
    """Return the judges of these names, each name once, if they can judge this model."""
    found = [find_judge(j) for j in judges]
    if not found:
        raise ValueError("no judge: name at least one.")
    names = [judge.name for judge in found]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ValueError(
            f"two judges are called {twice[0]!r} and would overwrite each other: give one another "
            "name (judge.name = ...), or judge with one and `rescore` with the other."
        )
    for judge in found:
        judge.check(model, prompts)
    return found


def _judged(
    result: AsrResult, judges: Sequence[Judge], store: Store | None, on_stage: OnStage | None
) -> AsrResult:
    """Return the result with these judges' verdicts added."""
    verdicts, versions = dict(result.verdicts), dict(result.source["judges"])
    refused, n = result.refused, len(result.prompts)
    there = [i for i in range(n) if i not in refused]
    pairs = [[texts[i] for i in there] for texts in (result.prompts, result.responses)]
    for judge in judges:
        nothing = Verdict(None, False, "no answer to judge", False, judge.name, judge.version)
        made = dict(zip(there, judge.judge(*pairs, store=store, on_stage=on_stage), strict=True))
        verdicts[judge.name] = tuple(made.get(i, nothing) for i in range(n))
        versions[judge.name] = judge.version
    source = result.source | {"judges": versions}
    return dataclasses.replace(result, verdicts=verdicts, source=source)
