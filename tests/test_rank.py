"""The safety rank: what is measured at each r, and the smallest r that is enough."""

from dataclasses import replace

import pytest
import torch
from speakers import HarmGrader, watch
from transformers import LlamaForCausalLM

import lox_kit.studies.rank as module
from lox_kit import SafetySubspace, Store, load_model, sandbox_prompts
from lox_kit.measures import Questions, world_questions
from lox_kit.measures.intervals import Share, share_fields
from lox_kit.studies.rank import RankCurve, rank_curve, stored_rank_curve, world_rank_curve

PAIR = ("sandbox/base", "sandbox/aligned")


@pytest.fixture
def seen(monkeypatch):
    """A list that grows by the weights and the key of every model that is measured."""
    states, real = [], module.measure

    def watched(model, *arguments, **options):
        state = {name: p.detach().clone() for name, p in model.module.named_parameters()}
        states.append((state, model.key))
        return real(model, *arguments, **options)

    monkeypatch.setattr(module, "measure", watched)
    return states


def split(state):
    """Return the matrices and the vectors of a model."""
    return [{n: p for n, p in state.items() if (p.ndim == 2) is big} for big in (True, False)]


def same(one, other, atol=0.0):
    """Whether two sets of tensors are the same."""
    return one.keys() == other.keys() and all(
        torch.allclose(one[n], other[n], rtol=0, atol=atol) for n in one
    )


def test_each_point_is_the_base_with_the_top_directions_of_the_delta(seen):
    prompts = sandbox_prompts("forbidden", "dev", 2)
    asked = Questions(prompts, max_new_tokens=2)
    rank_curve(*PAIR, asked, ranks=(0, 2, 128))
    aligned, first, second, last = (state for state, _ in seen)
    base = dict(load_model(PAIR[0], device="cpu").module.named_parameters())
    assert same(first, base)
    assert not same(split(base)[1], split(aligned)[1])  # or the norms would not matter
    W_base, W_aligned = (state["model.layers.1.mlp.up_proj.weight"] for state in (base, aligned))
    U, S, Vh = torch.linalg.svd((W_aligned - W_base).double(), full_matrices=False)
    expected = W_base.double() + (U[:, :2] * S[:2]) @ Vh[:2]
    found = second["model.layers.1.mlp.up_proj.weight"].double()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert same(split(last)[0], split(aligned)[0], atol=1e-6)  # all directions: aligned again
    for state in (second, last):
        assert same(split(state)[1], split(aligned)[1])
    assert len({key for _, key in seen}) == 4


# --- the smallest r -----------------------------------------------------------------------------


def curve(aligned, **by_rank):
    """Return a curve of made-up counts out of 200: r1=3 is an ASR of 3/200 at r = 1."""
    counts = {None: aligned, **{int(name[1:]): count for name, count in by_rank.items()}}
    rows = [
        {"pair": "p", "r": r, "measures": {"asr": share_fields(Share(count, 200))}}
        for r, count in counts.items()
    ]
    return RankCurve(tuple(rows), {})


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (curve(0, r0=80, r1=10, r2=2, r3=1, r4=2), 3),  # .01 above is not within .01
        (curve(5, r0=80, r1=6), 1),
        (curve(0, r2=0, r0=80, r1=50), 2),  # in whatever order they were measured
        (curve(10, r0=3), 0),  # safer than the aligned model is safe enough
        (curve(0, r0=80, r1=50), None),
    ],
)
def test_the_safety_rank_is_the_smallest_within_the_margin(found, expected):
    assert found.safety_rank("p") == expected
    assert found.to_dict()["safety_rank"] == {"p": expected}


# --- the sandbox --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """The curve of seed 0 on a few development prompts, and its store."""
    with Store(tmp_path_factory.mktemp("store")) as store:
        found = world_rank_curve([0], ranks=(4, 0, 1), split="dev", limit=24, store=store)
        yield found, store


def test_the_base_complies_and_a_few_directions_make_it_refuse(sandbox):
    found, _ = sandbox
    assert found.pairs == ["seed 0"]
    assert found.share("seed 0", 0).value > 0.8
    assert 0 < found.share("seed 0", 1).value < found.share("seed 0", 0).value
    assert found.share("seed 0", 4).value < 0.15
    assert found.share("seed 0", None).value < 0.15
    assert found.share("seed 0", 4, "refusal").value > 0.8
    assert found.share("seed 0", 4, "helpfulness").value > 0.8
    assert found.safety_rank("seed 0", margin=0.15) == 4
    assert found.source["split"] == "dev"
    with pytest.raises(KeyError):
        found.share("seed 0", 2)


def test_a_curve_is_measured_once_and_no_model_is_loaded_for_its_rows(
    sandbox, factored, monkeypatch
):
    found, store = sandbox
    asked = watch(monkeypatch, LlamaForCausalLM, "generate")
    again = world_rank_curve([0], ranks=(0, 1, 4), split="dev", limit=24, store=store)
    assert again.to_dict() == found.to_dict()
    assert asked == []
    loaded = watch(monkeypatch, module, "load_model")
    asked, there = world_questions("sandbox", "dev", 24), {"store": store}
    known = stored_rank_curve(factored, asked, ranks=(0, 1, 2, 4), **there)
    assert [row["r"] for row in known.rows] == [None, 0, 1, 4]  # 2 was not measured
    assert [row["measures"] for row in known.rows] == [row["measures"] for row in found.rows]
    others = [
        stored_rank_curve(factored, replace(asked, forbidden=asked.forbidden[1:]), **there),
        stored_rank_curve(factored, replace(asked, allowed=()), **there),
        stored_rank_curve(factored, replace(asked, judge="keyword"), **there),
        stored_rank_curve(SafetySubspace.from_pair(*PAIR, rank=8), asked, **there),
    ]
    assert all(other.rows == () for other in others)
    assert loaded == []


def test_a_judge_of_harm_does_not_read_help():
    prompts, grader = sandbox_prompts("allowed", "dev", 3), HarmGrader()
    found = rank_curve(*PAIR, Questions(prompts, prompts, grader), ranks=(0,))
    assert grader.asked == 2 * 3  # the forbidden ones of two models
    assert (found.source["judge"], found.source["helpfulness_judge"]) == ("grader", "keyword")
    assert found.share("sandbox/aligned", 0, "helpfulness").count == 3
    assert found.share("sandbox/aligned", 0).count == 0


def test_rows_are_kept_as_they_are_measured_and_it_is_stopped_between_batches(tmp_path):
    asked = replace(world_questions("sandbox", "dev", 4), max_new_tokens=4)
    stages = []

    def stop(what, done, total):
        stages.append((what, done, total))
        if len(stages) == 12:
            raise KeyboardInterrupt

    with Store(tmp_path) as store, pytest.raises(KeyboardInterrupt):
        rank_curve(*PAIR, asked, ranks=(2, 0), store=store, on_stage=stop)
    three = [(f"sandbox/aligned: {what}", i, 3) for i, what in enumerate(("aligned", "r = 0"))]
    assert stages[:10] == [stage for stage in three for _ in range(5)]  # two batches, both judged
    assert stages[10][0] == stages[11][0] == "sandbox/aligned: r = 2"
    with Store(tmp_path) as store:
        assert store.count("answer") == 4 * 5  # the batch before it stopped is kept
        assert store.count("rank_row") == 2


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranks": ()}, r"ranks=\[\]: use different whole numbers"),
        ({"ranks": (0, -1)}, r"ranks=\[0, -1\]"),
        ({"ranks": (1, 1)}, r"ranks=\[1, 1\]"),
        ({"questions": Questions(())}, "no prompts"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_loaded(options, message):
    options = {"questions": world_questions("sandbox", "dev", 2)} | options
    with pytest.raises(ValueError, match=message):
        rank_curve("nowhere", "nowhere", **options)


def test_a_subspace_of_another_pair_too_few_directions_and_no_seeds_are_refused(subspace):
    asked = world_questions("sandbox", "dev", 2)
    with pytest.raises(ValueError, match="the subspace was made from"):
        rank_curve(*PAIR, asked, subspace=subspace)
    few = SafetySubspace.from_pair(*PAIR, rank=2)
    with pytest.raises(ValueError, match="holds 2 directions: factor again with rank=3"):
        rank_curve(*PAIR, asked, ranks=(0, 3), subspace=few)
    with pytest.raises(ValueError, match="no seeds"):
        world_rank_curve([])
