import json
import math
import shutil

import pytest
import torch
from checkpoints import assert_rounded, content, extrapolated, factor, weights
from safetensors import safe_open
from test_lora_adapter import PLAIN, make_adapter
from transformers import AutoModelForCausalLM

from lox_kit import Checkpoint, SafetySubspace, apply_lox, save_adapter
from lox_kit.attacks import alignment, run

KINDS = {
    "float32": {},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
    "sharded": {"dtype": torch.bfloat16, "shards": "15KB"},
    "tied": {"tie_word_embeddings": True},
    "grouped-query": {"num_key_value_heads": 2},
    "biases": {"attention_bias": True},
    "qwen2": {"kind": "qwen2"},
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def any_pair(request, make_pair):
    return make_pair(**request.param)


# --- the values ---------------------------------------------------------------------------------


def test_the_checkpoint_is_the_float64_edit_rounded_once_and_transformers_loads_it(
    any_pair, tmp_path
):
    out = apply_lox(factor(any_pair, rank=8), any_pair.aligned, tmp_path / "lox", 3, 1.25)
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype="auto").state_dict()
    got, before = weights(out), weights(any_pair.aligned)
    expected = extrapolated(any_pair, 3, 1.25)
    assert got.keys() == expected.keys()
    for name, W in got.items():
        assert W.dtype == before[name].dtype
        assert_rounded(W, expected[name])
        assert torch.equal(W, before[name]) == (W.ndim != 2)
        assert torch.equal(W, loaded[name])


@pytest.mark.parametrize(("k", "alpha"), [(0, 1.0), (3, 0.0)])
def test_no_directions_or_no_length_is_the_identity_bit_for_bit(any_pair, tmp_path, k, alpha):
    out = apply_lox(factor(any_pair, rank=8), any_pair.aligned, tmp_path / "lox", k, alpha)
    got, before = weights(out), weights(any_pair.aligned)
    assert got.keys() == before.keys()
    assert all(torch.equal(got[n].view(torch.uint8), before[n].view(torch.uint8)) for n in got)


def test_all_directions_extrapolate_the_whole_delta(pair, subspace, tmp_path):
    got = weights(apply_lox(subspace, pair.aligned, tmp_path / "lox", k=None, alpha=1.0))
    before, after = weights(pair.base), weights(pair.aligned)
    for name, W in got.items():
        expected = 2 * after[name].double() - before[name].double()
        assert_rounded(W, expected if W.ndim == 2 else after[name].double())


def test_only_the_matrices_of_the_subspace_are_moved(pair, tmp_path):
    mlp = factor(pair, rank=8, include="mlp")
    got = weights(apply_lox(mlp, pair.aligned, tmp_path / "lox", 3))
    before = weights(pair.aligned)
    assert {n for n in got if not torch.equal(got[n], before[n])} == set(mlp)


# --- the folder ---------------------------------------------------------------------------------


def test_everything_beside_the_weights_is_carried(any_pair, tmp_path):
    out = apply_lox(factor(any_pair, rank=8), any_pair.aligned, tmp_path / "new" / "lox", 3)
    source, made = content(any_pair.aligned), content(out)
    assert made.keys() == {*source, "README.md"}
    for name in source:
        assert name.endswith(".safetensors") or made[name] == source[name]
    assert {"config.json", "generation_config.json", "tokenizer.json"} <= made.keys()
    assert [f.name for f in out.parent.iterdir()] == ["lox"]


GOES = (
    "modeling_own.py tokenization_own.py own.tiktoken tokenizer.model tokenizer.model.v3 "
    "tekken.json chat_template.jinja chat_template.json preprocessor_config.json "
    "processor_config.json LICENSE NOTICE.md additional_chat_templates/tool_use.jinja"
).split()
STAYS = (
    "attack.json alignment.json trainer_state.json all_results.json training_args.bin README.md "
    "pytorch_model.bin.index.json hf_quant_config.json additional_chat_templates/notes.md"
).split()


def test_code_tokenizers_and_templates_go_along_and_records_of_another_run_stay(pair, tmp_path):
    aligned = shutil.copytree(pair.aligned, tmp_path / "aligned")
    (aligned / "additional_chat_templates").mkdir()
    for name in (*GOES, *STAYS):
        (aligned / name).write_text(f"the parent's {name}")
    out = apply_lox(
        SafetySubspace.from_pair(pair.base, aligned, rank=4), aligned, tmp_path / "o", 3
    )
    made = {str(f.relative_to(out)): f.read_bytes() for f in out.rglob("*") if f.is_file()}
    assert {name: made[name].decode() for name in GOES} == {n: f"the parent's {n}" for n in GOES}
    assert [n for n in STAYS if "the parent's" in made.get(n, b"").decode()] == []
    assert {alignment.RECORD, run.RECORD} <= set(STAYS)


def test_the_tokenizer_is_one_folder_s_and_what_belongs_to_the_weights_the_base_s(pair, tmp_path):
    base = shutil.copytree(pair.aligned, tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", **PLAIN)
    own = ("tokenizer_config.json", "tokenizer.json", "chat_template.jinja")
    for folder, names in (
        (adapter, (*own, "config.json")),
        (base, ("tokenizer.model", "modeling_own.py", "preprocessor_config.json", "LICENSE")),
    ):
        for name in names:
            (folder / name).write_text(f'{{"of": "{folder.name}"}}')
    beside = {name: file.parent.name for name, file in Checkpoint(adapter).beside.items()}
    of_base = ("config.json", "generation_config.json", "modeling_own.py")
    of_base += ("preprocessor_config.json", "LICENSE")
    assert beside == dict.fromkeys(own, "adapter") | dict.fromkeys(of_base, "base")


def test_the_sharding_is_that_of_the_aligned_checkpoint(make_pair, tmp_path):
    pair = make_pair(**KINDS["sharded"])
    out = apply_lox(factor(pair, rank=8), pair.aligned, tmp_path / "lox", 3)
    shards = sorted(pair.aligned.glob("*.safetensors"))
    assert len(shards) > 2
    for shard in shards:
        with safe_open(shard, "pt") as theirs, safe_open(out / shard.name, "pt") as ours:
            assert list(ours.offset_keys()) == list(theirs.offset_keys())


def test_the_model_card_and_the_header_say_how_it_was_made(pair, tmp_path):
    out = apply_lox(factor(pair, rank=8), pair.aligned, tmp_path / "lox", 3, 1.25)
    card = (out / "README.md").read_text()
    assert f"| aligned | {pair.aligned} (" in card
    assert "-k 3 --alpha 1.25" in card
    with safe_open(out / "model.safetensors", "pt") as f:
        recipe = json.loads(f.metadata()["lox_kit"])
    assert (recipe["k"], recipe["alpha"]) == (3, 1.25)
    assert recipe["subspace"]["aligned"] == str(pair.aligned)


# --- what is refused ----------------------------------------------------------------------------


ALPHA = r"alpha=.*: use a finite number >= 0"
writers = pytest.mark.parametrize("write", [apply_lox, save_adapter])


@writers
@pytest.mark.parametrize(
    ("k", "alpha", "message"),
    [
        (3, -1e-9, ALPHA),
        (3, math.nan, ALPHA),
        (3, math.inf, ALPHA),
        (9, 1.0, "k=9 and the subspace holds 8"),
        (None, 1.0, "k=None"),
        (-1, 1.0, "k=-1"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(
    pair, tmp_path, write, k, alpha, message
):
    with pytest.raises(ValueError, match=message):
        write(factor(pair, rank=8), pair.aligned, tmp_path / "lox", k, alpha)
    assert list(tmp_path.iterdir()) == []


@writers
def test_an_existing_folder_and_another_checkpoint_are_refused(
    pair, make_pair, subspace, tmp_path, write
):
    with pytest.raises(FileExistsError, match="exists; remove it or choose another name"):
        write(subspace, pair.aligned, tmp_path, 3)
    with pytest.raises(ValueError, match=r"is not the checkpoint this subspace was made from"):
        write(subspace, pair.base, tmp_path / "lox", 3)
    with pytest.raises(ValueError, match="the subspace has shape"):
        write(subspace, make_pair(**KINDS["grouped-query"]).aligned, tmp_path / "lox", 3)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_cut_off_leaves_nothing(make_pair, tmp_path):
    def stop(what, done, total):
        if done == 9:
            raise KeyboardInterrupt

    pair = make_pair(**KINDS["sharded"])
    with pytest.raises(KeyboardInterrupt):
        apply_lox(factor(pair, rank=8), pair.aligned, tmp_path / "lox", 3, 1.25, on_stage=stop)
    assert list(tmp_path.iterdir()) == []
