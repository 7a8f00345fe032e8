"""The safety rank: how many directions of dW_align a base model needs to become safe.

The paper's effective rank (Perin et al. 2025, arXiv:2506.15606): the smallest r for which the
attack success rate of `W_base + Proj_r(dW_align)` is within .01 of the aligned model's. Beside it,
helpfulness: a model that answers nothing has no successful attacks either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lox_kit import __version__
from lox_kit.extrapolation import FULL, LoxDial, SafetySubspace
from lox_kit.measures import Questions, measure, world_questions
from lox_kit.models import Model, load_model
from lox_kit.store import SHARES, MemoryStore, Store, content_key
from lox_kit.threads import OnStage, tell

from .families import pair_of
from .results import RankCurve

RANKS = (0, 1, 2, 3, 4, 6, 8)  # the paper's
MEASURES = ("asr", "refusal", "degenerate", "unparsed", "helpfulness")


def rank_curve(
    base: str | Path,
    aligned: str | Path,
    questions: Questions,
    *,
    ranks: Sequence[int] = RANKS,
    subspace: SafetySubspace | None = None,
    device: str = "auto",
    store: Store | None = None,
    on_stage: OnStage | None = None,
) -> RankCurve:
    """Measure `W_base + Proj_r(dW_align)` at several ranks, and the aligned model itself.

    A weight that is no matrix (norms, biases) is the aligned model's at r >= 1, as in the paper's
    code: a vector is a matrix of rank one, so its whole delta is its own rank-1 part. A matrix that
    `subspace` leaves out stays the base's.

    Parameters
    ----------
    base, aligned : path or sandbox name
    questions : Questions
        Without a judge of help, `Questions.with_help` says who reads the allowed ones' answers.
    ranks : sequence of int
        0 is the base model.
    subspace : SafetySubspace, optional
        Of this pair; default is to factor as many directions as the largest rank.
    store : Store, optional
        Keeps answers as they are made and rows as they are measured: a call that was cut off is
        resumed, and `stored_rank_curve` finds the rows again.
    on_stage : callable, optional
        Told what is measured, at its beginning and after every batch of answers. Raising from it
        ends the call there.

    Raises
    ------
    ValueError
        If a rank is negative or repeated, or not stored; if the subspace is another pair's; if
        base or aligned cannot be measured (`measure_asr`).
    """
    questions = questions.with_help()
    _check(ranks, questions)
    subspace = subspace or SafetySubspace.from_pair(base, aligned, rank=max(*ranks, 1))
    subspace.check_rank(max(ranks))
    name, store = str(aligned), store or MemoryStore()
    rows = []
    for r, model in _models(base, aligned, subspace, ranks, device):

        def report(*_, stage=f"{name}: {'aligned' if r is None else f'r = {r}'}") -> None:
            tell(on_stage, stage, len(rows), len(ranks) + 1)

        report()
        shares = measure(model, questions, store=store, on_stage=report)
        del model  # one model in memory at a time
        row = {"pair": name, "r": r, "measures": {m: shares[m] for m in MEASURES if m in shares}}
        store.put("rank_row", _row_key(subspace, r, questions), row["measures"])
        rows.append(row)
    return RankCurve(tuple(rows), _source(questions))


def _models(
    base: str | Path,
    aligned: str | Path,
    subspace: SafetySubspace,
    ranks: Sequence[int],
    device: str,
) -> Iterator[tuple[int | None, Model]]:
    """Yield the aligned model (r: None), then base + Proj_r(dW_align) by r, in place."""
    model = load_model(aligned, device=device)
    tokenizer, key = model.tokenizer, model.key
    if key != subspace.info["aligned_fingerprint"]:
        raise ValueError(f"the subspace was made from {subspace.info['aligned']}, not {aligned}.")
    vectors = {n: p.detach() for n, p in model.module.named_parameters() if p.ndim < 2}
    yield None, model
    del model
    model = load_model(base, device=device)
    if model.key != subspace.info["base_fingerprint"]:
        raise ValueError(f"the subspace was made from {subspace.info['base']}, not {base}.")
    if model.tokenizer.get_vocab() != tokenizer.get_vocab():
        raise ValueError(f"{base} has another vocabulary than its aligned model.")
    model.tokenizer = tokenizer  # a base model's often has no chat template
    if 0 in ranks:
        yield 0, model
    model.module.load_state_dict(vectors, strict=False)
    model.key = content_key(parent=model.key, vectors_of=key)
    dial = LoxDial(model, subspace)
    for r in sorted(filter(None, ranks)):
        dial.set(k=r, alpha=1.0)
        yield r, model


def stored_rank_curve(
    subspace: SafetySubspace, questions: Questions, *, store: Store, ranks: Sequence[int] = RANKS
) -> RankCurve:
    """Return what the store knows of `rank_curve` with these options: no model is loaded.

    Rows that were not measured are left out.

    Raises
    ------
    ValueError
        If a rank is negative or repeated.
    """
    questions = questions.with_help()
    _check(ranks, questions)
    keys = {r: _row_key(subspace, r, questions) for r in (None, *sorted(ranks))}
    found = store.get_many("rank_row", keys.values(), SHARES)
    pair = str(subspace.info["aligned"])
    rows = ({"pair": pair, "r": r, "measures": found[k]} for r, k in keys.items() if k in found)
    return RankCurve(tuple(rows), _source(questions))


def _source(questions: Questions) -> dict[str, object]:
    """Return what the numbers of a curve are of, as plain data."""
    names = {name: judge.name for name, judge in questions.judges.items()}
    judges = {"judge": names["judge"]}
    if questions.allowed:
        judges["helpfulness_judge"] = names["helpful"]
    return judges | {"norms": "aligned"} | questions.how | {"version": __version__}


def _row_key(subspace: SafetySubspace, r: int | None, questions: Questions) -> str:
    """Return the key of a row: the point's weights, all that is asked, who judges."""
    source = _source(questions)
    return content_key(subspace=subspace.key, r=r, asked=questions.key, source=source)


def _check(ranks: Sequence[int], questions: Questions) -> None:
    """Raise ValueError for what could not be measured."""
    if not questions.forbidden:
        raise ValueError("no prompts: an attack success rate of nothing is not a number.")
    if not ranks or min(ranks) < 0 or len(set(ranks)) < len(ranks):
        raise ValueError(f"ranks={list(ranks)}: use different whole numbers from 0, at least one.")


def world_rank_curve(
    seeds: Sequence[int] = (0,),
    *,
    world: str = "sandbox",
    ranks: Sequence[int] = RANKS,
    split: str = "test",
    limit: int | None = None,
    store: Store | None = None,
    on_stage: OnStage | None = None,
) -> RankCurve:
    """Measure the rank curves of a world's families; one that does not exist is built first.

    Parameters
    ----------
    world : "sandbox" or "smol"
    split, limit : see `world_questions`
    """
    if not seeds:
        raise ValueError("no seeds: name at least one family.")
    questions = world_questions(world, split, limit)
    _check(ranks, questions)
    rows = []
    for seed in seeds:
        pair = pair_of(seed, world=world, on_stage=on_stage)
        rank = FULL if world == "sandbox" else max(*ranks, 1)
        how = {"subspace": SafetySubspace.from_pair(*pair, rank=rank), "ranks": ranks}
        curve = rank_curve(*pair, questions, store=store, on_stage=on_stage, **how)
        rows += [row | {"pair": f"seed {seed}"} for row in curve.rows]
    return RankCurve(tuple(rows), curve.source | {"split": split})
