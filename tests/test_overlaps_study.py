"""Is the subspace about safety: each change beside chance, made once, and what is said of it."""

import dataclasses
import shutil
from contextlib import contextmanager

import numpy as np
import pytest

from lox_kit import SafetySubspace
from lox_kit.attacks import ALIGNMENTS, ATTACKS
from lox_kit.figures import figure_overlaps
from lox_kit.folders import read_once
from lox_kit.measures import world_questions
from lox_kit.reports import overlaps_text, write_overlaps
from lox_kit.sandbox import corpus
from lox_kit.studies import Overlaps, overlaps, safety_overlaps
from lox_kit.weights import Checkpoint, delta

PAIR = "sandbox/base", "sandbox/aligned"
CHANGES = ["arithmetic", "aligned, other order", "aligned, half A", "aligned, half B"]


@pytest.fixture
def short(monkeypatch):
    """Attacks and alignments of two steps."""
    for presets, name in ((ATTACKS, "arithmetic"), (ALIGNMENTS, "sandbox-sft")):
        settings = dataclasses.replace(presets[name].settings, max_steps=2, batch_size=4)
        monkeypatch.setitem(presets, name, dataclasses.replace(presets[name], settings=settings))
    fewer = dataclasses.replace(ALIGNMENTS["sandbox-sft"], rows=lambda s: corpus.alignment(40, s))
    monkeypatch.setitem(ALIGNMENTS, "sandbox-sft", fewer)


def study(store):
    """Compute it for seed 0, with few questions."""
    asked = world_questions("sandbox", limit=4)
    return safety_overlaps((0,), ["arithmetic"], k=3, questions=asked, store=store)


@pytest.mark.usefixtures("short")
def test_every_change_has_the_share_that_float64_gives_and_is_made_only_once(
    store, monkeypatch, tmp_path
):
    kept = []

    @contextmanager
    def keep(folder, make):
        with read_once(folder, make) as made:
            kept.append(Checkpoint(shutil.copytree(made, tmp_path / "kept" / made.name)))
            yield made

    monkeypatch.setattr(overlaps, "read_once", keep)
    found = study(store)
    assert [row["change"] for row in found.rows] == CHANGES
    safety = SafetySubspace.from_pair(*PAIR, rank=3)
    starts = [Checkpoint(PAIR[1]), *[Checkpoint(PAIR[0])] * 3]
    for row, start, changed in zip(found.rows, starts, kept, strict=True):
        inside = whole = chance = 0.0
        for name, share, by_chance in row["layers"]:
            dW = delta(start, changed, name, "cpu").double().numpy()
            U = safety[name].U.double().numpy()
            part, energy = np.linalg.norm(U.T @ dW) ** 2, np.linalg.norm(dW) ** 2
            assert share == pytest.approx(part / energy, abs=1e-5)
            assert by_chance == pytest.approx(3 / len(U))
            inside, whole, chance = inside + part, whole + energy, chance + energy * 3 / len(U)
        assert row["share"] == pytest.approx(inside / whole, abs=1e-5)
        assert row["chance"] == pytest.approx(chance / whole, abs=1e-5)
        assert row["measures"]["asr"]["n"] == 4
    gains = [row["measures"]["asr"]["value"] - row["before"]["value"] for row in found.rows]
    assert [row["gained"] for row in found.rows] == [gains[0], None, None, None]
    monkeypatch.setattr(overlaps, "_compared", None)
    assert study(store).to_dict() == found.to_dict()
    assert not list((store.folder / "runs").rglob("*.safetensors"))


def made_up():
    """Return overlaps of two seeds: the more of an attack lies inside, the more ASR it gains."""
    rows = []
    for seed in (0, 1):
        for i, change in enumerate(["sums", "chat", "harm", "aligned, half A"]):
            share = 0.1 * (i + 1) + 0.01 * seed
            layers = [
                [f"model.layers.{d}.mlp.up_proj.weight", share + 0.01 * d, 0.05] for d in (0, 1)
            ]
            layers.append(["lm_head.weight", 0.9, 0.05])
            asr = {"value": share, "low": 0.0, "high": 1.0, "count": round(100 * share), "n": 100}
            row = {"seed": seed, "change": change, "gained": share if i < 3 else None}
            row |= {"layers": layers, "share": share, "chance": 0.05, "before": asr}
            rows.append(row | {"measures": {"asr": asr}})
    return Overlaps(tuple(rows), {"k": 6, "world": "sandbox"})


def test_the_rank_correlation_is_over_attacks_alone():
    rho, p, n = made_up().rank_correlation()
    assert (rho, n) == (pytest.approx(1.0), 6)
    assert p < 0.01


def test_figure_and_text_show_each_change_by_layer_and_against_the_asr_gained(tmp_path):
    data = {"figure": "overlaps", **made_up().to_dict()}
    left, right = figure_overlaps(data).axes
    lines = {line.get_label(): line for line in left.lines}
    assert list(lines) == ["sums", "chat", "harm", "aligned, half A", "chance"]
    assert lines["chat"].get_xdata() == pytest.approx([0, 1])
    assert lines["chat"].get_ydata() == pytest.approx([0.205, 0.215])
    assert lines["chance"].get_ydata() == pytest.approx([0.05, 0.05])
    assert [list(line.get_xdata()) for line in right.lines] == [
        pytest.approx([0.1 * i - 0.05, 0.1 * i - 0.04]) for i in (1, 2, 3)
    ]
    text = write_overlaps(made_up(), tmp_path)
    assert text == overlaps_text(made_up()) == (tmp_path / "overlaps.md").read_text()
    assert "| 0 | sums | 0.100 | 0.050 | 0.10 [0.06, 0.17] (10/100) |" in text
    assert "Over 6 attacks" in text
    assert (tmp_path / "overlaps.pdf").is_file()
