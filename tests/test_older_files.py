"""What the first versions wrote is still read: subspace files, stored answers and verdicts."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from checkpoints import ROOT

from lox_kit import SafetySubspace, Store, load_model, measure_asr, sandbox_prompts
from lox_kit.judges import verdict_key
from lox_kit.models import Prompt
from lox_kit.studies import AttackTable, RankCurve

OLDER = Path(__file__).with_name("older")  # written at commit b9036f3


def test_answers_of_an_older_store_are_not_made_again(tmp_path):
    shutil.copy(OLDER / "lox.sqlite", tmp_path)
    prompts = [p for kind in ("forbidden", "allowed") for p in sandbox_prompts(kind, "dev", 3)]
    store = Store(tmp_path)
    model = load_model("sandbox/aligned", device="cpu")
    found = measure_asr(model, prompts, store=store, max_new_tokens=24)
    assert (found.asr().count, found.refusal.count) == (3, 3)
    assert found.responses[3] == "take moss and root then stir and rest ."
    assert store.count("answer") == 6
    measure_asr(model, prompts[:1], store=store, max_new_tokens=23)  # not asked before
    assert store.count("answer") == 7
    store.close()


def test_a_verdict_has_the_key_it_always_had():
    judge = SimpleNamespace(name="policy:a-model", version="3")
    key = verdict_key(judge, Prompt("a request", "a target"), "an answer")
    assert key == "f2fb88db1640a9a66537d95502fa41a0f6cffa5d51a880ec47cd669ef2c12828"


def test_a_subspace_file_of_before_is_read():
    subspace = SafetySubspace.load(OLDER / "subspace.safetensors")
    assert list(subspace) == ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"]
    np.testing.assert_allclose(subspace.energy(2), [0.31062905, 0.79537414], rtol=1e-6)
    assert subspace["model.embed_tokens.weight"].top(1)[2].shape == (1, 128)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("attack_table", AttackTable), ("defences", AttackTable), ("rank_curve", RankCurve)],
)
def test_the_data_of_a_committed_figure_is_a_result_again(name, kind, tmp_path):
    file = ROOT / "figures" / f"{name}.json"
    found = kind.load(file)
    assert found.to_dict()["rows"] == json.loads(file.read_text())["rows"]
    assert kind.load(found.save(tmp_path / "again.json")).to_dict() == found.to_dict()
