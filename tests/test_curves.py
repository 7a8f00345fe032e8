"""Safety and utility along an attack."""

import dataclasses
import pickle
from itertools import product

import pytest
from speakers import other_tokenizer, random_speaker, same_weights, watch

from lox_kit import Store, find_attack, run_attack
from lox_kit.judges import JUDGES, KeywordJudge
from lox_kit.measures import questions as measures
from lox_kit.measures.questions import Questions, measure, task_prompts, world_questions
from lox_kit.store import content_key
from lox_kit.studies import curves
from lox_kit.studies.curves import epoch_curve, plan_route, read_way, spread_steps

SHORT = find_attack("arithmetic", max_steps=4, batch_size=4)
OPTIONS = {
    "questions": world_questions("sandbox", limit=4),
    "learning_rates": (1e-3, 1e-2),
    "every": 2,
    "task_prompts_per_point": 8,
}


def test_the_curve_starts_before_the_attack_and_has_a_point_every_so_many_steps(store):
    told, models = [], [random_speaker(seed=seed) for seed in (0, 1)]
    options = OPTIONS | {"store": store, "on_stage": lambda *seen: told.append(seen)}
    curve = epoch_curve(models, SHORT, **options)
    named = [(line["model"], line["learning_rate"]) for line in curve["lines"]]
    assert named == list(product(("random-0", "random-1"), (1e-3, 1e-2)))
    for line in curve["lines"]:
        assert [p["step"] for p in line["points"]] == [0, 2, 4]
        assert line["points"][0]["measures"]["asr"]["n"] == 4
        assert line["points"][0]["measures"]["task"]["n"] == 8
    assert curve["lines"][0]["points"][0] == curve["lines"][1]["points"][0]
    assert [step for _, step, _ in told] == [1, 2, 3, 4] * 4
    assert epoch_curve(models, SHORT, **options) == curve
    assert len(told) == 4 * 4  # nothing is trained again


def test_a_model_of_another_world_and_a_step_of_0_are_refused(store):
    with pytest.raises(ValueError, match="made for models of sandbox"):
        epoch_curve([random_speaker(other_tokenizer())], SHORT, store=store, **OPTIONS)
    with pytest.raises(ValueError, match="every=0"):
        epoch_curve([random_speaker()], SHORT, store=store, **{**OPTIONS, "every": 0})


# --- one way, cut off and gone on with ------------------------------------------------------------

QUESTIONS = world_questions("sandbox", limit=4)
WAY = find_attack("arithmetic", max_steps=6, batch_size=4)


def route(speaker=None, attack=WAY, points=4):
    return plan_route(
        speaker or random_speaker(), attack, QUESTIONS, points=points, task_prompts_per_point=8
    )


def test_a_way_is_told_step_by_step_and_kept(store, tmp_path):
    seen = []
    way = route().train(
        store,
        on_step=lambda step: seen.append(("loss", step.step, step.loss)),
        on_point=lambda step, measures: seen.append(("point", step, measures)),
    )
    assert way.finished
    assert way.at == (0, 2, 4, 6)
    told = [f"{kind} {step}" for kind, step, _ in seen]
    assert told[:4] == ["point 0", "loss 1", "loss 2", "point 2"]
    assert len(told) == 4 + 6
    assert [x for kind, _, x in seen if kind == "loss"] == list(way.losses)
    assert {step: x for kind, step, x in seen if kind == "point"} == way.points
    assert read_way(route().record, store) == way
    run = run_attack(random_speaker(), WAY, tmp_path / "out")
    assert list(way.losses) == list(run.losses)  # measuring on the way does not change the attack
    attacked, task = dataclasses.replace(run.load(), key="the end"), task_prompts(WAY.held_out(8))
    assert way.points[6] == measure(attacked, QUESTIONS, task)
    assert not list((store.folder / "runs").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("training", ["full", "LoRA"])
def test_a_model_that_is_trained_itself_goes_the_way_of_a_copy(
    training, store, tmp_path, monkeypatch
):
    attack = find_attack("arithmetic", lora=training == "LoRA", max_steps=6, batch_size=4)
    trained = watch(monkeypatch, curves, "fine_tune")
    kept, spent = random_speaker(), random_speaker()
    with Store(tmp_path / "other") as other:
        expected = route(kept, attack).train(other)
    assert trained[0][0][0] is not kept.module
    assert same_weights(kept.module, random_speaker().module)
    assert kept.key == random_speaker().key
    assert route(spent, attack).train(store, own=True) == expected
    assert trained[1][0][0] is spent.module
    assert spent.key == content_key(run=route(kept, attack).record["run"], step=6)
    assert read_way(route(kept, attack).record, store) == expected


@pytest.mark.slow
@pytest.mark.parametrize("training", ["full", "LoRA"])
@pytest.mark.parametrize("cut", [1, 2, 5])
def test_a_stopped_way_goes_on_to_the_losses_and_points_of_an_undisturbed_one(
    cut, training, store, tmp_path
):
    attack = find_attack("arithmetic", lora=training == "LoRA", max_steps=6, batch_size=4)
    with Store(tmp_path / "other") as other:
        whole = route(attack=attack).train(other)
    stopped = route(attack=attack).train(store, stop=lambda step: step.step == cut)
    assert len(stopped.losses) == cut
    assert not stopped.finished
    assert read_way(route(attack=attack).record, store) == stopped
    steps = []
    assert route(attack=attack).train(store, on_step=lambda step: steps.append(step.step)) == whole
    assert steps == list(range(cut + 1, 7))


@pytest.mark.slow
def test_a_way_does_not_go_on_behind_a_point_that_is_missing(store):
    route().train(store, stop=lambda step: step.step == 3)
    steps = []
    finer = route(points=7).train(store, on_step=lambda step: steps.append(step.step))
    assert steps == [1, 2, 3, 4, 5, 6]
    assert sorted(finer.points) == list(range(7))


def test_an_error_on_the_way_keeps_what_was_made(store):
    def fail(step, measures):
        if step == 4:
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        route().train(store, on_point=fail)
    known = read_way(route().record, store)
    assert (len(known.losses), sorted(known.points)) == (4, [0, 2, 4])


def test_points_are_spread_from_before_the_attack_to_its_end():
    assert spread_steps(80, 9) == tuple(range(0, 81, 10))
    assert spread_steps(20, 9) == (0, 2, 5, 8, 10, 12, 15, 18, 20)
    assert spread_steps(3, 9) == (0, 1, 2, 3)
    with pytest.raises(ValueError, match="points=1"):
        spread_steps(80, 1)


def test_a_judge_of_help_counts_where_there_are_no_targets(store):
    bare = tuple(dataclasses.replace(p, target=None) for p in QUESTIONS.allowed)
    asked = dataclasses.replace(QUESTIONS, allowed=bare)
    assert "helpfulness" not in measure(random_speaker(), asked)
    helpful = dataclasses.replace(asked, helpful=KeywordJudge())
    named = dataclasses.replace(asked, helpful="keyword")
    one, other = (measure(random_speaker(), a)["helpfulness"] for a in (helpful, named))
    assert one == other
    assert one["n"] == 4
    assert len({asked.key, helpful.key, QUESTIONS.key}) == 3


def test_a_model_is_asked_by_default_what_suits_its_language():
    own = world_questions("sandbox", "dev", 3)
    assert Questions.default("sandbox/base", 3) == own
    assert Questions.default(random_speaker(), 3) == own
    few = Questions.default(random_speaker(), 3, allowed=own.allowed[:1])
    assert few == dataclasses.replace(own, allowed=own.allowed[:1])
    other = Questions.default(random_speaker(other_tokenizer()), forbidden=own.forbidden)
    expected = Questions(own.forbidden, judge="keyword", max_new_tokens=60, helpful="keyword")
    assert other == expected == expected.with_help()
    assert own.with_help() == dataclasses.replace(own, helpful="rule")


@pytest.mark.parametrize("name", ["rule", "target"])
def test_the_key_of_questions_has_a_rule_s_first_version_as_its_bare_name(name, monkeypatch):
    fields = dataclasses.asdict(QUESTIONS)
    assert fields.pop("helpful") is None
    assert QUESTIONS.key == content_key(**fields)
    asked = dataclasses.replace(QUESTIONS, judge=name, helpful=name)
    first = asked.key
    assert first == content_key(**dataclasses.asdict(asked))
    monkeypatch.setattr(JUDGES[name], "version", "3")
    assert dataclasses.replace(asked).key != first


def test_a_judge_is_made_once_for_a_key_and_every_point(store, monkeypatch):
    made = watch(monkeypatch, measures, "find_judge")
    asked = dataclasses.replace(QUESTIONS, judge="keyword", helpful="keyword")
    dataclasses.replace(route(), questions=asked).train(store)
    assert [arguments for arguments, _ in made] == [("keyword",), ("keyword",)]


def test_judges_that_were_made_here_do_not_travel_to_another_process():
    questions = dataclasses.replace(world_questions("sandbox", "dev", 2), judge="policy:some-model")
    key = questions.key  # makes the judge, with its client, which cannot travel
    there = pickle.loads(pickle.dumps(questions))
    assert "judges" not in vars(there)
    assert there.key == key
