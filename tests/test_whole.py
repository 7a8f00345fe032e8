"""A checkpoint is data, and whole before it is measured: what is broken never looks safe."""

import ast
import itertools
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from checkpoints import ROOT, TINY, flip_bit, run_python, save_tensors, weights
from safetensors.torch import load_file, save_file
from speakers import random_speaker
from test_lora_adapter import PLAIN, edit_config, make_adapter
from transformers import AutoModelForCausalLM, LlamaConfig

from lox_kit import (
    Checkpoint,
    SafetySubspace,
    apply_lox,
    check_pair,
    extrapolate,
    load_model,
)
from lox_kit import save_adapter as save_lox_adapter
from lox_kit.judges import LlamaGuardJudge
from lox_kit.models import Prompt, generate, render
from lox_kit.models.load import IgnoredSettings, Model
from lox_kit.weights.files import INDEX, refuse_nonfinite

NORM, O_PROJ = "model.norm.weight", "model.layers.0.self_attn.o_proj.weight"
ADAPTER = "adapter_model.safetensors"
NAN = float("nan")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """The folder of a whole checkpoint with a tokenizer."""
    folder, model = tmp_path_factory.mktemp("speaker"), random_speaker()
    model.module.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def speaker(spoken, tmp_path):
    """A copy of it, to be broken."""
    return shutil.copytree(spoken, tmp_path / "speaker")


def put(folder, file="model.safetensors", **tensors):
    """Put tensors into a file of a checkpoint; None takes one out."""
    there = load_file(folder / file) | tensors
    kept = {name: W for name, W in there.items() if W is not None}
    save_file(kept, folder / file, metadata={"format": "pt"})


def broken(folder, name, value=NAN):
    """Put one bad value into a tensor."""
    W = load_file(folder / "model.safetensors")[name]
    W.view(-1)[3] = value
    put(folder, **{name: W})


def configure(folder, file="config.json", **fields):
    """Change fields of a JSON file, which may not be there yet."""
    there = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(there | fields))


# --- no code ------------------------------------------------------------------------------------

CANARY = """
from pathlib import Path
Path(__file__).with_name("canary").touch()
Path({canary!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM
class Evil(LlamaForCausalLM): pass
class EvilConfig(LlamaConfig): model_type = "evil"
"""
MODEL = {"model_type": "evil", "auto_map": {"AutoModelForCausalLM": "e.Evil"}}
PARTS = {
    "model": ("config.json", MODEL),
    "config": ("config.json", {"model_type": "evil", "auto_map": {"AutoConfig": "e.EvilConfig"}}),
    "part": ("config.json", {"text_config": {"auto_map": {"AutoModel": "e.Evil"}}}),
    "kernel": ("config.json", {"attn_implementation": "evil/kernel"}),
    "tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": [None, "e.Evil"]}}),
    "processor": ("processor_config.json", {"auto_map": {"AutoProcessor": "e.Evil"}}),
}
ASK = """
import sys
from lox_kit import load_model
for folder in sys.argv[1:]:
    try:
        load_model(folder, device="cpu")
        print("loaded")
    except ValueError as error:
        print(error)
"""


def test_code_in_a_checkpoint_is_refused_and_nothing_is_asked(spoken, tmp_path):
    for part, (file, fields) in PARTS.items():
        folder = shutil.copytree(spoken, tmp_path / part)
        (folder / "e.py").write_text(CANARY.format(canary=str(tmp_path / "canary")))
        configure(folder, file, **fields)
    done = run_python(ASK, *(tmp_path / part for part in PARTS), typed="y\n" * 20)
    lines = done.stdout.splitlines()
    assert len(lines) == len(PARTS), done.stdout + done.stderr
    for (part, (file, _)), line in zip(PARTS.items(), lines, strict=True):
        assert f"{part}/{file}: " in line
        assert "names code or weights of its own" in line
    assert not (tmp_path / "canary").exists()
    assert "[y/N]" not in done.stdout + done.stderr


def test_what_loads_never_trusts_code():
    calls = {}
    for file in (ROOT / "lox_kit").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called.endswith(".from_pretrained") and called != "LoraConfig.from_pretrained":
                calls.setdefault(file.relative_to(ROOT).as_posix(), []).append(
                    {k.arg: ast.unparse(k.value) for k in node.keywords}
                )
    loading = ("models/load.py", "weights/library.py", "weights/smol.py")
    assert set(calls) == {f"lox_kit/{file}" for file in loading}
    for options in itertools.chain(*calls.values()):
        assert options["trust_remote_code"] == "False"


# --- whole --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({O_PROJ: None}, rf"1 missing \({O_PROJ}\)"),
        ({O_PROJ: None, "lm_head.weight": None, NORM: None}, r"3 missing \(lm_head.weight, model"),
        ({"b.weight": torch.ones(3)}, r"1 not in the architecture \(b.weight\)"),
        ({O_PROJ: torch.ones(4, 5)}, rf"1 of another shape \({O_PROJ} \(4, 5\), not \(32, 32\)\)"),
        ({O_PROJ: None, "x": torch.ones(3)}, rf"1 missing \({O_PROJ}\); 1 not in .*\(x\)"),
    ],
)
def test_what_would_be_random_is_refused_by_name(speaker, tensors, message):
    put(speaker, **tensors)
    with pytest.raises(ValueError, match=f"speaker: its weights do not fit .*{message}"):
        load_model(speaker, device="cpu")


def test_what_is_stored_beside_the_weights_is_passed_over(speaker):
    mask = {"model.layers.0.attn.masked_bias": torch.tensor(-1e4)}
    put(speaker, **mask, **{"v_head.summary.weight": torch.ones(1, 32)})
    load_model(speaker, device="cpu")


def test_a_tied_head_is_whole_with_or_without_its_own_tensor(make_pair, spoken, tmp_path):
    tied = shutil.copytree(make_pair(tie_word_embeddings=True).aligned, tmp_path / "tied")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(spoken / file, tied)
    assert "lm_head.weight" not in weights(tied)
    load_model(tied, device="cpu")
    put(tied, **{"lm_head.weight": weights(tied)["model.embed_tokens.weight"]})
    load_model(tied, device="cpu")


def test_a_checkpoint_without_tensors_is_refused(tmp_path):
    with pytest.raises(ValueError, match="its weight files hold no tensor"):
        Checkpoint(save_tensors(tmp_path / "empty", {}))


@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 4)])
def test_a_value_that_is_none_is_found_in_every_dtype_and_rank(tmp_path, value, dtype, shape):
    W = torch.ones(shape, dtype=dtype)
    W.view(-1)[-1] = value
    checkpoint = Checkpoint(save_tensors(tmp_path / "a", {"w": torch.ones(2, 2), "x": W}))
    with pytest.raises(ValueError, match=rf"x in .*a.model.safetensors: 1 of {W.numel()} values"):
        checkpoint.read("x")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_largest_finite_values_are_fine_though_their_sum_is_not(dtype):
    largest = torch.finfo(dtype).max
    refuse_nonfinite(torch.full((7, 3), largest, dtype=dtype), "a")
    refuse_nonfinite(torch.tensor([largest, largest, -largest], dtype=dtype), "a")
    refuse_nonfinite(torch.empty(0, dtype=dtype), "a")


def test_nan_in_eight_bits_is_found_and_whole_numbers_are_left_alone():
    W = torch.ones(3, 2).to(torch.float8_e4m3fn)
    refuse_nonfinite(W, "a")
    refuse_nonfinite(torch.ones(3, dtype=torch.int64), "a")
    W.view(torch.uint8)[0, 0] = 0x7F
    with pytest.raises(ValueError, match="a: 1 of 6 values"):
        refuse_nonfinite(W, "a")


@pytest.mark.parametrize("name", [NORM, O_PROJ])
@pytest.mark.parametrize("side", ["base", "aligned"])
def test_check_and_factor_name_a_tensor_of_either_side(pair, tmp_path, name, side):
    copy = shutil.copytree(getattr(pair, side), tmp_path / side)
    broken(copy, name)
    sides = {"base": pair.base, "aligned": pair.aligned} | {side: copy}
    message = f"{name} in .*{side}.model.safetensors: 1 of"
    with pytest.raises(ValueError, match=message):
        check_pair(*map(Checkpoint, sides.values()))
    with pytest.raises(ValueError, match=message):
        SafetySubspace.from_pair(*sides.values(), tmp_path / "S.safetensors", rank=2)
    assert not (tmp_path / "S.safetensors").exists()


@pytest.mark.parametrize(
    ("write", "name"), [(apply_lox, O_PROJ), (apply_lox, NORM), (save_lox_adapter, NORM)]
)
def test_nothing_is_written_of_an_aligned_model_with_nan(pair, tmp_path, write, name):
    copy = shutil.copytree(pair.aligned, tmp_path / "aligned")
    subspace = SafetySubspace.from_pair(pair.base, copy, rank=2, exclude="o_proj")
    broken(copy, name)
    # as an older version made it
    subspace.info["aligned_fingerprint"] = Checkpoint(copy).fingerprint
    with pytest.raises(ValueError, match=f"{name} in .*: 1 of"):
        write(subspace, copy, tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()


def test_apply_writes_no_model_that_overflows(make_pair, tmp_path):
    pair = make_pair(dtype=torch.float16)
    subspace = SafetySubspace.from_pair(pair.base, pair.aligned, rank=2)
    with pytest.raises(ValueError, match=r"with LoX, alpha=1e\+06: \d+ of"):
        apply_lox(subspace, pair.aligned, tmp_path / "lox", 1, 1e6)
    assert not (tmp_path / "lox").exists()


def test_neither_a_model_nor_an_adapter_that_overflows_is_left_half_written(pair, tmp_path):
    subspace = SafetySubspace.from_pair(pair.base, pair.aligned, rank=2)
    for write in (apply_lox, save_lox_adapter):
        with pytest.raises(ValueError, match="NaN or infinite"):
            write(subspace, pair.aligned, tmp_path / "out", 1, 1e39)
    with pytest.raises(ValueError, match="NaN or infinite"):
        extrapolate(pair.base, pair.aligned, tmp_path / "out", 1, 1e39)
    assert list(tmp_path.iterdir()) == []


def test_a_flipped_bit_in_a_model_that_was_written_here_is_found(pair, tmp_path):
    subspace = SafetySubspace.from_pair(pair.base, pair.aligned, rank=2)
    file = apply_lox(subspace, pair.aligned, tmp_path / "lox", 1) / "model.safetensors"
    flip_bit(file, -1000)
    with pytest.raises(ValueError, match=r"is damaged, it does not match its checksum"):
        check_pair(Checkpoint(pair.aligned), Checkpoint(file.parent))


def test_models_that_are_loaded_in_threads_leave_later_ones_tied(spoken):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: load_model(spoken, device="cpu"), range(12)))
    config = LlamaConfig(**{**TINY, "tie_word_embeddings": True})
    model = AutoModelForCausalLM.from_config(config)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(("value", "dtype"), [(NAN, "auto"), (1e30, "float16")])
def test_a_loaded_model_has_no_nan_in_the_dtype_it_computes_in(speaker, value, dtype):
    broken(speaker, NORM, value)
    with pytest.raises(ValueError, match=rf"{NORM} in .*speaker, loaded as .*: 1 of 32 values"):
        load_model(speaker, device="cpu", dtype=dtype)


# --- adapters -----------------------------------------------------------------------------------


@pytest.fixture
def adapter(spoken, tmp_path):
    """An adapter of the speaker, to be broken."""
    return make_adapter(spoken, tmp_path / "adapter", **PLAIN)


@pytest.mark.parametrize("where", ["scale", "factor"])
def test_an_adapter_that_makes_nan_is_found_by_every_verb(spoken, adapter, where):
    if where == "scale":
        edit_config(adapter, lora_alpha=1e40)  # finite, and not in float32
    else:
        name, W = next(iter(load_file(adapter / ADAPTER).items()))
        W[0, 0] = NAN
        put(adapter, ADAPTER, **{name: W})
    for call in (
        lambda: check_pair(Checkpoint(spoken), Checkpoint(adapter)),
        lambda: SafetySubspace.from_pair(spoken, adapter, rank=2),
        lambda: load_model(adapter, device="cpu"),
    ):
        with pytest.raises(ValueError, match=r"(q|up)_proj.*NaN or infinite"):
            call()


def test_a_whole_tensor_of_an_adapter_that_overflows_in_the_base_s_dtype_is_refused(tmp_path):
    base = tmp_path / "base"
    random_speaker().module.half().save_pretrained(base)
    adapter = make_adapter(base, tmp_path / "adapter", **PLAIN)
    put(adapter, ADAPTER, **{f"base_model.model.{NORM}": torch.full((32,), 1e6)})
    with pytest.raises(ValueError, match=f"{NORM} with the adapter .*: 32 of 32"):
        Checkpoint(adapter).read(NORM)


def test_a_factor_that_an_adapter_holds_under_two_names_is_refused(adapter):
    name, W = next(iter(load_file(adapter / ADAPTER).items()))
    put(adapter, ADAPTER, **{name.removeprefix("base_model.model."): 7 * W})
    with pytest.raises(ValueError, match="which are one"):
        Checkpoint(adapter)


def test_an_adapter_that_makes_logits_overflow_is_not_measured(adapter):
    edit_config(adapter, lora_alpha=1e38)  # every weight is finite
    with pytest.raises(ValueError, match="the model's logits are NaN or all alike"):
        generate(load_model(adapter, device="cpu"), TEXTS, max_new_tokens=3)


def test_adapters_of_adapters_are_refused(spoken, adapter, tmp_path):
    other = shutil.copytree(adapter, tmp_path / "other")
    edit_config(adapter, base_model_name_or_path=str(other))
    edit_config(other, base_model_name_or_path=str(adapter))
    for name in (adapter, f"{other}+{adapter}"):
        with pytest.raises(ValueError, match=r"is an adapter itself. Merge it with PEFT"):
            Checkpoint(name)
    assert Checkpoint(f"{spoken}+{adapter}").base.path == spoken


# --- the index ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shard",
    ["../a.safetensors", "/a.safetensors", "sub/a.safetensors", "..\\a.safetensors", ".", "..", "",
     "a.bin", "a\0.safetensors", 3, None, ["a.safetensors"], {}],
)  # fmt: skip
def test_an_index_names_plain_files_of_its_folder(sharded, tmp_path, shard):
    (sharded / "sub").mkdir()
    for there in (tmp_path, sharded / "sub"):
        save_file({O_PROJ: torch.zeros(32, 32)}, there / "a.safetensors")
    index = json.loads((sharded / INDEX).read_text())
    configure(sharded, INDEX, weight_map=index["weight_map"] | {O_PROJ: shard})
    with pytest.raises(ValueError, match=f"{INDEX}: puts {O_PROJ} into .*nothing outside"):
        Checkpoint(sharded)


@pytest.mark.parametrize("fault", ["twice", "elsewhere"])
def test_a_tensor_is_in_the_one_shard_that_the_index_says(sharded, fault):
    index = json.loads((sharded / INDEX).read_text())["weight_map"]
    first, other = sharded / index[O_PROJ], next(s for s in index.values() if s != index[O_PROJ])
    if fault == "twice":
        save_file(load_file(sharded / other) | {O_PROJ: load_file(first)[O_PROJ]}, sharded / other)
    else:
        configure(sharded, INDEX, weight_map=index | {O_PROJ: other})
    with pytest.raises(ValueError, match=f"{O_PROJ}.*from different saves"):
        Checkpoint(sharded)


def test_a_single_file_beside_an_index_is_read_as_transformers_reads_it(pair, sharded, tmp_path):
    for file in sharded.glob("model-*"):  # of an older save: other values
        save_file({n: W + 1 for n, W in load_file(file).items()}, file, metadata={"format": "pt"})
    shutil.copy(pair.aligned / "model.safetensors", sharded)
    theirs = AutoModelForCausalLM.from_pretrained(sharded).state_dict()
    checkpoint = Checkpoint(sharded)
    assert all(torch.equal(checkpoint.read(n), theirs[n]) for n in checkpoint.tensors)
    subspace = SafetySubspace.from_pair(pair.base, sharded, rank=2)
    out = apply_lox(subspace, sharded, tmp_path / "lox", 1)
    assert not list(out.glob("*.index.json"))
    assert [f.name for f in out.glob("*.safetensors")] == ["model.safetensors"]


@pytest.mark.parametrize("change", ["extra", "one shard"])
def test_what_is_written_has_an_index_of_its_own(pair, sharded, tmp_path, change):
    index = json.loads((sharded / INDEX).read_text())
    if change == "extra":
        index |= {"metadata": {"total_size": 1}, "left": "over"}
    else:
        shutil.rmtree(sharded)
        shutil.copytree(pair.aligned, sharded)
        (sharded / "model.safetensors").rename(sharded / "model-1.safetensors")
        index["weight_map"] = dict.fromkeys(index["weight_map"], "model-1.safetensors")
    (sharded / INDEX).write_text(json.dumps(index))
    subspace = SafetySubspace.from_pair(pair.base, sharded, rank=2)
    out = apply_lox(subspace, sharded, tmp_path / "lox", 1)
    own = json.loads((out / INDEX).read_text())
    assert own["weight_map"] == index["weight_map"]
    assert own["metadata"]["total_size"] == sum(W.nbytes for W in weights(out).values())
    assert own.keys() == {"metadata", "weight_map"}
    module, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    state = module.state_dict()
    assert all(torch.equal(state[n], W) for n, W in weights(out).items())


@pytest.mark.parametrize("what", ["transformers_weights", "a distributed save"])
def test_weights_that_transformers_would_read_elsewhere_are_refused(speaker, what):
    if what == "transformers_weights":
        configure(speaker, transformers_weights="other.safetensors")
    else:
        save_file({"a": torch.ones(1)}, speaker / "shard-00001-model-00001-of-00001.safetensors")
    with pytest.raises(ValueError, match=r"transformers_weights names|of a distributed save"):
        load_model(speaker, device="cpu")


@pytest.mark.parametrize("kind", ["folder", "dangling link"])
@pytest.mark.parametrize("name", ["x.json", "y_config.json", "z.safetensors"])
def test_what_is_no_file_beside_the_weights_is_left_alone(spoken, speaker, kind, name):
    place = speaker / name
    place.mkdir() if kind == "folder" else place.symlink_to("nowhere")
    assert Checkpoint(speaker).fingerprint == Checkpoint(spoken).fingerprint
    assert load_model(speaker, device="cpu").key == Checkpoint(spoken).fingerprint


# --- configs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("config.json", {"hidden_size": None}, "cannot load it .*hidden_size"),
        ("config.json", {"rms_norm_eps": "small"}, "cannot load it .*rms_norm_eps"),
        ("config.json", {"num_attention_heads": 0}, "cannot load it .*ZeroDivisionError"),
        ("config.json", {"hidden_act": "none"}, "cannot load it .*KeyError"),
        ("config.json", {"model_type": None}, "cannot load it"),
        ("config.json", {"rms_norm_eps": NAN}, "config.json: rms_norm_eps is nan"),
        ("config.json", {"rope_parameters": {"rope_theta": float("inf")}}, "rope_theta is inf"),
        ("config.json", [], "config.json: is not a JSON object"),
        ("generation_config.json", [], "generation_config.json: is not a JSON object"),
        ("generation_config.json", {"eos_token_id": "</s>"}, "eos_token_id '</s>' .*no number"),
        ("generation_config.json", {"eos_token_id": [3, None]}, r"eos_token_id \[3, None\]"),
        ("generation_config.json", {"pad_token_id": "x"}, "cannot load it"),
        ("tokenizer.json", {}, "cannot load it"),
    ],
)
def test_a_config_that_cannot_be_followed_is_one_line(speaker, file, fields, message, capfd):
    if isinstance(fields, dict) and fields:
        configure(speaker, file, **fields)
    else:
        (speaker / file).write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=message) as caught:
        load_model(speaker, device="cpu")
    assert str(caught.value).startswith(str(speaker))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


TEXTS = [f"<s> <user> {word} <assistant>" for word in ("moss", "take a", "stir the red")]
SETTINGS = {
    "max_time": 0,
    "num_beams": 3,
    "repetition_penalty": 1.7,
    "no_repeat_ngram_size": 1,
    "min_new_tokens": 11,
    "suppress_tokens": [5, 6, 7],
    "stop_strings": "a",
    "return_dict_in_generate": True,
    "do_sample": True,
    "temperature": 0.3,
}


def test_a_setting_that_would_change_greedy_answers_is_left_out_and_said_once(spoken, speaker):
    plain = generate(load_model(spoken, device="cpu"), TEXTS, max_new_tokens=12)
    configure(speaker, "generation_config.json", **SETTINGS)
    with pytest.warns(IgnoredSettings, match="max_time=0, .* is left out") as said:
        model = load_model(speaker, device="cpu")
    (text,) = (str(warning.message) for warning in said)
    assert not [name for name in ("do_sample", "temperature", "return_dict") if name in text]
    assert generate(model, TEXTS, max_new_tokens=12) == plain


def test_the_end_tokens_of_the_config_are_kept(spoken, speaker):
    plain = load_model(spoken, device="cpu")
    (whole,) = generate(plain, TEXTS[:1], max_new_tokens=12)
    third = plain.tokenizer(whole, add_special_tokens=False)["input_ids"][2]
    configure(speaker, "generation_config.json", eos_token_id=[3, third])
    (cut,) = generate(load_model(speaker, device="cpu"), TEXTS[:1], max_new_tokens=12)
    assert whole.startswith(cut)
    assert len(cut.split()) == 3


# --- chat templates -----------------------------------------------------------------------------

TEMPLATES = {
    "include": "{% include 'x' %}",
    "import": "{% import 'x' as y %}",
    "zero": "{{ 1 / 0 }}",
    "type": "{{ 1 + 'a' }}",
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "syntax": "{% for %}",
    "refused": "{{ raise_exception('no\n such role') }}",
    "blank": " {# nothing #} ",
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=list(TEMPLATES))
def test_a_chat_template_that_fails_is_one_line(template):
    tokenizer = random_speaker().tokenizer
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match="this tokenizer's chat template") as caught:
        render(tokenizer, [Prompt("moss")])
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="its chat template does not show"):
        LlamaGuardJudge(Model(random_speaker().module, tokenizer, "k", "guard"))


# --- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["", ".", "..", "folder"])
def test_an_output_that_is_a_folder_is_one_line(lox, pair, tmp_path, out):
    (tmp_path / "folder").mkdir()
    for verb in (["factor"], ["extrapolate", "-k", 2]):
        done = lox(*verb, pair.base, pair.aligned, "-o", out)
        assert (done.status, done.err.count("\n")) == (2, 1)
        assert any(what in done.err for what in ("is a folder", "exists", "not a name"))
