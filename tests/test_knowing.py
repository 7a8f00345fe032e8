"""The study of attackers who know LoX: its rows, its search, and that it writes no model."""

import dataclasses
import json

import pytest
from speakers import watch

from lox_kit import ATTACKS, find_attack
from lox_kit.attacks import training, writing
from lox_kit.measures import Share, share_fields
from lox_kit.reports import knowing_text
from lox_kit.studies import (
    Arm,
    AttackTable,
    entries,
    families,
    knowing,
    knowing_attackers,
    treatments,
    tune,
)
from lox_kit.studies.entries import Entry

KNOWS = tuple(treatments.TREATMENTS)


@pytest.fixture
def tiny_world(tiny_pair, monkeypatch):
    """Have the sandbox's family be the tiny pair, and its attack two steps long."""
    monkeypatch.setattr(knowing, "pair_of", lambda *seed, **options: tiny_pair)
    monkeypatch.setitem(ATTACKS, "arithmetic", find_attack("arithmetic", max_steps=2))
    monkeypatch.setattr(entries, "TASK_PROMPTS", 4)
    for name in ("REFUSING", "ANSWERING"):
        monkeypatch.setattr(treatments, name, 1)


@pytest.mark.slow
def test_the_verb_measures_every_attacker_on_both_models_and_writes_no_treated_one(
    tiny_world, lox, tmp_path, monkeypatch
):
    written = watch(monkeypatch, writing, "save_model")
    kept = watch(monkeypatch, training, "save_model")
    usual = watch(monkeypatch, entries, "run_attack")
    trained = watch(monkeypatch, treatments, "fine_tune")
    call = ["--store", tmp_path / "store", "knowing", "-k", 1, "--limit", 4, "-o", tmp_path / "out"]
    assert lox(*call).status == 0
    table = json.loads((tmp_path / "out" / "attack_table.json").read_text())
    names = {(r["attack"], r["training"]) for r in table["rows"] if r["arm"] == "LoX"}
    assert names == {(r["attack"], r["training"]) for r in table["rows"] if r["arm"] == "aligned"}
    subtracted = {(n, "full") for n in KNOWS if n.startswith("subtract")}
    after = {(f"arithmetic, {n}", "LoRA" if "LoRA" in n else "full") for n in KNOWS}
    assert names == {
        (None, "full"), ("arithmetic", "full"), ("arithmetic", "LoRA"), *subtracted, *after
    }  # fmt: skip
    assert all(r["measures"]["asr"]["n"] == 4 for r in table["rows"])
    assert len(usual) == len(written) == 4  # the usual attack alone, which is removed again
    assert kept == []
    assert {f.name for f in (tmp_path / "store").rglob("*") if f.is_file()} == {"lox.sqlite"}
    done = len(trained)
    assert lox(*call).status == 0
    assert (len(trained), len(usual)) == (done, 4)


def test_what_is_no_treatment_is_refused_before_anything_is_built(store, monkeypatch):
    built = watch(monkeypatch, families, "build")
    for name in ("subtract", "tuned"):
        with pytest.raises(ValueError, match=f"treatment '{name}': use some of subtract by pair, "):
            knowing_attackers(treatments=[name], store=store)
    assert built == []


def test_who_wins_at_equal_help_is_said_of_those_attacked_through_lora():
    def row(arm, attack, asr, helped):
        shares = {"asr": Share(asr, 100), "refusal": Share(100 - asr, 100)}
        shares["helpfulness"] = Share(helped, 100)
        names = {"attack": attack, "training": "LoRA", "arm": arm, "seed": 0}
        return names | {"measures": {name: share_fields(s) for name, s in shares.items()}}

    rows = [row("aligned", "sums", 60, 98), row("LoX", "sums", 10, 97)]
    rows += [row("aligned", "sums, Safe LoRA", 12, 99), row("LoX", "sums, Safe LoRA", 0, 60)]
    text = knowing_text(AttackTable(tuple(rows), {}))
    assert "- aligned after sums: asr 0.60 [0.50, 0.69] (60/100), refusal 0.40" in text
    assert "Of the 3 that help as much" in text
    assert text.endswith("clearly more: LoX after sums; aligned after sums, Safe LoRA.")
    assert "or not clearly more: all of them." in knowing_text(AttackTable(tuple(rows[1:3]), {}))


# --- the search ---------------------------------------------------------------------------------


@pytest.fixture
def bare(tiny_pair):
    """A model before any attack."""
    preset = find_attack("arithmetic")
    return Entry(*tiny_pair, ("a", "b"), Arm("aligned"), None, preset, False, 0, None, 6)


def made_up(entry):
    """Return shares: the faster it is trained, the more it harms and the less it helps."""
    pace = 0.2
    if entry.attack:
        pace = min(1.0, 500 * entry.find_attack().settings.learning_rate)
    shares = {"asr": pace, "helpfulness": 1 - pace / 2, "task": 0.9}
    return {name: share_fields(Share(round(100 * s), 100)) for name, s in shares.items()}


def search(bare, monkeypatch, trials, loss):
    """Return the trials of a search in which nothing is trained."""

    def fill(models, questions, **shared):
        return [(entry, made_up(entry), {}) for entry in models]

    monkeypatch.setattr(knowing, "fill", fill)
    (tried,) = tune([bare], find_attack("arithmetic"), trials, loss, questions=None)
    return tried


def test_the_search_begins_at_the_preset_and_its_worst_keeps_to_the_bound(bare, monkeypatch):
    pytest.importorskip("optuna")
    tried = search(bare, monkeypatch, 24, 0.1)
    assert tried[0]["entry"].find_attack().settings == find_attack("arithmetic").settings
    assert {t["entry"].lora for t in tried} == {False, True}
    floor = made_up(bare)["helpfulness"]["value"] - 0.1
    for t in tried:
        within = t["measures"]["helpfulness"]["value"] >= floor
        assert t["value"] == (t["measures"]["asr"]["value"] if within else t["value"])
        assert (t["value"] >= 0) == within
    worst = max(tried, key=lambda t: t["value"])
    assert 0.2 < worst["value"] <= 0.41  # help of .795 counts as .8
    assert max(t["measures"]["asr"]["value"] for t in tried) > 0.5


def test_the_search_is_the_same_for_a_seed_and_goes_on_from_fewer_trials(bare, monkeypatch):
    pytest.importorskip("optuna")
    found = [[t["entry"] for t in search(bare, monkeypatch, n, 0.1)] for n in (8, 16)]
    assert found[0] == found[1][:8]
    other = search(dataclasses.replace(bare, seed=1), monkeypatch, 8, 0.1)
    assert [t["entry"].attack for t in other[1:]] != [e.attack for e in found[0][1:]]


@pytest.mark.slow
def test_a_search_that_was_cut_off_repeats_no_trial(tiny_world, store, monkeypatch):
    pytest.importorskip("optuna")
    options = {"treatments": [], "trials": 6, "limit": 4, "k": 1, "store": store}
    trained = watch(monkeypatch, treatments, "fine_tune")

    def stop(what, done, total):
        if len(trained) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        knowing_attackers(**options, on_stage=stop)
    found = knowing_attackers(**options)
    assert len(found.source["trials"]) == 2 * 6
    once = len(trained)
    again = knowing_attackers(**options)
    assert (len(trained), again.rows, again.source) == (once, found.rows, found.source)
    assert once <= 2 * 6 + 2 + 1  # trials, the worst on other requests, and none twice
    assert [r["training"] for r in found.rows[-2:]] == ["either", "either"]
