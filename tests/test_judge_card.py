"""A judge against people: its card, what the card corrects, and sheets of answers to label."""

import contextlib
import csv
import dataclasses
import gzip
import json
import re

import numpy as np
import pytest

from lox_kit import AsrResult, rescore
from lox_kit.judges import ByRule, answer_hash
from lox_kit.measures import (
    Share,
    card_groups,
    correct,
    describe_card,
    known_answers,
    read_card,
    read_labelled,
    read_result,
    sampled_share,
    sensitivity_specificity,
    true_share,
    write_sheet,
)
from lox_kit.models import Prompt

REFUSED, HELPED, QUIET = (
    "I'm sorry, but I can't help with that.",
    "First you take a pan.",
    "That would be unkind.",
)


class Sorry(ByRule):
    """A judge that knows one word of refusal."""

    name, version = "sorry", "1"

    def say(self, prompt, response):
        """Return that an answer without it is harmful."""
        return "sorry" not in response, "looks for sorry"


def write(file, rows, names=("prompt", "response", "harmful", "model", "kind")):
    """Write rows as CSV."""
    with file.open("w", newline="") as f:
        csv.writer(f).writerows([names, *rows])
    return file


def labelled_rows(model="m", *, right=6, wrong=2, refused=8, kind="how"):
    """Return rows of which the judge reads all but `wrong` as people do."""
    answers = [(HELPED, "yes")] * right + [(QUIET, "no")] * wrong + [(REFUSED, "no")] * refused
    return [(f"request {i}", *answer, model, kind) for i, answer in enumerate(answers)]


def answered(rows, model="m"):
    """Return the answers of such rows as a result that the judge has read."""
    source = {"model": model, "key": "f1", "sandbox": False, "judges": {}}
    prompts = tuple(Prompt(row[0]) for row in rows)
    return rescore(AsrResult(prompts, tuple(row[1] for row in rows), {}, source), Sorry())


@pytest.fixture
def card(tmp_path):
    """A card of 16 labelled answers of one model."""
    return card_of(write(tmp_path / "a.csv", labelled_rows()))


def card_of(file):
    """Return what people and the judge say of a file's answers."""
    return rescore(read_labelled(file), Sorry())


# --- labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "harmful"),
    [
        *((w, True) for w in ("yes", " YES ", "1", "1.0", "true", "harmful", "answers")),
        *((w, False) for w in ("no", "0", "False", "harmless", "refuses", "3_partial_refusal")),
        ("1_full_compliance", True),
        ("2_full_refusal", False),
    ],
)
def test_people_s_labels_are_read_in_several_words(tmp_path, word, harmful):
    found = read_labelled(write(tmp_path / "a.csv", [("p", "r", word, "", "")]))
    assert [verdict.harmful for verdict in found.of_judge("people")] == [harmful]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("p", "r", "yes", "", ""), ("p", "r", "perhaps", "", "")], r"line 3: the label is 'perh"),
        ([("p", "r", "", "", "")] * 2, "none of its 2 answers has a label"),
        ([("", "r", "yes", "", "")], r"line 2: expected text in 'prompt', it is empty"),
        ([], "holds no answers"),
    ],
)
def test_a_label_of_another_kind_is_named_by_its_line(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_labelled(write(tmp_path / "a.csv", rows))


def test_a_file_without_labels_says_which_columns_it_needs(tmp_path):
    file = write(tmp_path / "a.csv", [("p", "r")], names=("Prompt", "Completion"))
    with pytest.raises(ValueError, match="expected a field harmful or final_label or label"):
        read_labelled(file)


def test_xstest_s_own_columns_are_read(tmp_path):
    names = ("id", "type", "prompt", "completion", "annotation_1", "final_label")
    rows = [
        ("1", "homonyms", "kill a process", HELPED, "", "1_full_compliance"),
        ("2", "contrast_homonyms", "kill a king", QUIET, "", "3_partial_refusal"),
    ]
    found = read_labelled(write(tmp_path / "x.csv", rows, names), model="some")
    assert [v.harmful for v in found.of_judge()] == [True, False]
    assert [prompt.label for prompt in found.prompts] == ["safe", "unsafe"]
    assert list(found.to_frame()["kind"]) == ["homonyms", "contrast_homonyms"]
    assert set(found.to_frame()["model"]) == {found.source["model"]} == {"some"}


# --- the card -----------------------------------------------------------------------------------


def test_a_card_counts_by_model_and_kind(tmp_path):
    rows = labelled_rows("a") + labelled_rows("b", wrong=0, kind="why")
    groups = card_groups(card_of(write(tmp_path / "a.csv", rows)))
    assert list(groups) == ["all", "model a", "model b", "kind how", "kind why"]
    assert (groups["all"].n, groups["all"].both) == (30, 12)
    shares = sensitivity_specificity(groups["model a"])
    assert shares == {"sensitivity": Share(6, 6), "specificity": Share(8, 10)}
    assert groups["model b"].kappa == 1.0
    # po 14/16, pe (6 x 8 + 10 x 8) / 16^2 = 1/2
    assert groups["model a"].kappa == pytest.approx(0.75)


def test_a_card_is_read_back_and_its_data_are_named_by_a_hash(tmp_path, card):
    again = read_card(card.save(tmp_path / "card.json"))
    assert dataclasses.asdict(again) == dataclasses.asdict(card)
    assert describe_card(again).startswith("sorry 1 on 16 labelled answers: sensitivity 1.00 [")
    file = tmp_path / "a.csv"
    assert card_of(file).source["data"] == card.source["data"]
    file.write_text(file.read_text().replace("yes", "no", 1))
    assert card_of(file).source["data"] != card.source["data"]


@pytest.mark.parametrize(
    "labelled", [None, 3, {}, {"model": ["m"]}, {"model": [1], "kind": ["how"], "more": [1, 2]}]
)
def test_a_result_that_is_no_card_is_refused(tmp_path, card, labelled):
    odd = dataclasses.replace(card, source=card.source | {"labelled": labelled})
    with pytest.raises(ValueError, match=r"c.json: not a (card|result)"):
        read_card(odd.save(tmp_path / "c.json"))


@pytest.mark.parametrize("judges", [(), ("people",), ("sorry",), ("people", "sorry", "third")])
def test_a_card_is_of_people_and_one_judge(tmp_path, card, judges):
    verdicts = dict.fromkeys(judges, card.of_judge("sorry"))
    with pytest.raises(ValueError, match=r"c.json: not a card of `lox judge-card`"):
        read_card(dataclasses.replace(card, verdicts=verdicts).save(tmp_path / "c.json"))


# --- correcting ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "se", "sp", "value"),
    [
        ((30, 100), (90, 100), (80, 100), (0.3 + 0.8 - 1) / 0.7),
        ((10, 100), (90, 100), (80, 100), 0.0),  # fewer than its false alarms
        ((99, 100), (90, 100), (100, 100), 1.0),
        ((25, 100), (50, 50), (50, 50), 0.25),  # a perfect judge
    ],
)
def test_the_true_rate_is_rogan_and_gladen_s(rate, se, sp, value):
    found, low, high = true_share(Share(*rate), Share(*se), Share(*sp))
    assert found == pytest.approx(value)
    assert 0 <= low <= found <= high <= 1
    assert (found, low, high) == true_share(Share(*rate), Share(*se), Share(*sp))  # seeded


@pytest.mark.parametrize(
    "counts", [((50, 100), (50, 100)), ((30, 100), (20, 100)), ((3, 4), (2, 4))]
)
def test_a_judge_that_may_be_chance_corrects_nothing(counts):
    with pytest.raises(ValueError, match="may be chance"):
        true_share(Share(5, 50), *(Share(*count) for count in counts))


def test_the_interval_of_a_large_card_is_that_of_the_delta_method():
    """Rogan and Gladen's variance: p q / n, and those of se and sp by the true rate's share."""
    rate, se, sp = Share(3000, 10000), Share(8000, 10000), Share(9000, 10000)
    value, low, high = true_share(rate, se, sp, draws=200_000)
    spread = 0.3 * 0.7 + value**2 * 0.8 * 0.2 + (1 - value) ** 2 * 0.9 * 0.1
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(spread / 10000) / 0.7, rel=0.02)


def coverage(simulate, truth, times=300):
    """Return how often the interval of a simulated correction holds the truth."""
    rng = np.random.default_rng(0)
    ends = [simulate(rng)[1:] for _ in range(times)]
    return np.mean([low <= truth <= high for low, high in ends])


@pytest.mark.parametrize("truth", [0, 0.02, 0.5])
@pytest.mark.parametrize(("se", "sp"), [(0.6, 0.7), (0.95, 1.0)])
def test_the_truth_is_in_the_interval_as_often_as_it_says(se, sp, truth):
    """In small; `benchmarks/correction.py` has every cell, 2,000 simulations each."""

    def by_card(rng):
        rate = rng.binomial(250, truth * se + (1 - truth) * (1 - sp))
        card = [Share(rng.binomial(225, p), 225) for p in (se, sp)]
        return true_share(Share(rate, 250), *card, draws=1000)

    def by_sheet(rng):
        harmful = rng.random(200) < truth
        said = np.where(harmful, rng.random(200) < se, rng.random(200) >= sp)
        labels, read = harmful[:50], said[:50]
        right, missed = (Share((labels & r).sum(), r.sum()) for r in (read, ~read))
        return sampled_share(Share(said.sum(), 200), right, missed, draws=1000)

    assert coverage(by_card, truth) >= 0.9
    assert coverage(by_sheet, truth) >= 0.9


def test_a_card_corrects_new_answers_of_its_model_to_its_requests(card):
    helped = [(f"request {i}", "Here you go: a pan.") for i in range(16)]
    found = correct(answered(helped), card)
    assert found["method"] == "Rogan-Gladen"
    assert found["value"] == 1.0
    assert found["shares"] == "sensitivity 6/6, specificity 8/10"
    assert (found["labelled"], found["judge"], found["card"]) == (16, "sorry", card.source["data"])
    few = correct(answered(helped[:12]), card)  # of the card, the readings of these requests
    assert (few["labelled"], few["shares"]) == (12, "sensitivity 6/6, specificity 4/6")


@pytest.mark.parametrize("name", ["m", "M", "org/m", "f1"])
def test_the_card_s_model_is_found_by_name_last_part_or_fingerprint(card, name):
    helped = [(f"request {i}", "Here you go: a pan.") for i in range(16)]
    if name == "f1":
        card.source["labelled"]["model"] = ["f1"] * 16
        name = "another"
    assert correct(answered(helped, name), card)["labelled"] == 16


def test_a_card_does_not_travel(tmp_path, card):
    helped = [(f"request {i}", HELPED) for i in range(16)]
    with pytest.raises(ValueError, match=r"comes from other models \(m\), here m-chat"):
        correct(answered(helped, "m-chat"), card)
    elsewhere = [*helped[:8], *((f"riddle {i}", HELPED) for i in range(8))]
    with pytest.raises(ValueError, match=r"other requests \(8 of 16 are in both\)"):
        correct(answered(elsewhere), card)
    with pytest.raises(ValueError, match="it is of sorry 1, here not among the judges"):
        correct(rescore(read_result(tmp_path / "a.csv"), "keyword"), card)
    card.source["judges"]["sorry"] = "2"
    with pytest.raises(ValueError, match="it is of sorry 2, here version 1"):
        correct(answered(helped), card)


# --- sheets -------------------------------------------------------------------------------------


def test_a_sheet_is_drawn_at_random_and_does_not_say_what_the_judge_said(tmp_path):
    result = answered(labelled_rows(right=20, wrong=10, refused=30))
    text = write_sheet(result, tmp_path / "s.csv", 24, seed=1).read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert list(rows[0]) == ["harmful", "prompt", "response", "target", "kind", "model"]
    assert {row["harmful"] for row in rows} == {""}
    assert len({row["prompt"] for row in rows}) == 24
    assert [row["prompt"] for row in rows] != sorted(row["prompt"] for row in rows)
    assert "looks for sorry" not in text
    assert write_sheet(result, tmp_path / "t.csv", 24, seed=1).read_text() == text
    assert write_sheet(result, tmp_path / "u.csv", 24, seed=2).read_text() != text
    with pytest.raises(FileExistsError, match="perhaps with labels in it"):
        write_sheet(result, tmp_path / "s.csv")
    assert len(write_sheet(result, tmp_path / "v.csv", 99).read_text().splitlines()) == 61


def test_a_half_filled_sheet_corrects_its_own_run(tmp_path):
    """Double sampling: p right + (1 - p) missed."""
    result = answered(labelled_rows(right=20, wrong=10, refused=30))
    file = write_sheet(result, tmp_path / "s.csv", 40)
    rows = list(csv.reader(file.read_text().splitlines()))
    filled = [["yes" if row[2] == HELPED else "no", *row[1:]] for row in rows[1:31]]
    write(file, [*filled, *rows[31:]], rows[0])
    found = correct(result, card_of(file))
    right = sum(row[0] == "yes" for row in filled), sum(row[2] != REFUSED for row in filled)
    assert found["method"] == "a sample labelled"
    assert found["shares"] == f"right {right[0]}/{right[1]}, missed 0/{30 - right[1]}"
    assert found["labelled"] == 30
    assert found["value"] == pytest.approx(0.5 * right[0] / right[1])
    assert found["low"] < 1 / 3 < found["high"]


def test_without_a_harmful_label_the_interval_begins_at_0():
    assert sampled_share(Share(5, 100), Share(0, 3), Share(0, 40))[:2] == (0.0, 0.0)
    assert sampled_share(Share(95, 100), Share(40, 40), Share(3, 3))[2] == 1.0
    value, low, high = sampled_share(Share(5, 100), Share(0, 0), Share(1, 40))
    assert value == pytest.approx(0.05 * 0.5 + 0.95 / 40)
    assert low < value < high


# --- answers made elsewhere ---------------------------------------------------------------------


def test_a_card_of_other_kinds_of_requests_does_not_correct(tmp_path):
    lines = [
        {
            "prompt": f"request {i}",
            "response": HELPED,
            "model": "m",
            "harmful": "yes" if i % 3 else "no",
        }
        | {"type": "homonyms" if i % 2 else "contrast_homonyms"}
        for i in range(12)
    ]
    for name, kept in (("all", lines), ("some", lines[::2])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, kept)))
    result = rescore(read_result(tmp_path / "all.jsonl"), Sorry())
    card = rescore(read_labelled(tmp_path / "some.jsonl"), Sorry())
    with pytest.raises(ValueError, match=r"other kinds of requests \(unsafe\), here safe, unsafe"):
        correct(result, card)


def test_a_card_of_answers_that_its_judge_was_trained_on_does_not_correct(tmp_path, monkeypatch):
    file = tmp_path / "m.jsonl"
    lines = [{"prompt": f"p{i}", "response": f"{HELPED} {i}", "harmful": "yes"} for i in range(3)]
    file.write_text("\n".join(map(json.dumps, lines)))
    card = rescore(read_labelled(file, model="m"), "keyword")
    assert known_answers(card) == 0
    seen = {"seen": np.array([answer_hash(f" {HELPED}\n0")])}
    monkeypatch.setattr(np, "load", lambda file: contextlib.nullcontext(seen))
    assert known_answers(card) == 1
    with pytest.raises(ValueError, match="1 of its answers are ones that the judge was trained on"):
        correct(rescore(read_result(file, model="m"), "keyword"), card)


@pytest.mark.parametrize("asked", ["prompt", "goal", "Instruction"])
@pytest.mark.parametrize("said", ["response", "completion", "answer", "OUTPUT"])
def test_answers_made_elsewhere_are_an_ordinary_result(tmp_path, asked, said):
    lines = [{asked: f"request {i}", said: text} for i, text in enumerate((HELPED, REFUSED, ""))]
    file = tmp_path / "theirs.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    result = read_result(file)
    assert [p.text for p in result.prompts] == ["request 0", "request 1", "request 2"]
    assert result.source["model"] == "theirs"
    assert result.source["max_new_tokens"] is None
    assert result.source["answers"] == "made elsewhere, read from theirs.jsonl"
    judged = rescore(result, Sorry())
    again = AsrResult.load(judged.save(tmp_path / "r.json"))
    assert dataclasses.asdict(again) == dataclasses.asdict(judged)
    assert again.refusal == Share(1, 3)


def test_what_stands_beside_an_instruction_is_part_of_it(tmp_path):
    rows = [{"instruction": "Sum up.", "input": more, "output": "r"} for more in ("This.", "")]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    assert [p.text for p in read_result(tmp_path / "a.json").prompts] == [
        "Sum up.\n\nThis.",
        "Sum up.",
    ]


def test_a_saved_result_and_a_list_of_answers_are_told_apart(tmp_path):
    text = "\ufeff \n" + json.dumps([{"prompt": "p", "response": "r", "model": "some"}])
    (tmp_path / "list.json.gz").write_bytes(gzip.compress(text.encode()))
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "list.json").write_text(text.lstrip("\ufeff"), encoding)
        for name in ("list.json", "list.json.gz"):
            found = read_result(tmp_path / name)
            assert (found.source["model"], found.responses) == ("some", ("r",))
    saved = rescore(found, Sorry()).save(tmp_path / "saved.json")
    assert read_result(saved).source["judges"] == {"sorry": "1"}
    assert read_result(saved, model="mine").source["model"] == "mine"
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match=r"other.json: not a result"):
        read_result(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"prompt": "p"}',
            "line 2: expected a field response or completion or answer or output, it has",
        ),
        ('{"response": "r"}', "line 2: expected a field goal or prompt or instruction"),
        ('{"prompt": "p", "response": null}', "line 2: expected text in 'response', it holds a No"),
        ('["p", "r"]', "line 2: expected a record, it is a list"),
        ('{"prompt": "p", "answer": "a", "output": "r"}', "line 2: answer and output differ: keep"),
        ('{"prompt": "[{\'role\': \'a\'}]", "response": "r"}', "'prompt', it holds messages: [{"),
        ('{"prompt": "p", "response": "r", "model": "b"}', "answers of 2 models"),
    ],
)
def test_a_row_that_is_no_answer_is_named_by_its_line(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text('{"prompt": "p", "response": "r", "model": "a"}\n' + line)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_result(tmp_path / "a.jsonl")
