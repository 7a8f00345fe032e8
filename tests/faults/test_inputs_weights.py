"""Weight files, indexes, adapters and configs that are anything: right, or one line."""

import json
import os
import re
import shutil
import struct

import pytest
import torch
from hostile import (
    JSON,
    NO_JSON,
    as_json,
    damaged,
    damaged_bytes,
    in_time,
    refused,
    tries,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save
from speakers import random_speaker
from test_lora_adapter import PLAIN, make_adapter, merged

from lox_kit import Checkpoint, load_model
from lox_kit.models import Prompt, generate, render, size_of
from lox_kit.weights.files import DTYPES, INDEX


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the files of a module are written, one over the other."""
    return tmp_path_factory.mktemp("inputs")


def read_all(folder) -> dict[str, torch.Tensor]:
    """Return every tensor of a checkpoint."""
    checkpoint = Checkpoint(folder)
    return {name: checkpoint.read(name) for name in checkpoint.tensors}


# --- headers ------------------------------------------------------------------------------------

TENSORS = {
    "model.embed_tokens.weight": torch.arange(12.0).reshape(4, 3),
    "model.layers.0.mlp.up_proj.weight": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "model.norm.weight": torch.ones(3, dtype=torch.float16),
    "model.codes": torch.arange(5, dtype=torch.int64),
}
FILE = save(TENSORS, {"format": "pt"})
SIZE = struct.unpack("<Q", FILE[:8])[0]
HEADER, DATA = json.loads(FILE[8 : 8 + SIZE]), FILE[8 + SIZE :]
NUMBERS = st.integers(-2, 80) | st.sampled_from([2**31, 2**63, 2**64, 10**30, 1.0, "1", None])
NAMES = st.sampled_from([*DTYPES, "F4", "F6_E2M3", "C64", "U16", "U32", "U64", "f32", "X"])
PARTS = JSON | NAMES | NUMBERS | st.lists(NUMBERS, max_size=4)


def weight_file(header: bytes, data: bytes = DATA, size: int | None = None) -> bytes:
    """Return a safetensors file."""
    return struct.pack("<Q", len(header) if size is None else size) + header + data


@tries(300)
@given(
    damaged(HEADER, PARTS).map(as_json).map(weight_file)
    | damaged_bytes(FILE, 8 + SIZE)
    | (JSON.map(as_json) | NO_JSON).map(weight_file)
    | st.builds(weight_file, st.just(as_json(HEADER)), size=st.integers(0, 2**64 - 1))
    | st.binary(max_size=40)
)
def test_a_weight_file_is_what_the_library_reads_or_refused(folder, data):
    there = folder / "headers"
    there.mkdir(exist_ok=True)
    (there / "model.safetensors").write_bytes(data)
    ours: dict[str, torch.Tensor] = {}
    if refused(lambda: ours.update(read_all(there)), there) is None:
        theirs = load_file(there / "model.safetensors")
        assert ours.keys() == theirs.keys()
        for name, W in ours.items():
            assert W.dtype == theirs[name].dtype
            torch.testing.assert_close(W, theirs[name], rtol=0, atol=0)


# --- indexes ------------------------------------------------------------------------------------

SHARDS = {name: f"{i}.safetensors" for i, name in enumerate(TENSORS)}
WHOLE = {"metadata": {"total_size": 1}, "weight_map": SHARDS}


@tries(150)
@given(
    damaged(WHOLE, JSON | st.sampled_from([*SHARDS.values(), "5.safetensors"])).map(as_json)
    | damaged_bytes(as_json(WHOLE))
    | NO_JSON
)
def test_an_index_is_followed_or_refused(folder, index):
    there = folder / "indexed"
    there.mkdir(exist_ok=True)
    for name, shard in SHARDS.items():
        (there / shard).write_bytes(save({name: TENSORS[name]}))
    (there / INDEX).write_bytes(index)
    ours: dict[str, torch.Tensor] = {}
    if refused(lambda: ours.update(read_all(there)), there) is None:
        assert ours.keys() == json.loads(index)["weight_map"].keys()
        assert all(torch.equal(W, TENSORS[name]) for name, W in ours.items())


# --- adapters -----------------------------------------------------------------------------------

EXPERTS = {
    "target_modules": ["q_proj"],
    "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
}
HOSTILE = ["(([a-z_0-9.]+)+)+!", "(.|.)" * 40 + "!", "a?" * 60 + "a" * 60, "(?=(.*.*.*))" * 9, "("]


@pytest.fixture(scope="module")
def adapters(folder):
    """A base and an adapter of it, dense and with experts, and what each config was."""
    made = {}
    for kind, options in (("llama", PLAIN), ("qwen3_moe", {**PLAIN, **EXPERTS})):
        model, base, adapter = random_speaker(kind=kind), folder / kind, folder / f"{kind}-adapter"
        model.module.save_pretrained(base)
        model.tokenizer.save_pretrained(base)
        make_adapter(base, adapter, **options)
        made[kind] = base, adapter, json.loads((adapter / "adapter_config.json").read_text())
    return made


def configure(adapter, config) -> None:
    """Give an adapter another config."""
    (adapter / "adapter_config.json").write_bytes(as_json(config))


@tries(120)
@given(st.data())
def test_a_config_of_an_adapter_that_is_anything_is_followed_or_refused(adapters, data):
    _, adapter, config = adapters["llama"]
    configure(adapter, data.draw(damaged(config, JSON | st.sampled_from(HOSTILE))))
    refused(lambda: read_all(adapter), adapter)


@tries(20)
@given(st.data())
def test_so_is_one_of_an_adapter_of_experts(adapters, data):
    base, adapter, config = adapters["qwen3_moe"]
    configure(adapter, changed := data.draw(damaged(config, JSON | st.sampled_from(HOSTILE))))
    ours: dict[str, torch.Tensor] = {}
    if refused(lambda: ours.update(read_all(adapter)), adapter) is None:
        named = [changed.get(name) for name in ("target_modules", "exclude_modules")]
        assume(not changed.get("layers_pattern") and not any(isinstance(n, str) for n in named))
        theirs = merged(base, adapter)
        for name in theirs.keys() & ours.keys():
            torch.testing.assert_close(ours[name], theirs[name])


def modules_of(adapter) -> list[str]:
    """Return the modules that an adapter of linear layers changes."""
    names = load_file(adapter / "adapter_model.safetensors")
    return sorted({n.removeprefix("base_model.model.").rpartition(".lora_")[0] for n in names})


@st.composite
def patterns(draw, modules):
    """Draw patterns of names: ends of modules' names, with dots that are escaped, or any letter."""
    found = {}
    for _ in range(draw(st.integers(1, 4))):
        parts = draw(st.sampled_from(modules)).split(".")
        name = list(".".join(parts[draw(st.integers(0, len(parts) - 1)) :]))
        for _ in range(draw(st.integers(0, 2))):
            name[draw(st.integers(0, len(name) - 1))] = draw(st.sampled_from([".", r"\.", "x"]))
        start, end = draw(st.sampled_from(["", "", "^"])), draw(st.sampled_from(["", "", "$"]))
        found[f"{start}{''.join(name)}{end}"] = draw(st.integers(2, 9))
    return found


@tries(120)
@given(st.data())
def test_patterns_of_names_mean_what_they_mean_to_peft(adapters, data):
    _, adapter, config = adapters["llama"]
    modules = modules_of(adapter)
    alphas = data.draw(patterns(modules))
    configure(adapter, config | {"alpha_pattern": alphas})
    tensors = load_file(adapter / "adapter_model.safetensors")
    checkpoint = Checkpoint(adapter)
    for module in modules:
        A, B = (tensors[f"base_model.model.{module}.lora_{side}.weight"] for side in "AB")
        alpha = alphas.get(get_pattern_key(alphas, module), config["lora_alpha"])
        left, right = checkpoint.adapter.factors(f"{module}.weight")
        torch.testing.assert_close(left @ right, alpha / config["r"] * B @ A)


@pytest.mark.parametrize("pattern", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
def test_a_regular_expression_in_place_of_a_name_is_refused(adapters, field, pattern):
    _, adapter, config = adapters["llama"]
    configure(adapter, config | {field: {pattern: 3}})
    line = refused(lambda: Checkpoint(adapter), adapter / "adapter_config.json")
    assert f"{field} has {pattern!r}"[:60] in line
    assert "names of modules are read there, and no other regular expression" in line


def test_many_patterns_are_refused(adapters):
    _, adapter, config = adapters["llama"]
    configure(adapter, config | {"rank_pattern": {f"a{i}": 3 for i in range(200_000)}})
    assert "has 200000 entries" in refused(lambda: Checkpoint(adapter), adapter)


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": r"^model(?=\.).*\.(q_proj|k_proj)(?=\.|$)"},  # as ms-swift writes it
        {"target_modules": r"(?:.*?(?:self_attn|mlp).*?(?:q_proj|up_proj).*?)"},  # as unsloth does
        {"target_modules": "all-linear"},
        *({"target_modules": pattern} for pattern in HOSTILE),
        *({"exclude_modules": pattern} for pattern in HOSTILE),
        *({"layers_to_transform": [0, 1], "layers_pattern": pattern} for pattern in HOSTILE),
    ],
    ids=str,
)
def test_of_target_modules_no_pattern_is_tried_the_tensors_say_what_they_are_of(adapters, fields):
    for base, adapter, config in adapters.values():
        configure(adapter, config)
        whole = read_all(adapter)
        configure(adapter, config | fields)
        found: dict[str, torch.Tensor] = {}
        assert refused(lambda a=adapter, f=found: f.update(read_all(a))) is None
        assert all(torch.equal(found[name], W) for name, W in whole.items())
        assert any(not torch.equal(W, Checkpoint(base).read(n)) for n, W in whole.items())


def test_modules_stored_whole_beside_experts_are_refused_and_not_left_out(adapters, tmp_path):
    base, _, _ = adapters["qwen3_moe"]
    options = {**PLAIN, **EXPERTS, "modules_to_save": ["lm_head"]}
    adapter = make_adapter(base, tmp_path / "adapter", **options)
    assert "modules_to_save beside target" in refused(lambda: Checkpoint(adapter), adapter)


# --- configs ------------------------------------------------------------------------------------

FILES = ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"]


@pytest.fixture(scope="module")
def spoken(folder):
    """The folder of a model that answers, and what its JSON files hold."""
    model = random_speaker()
    model.module.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    read = {name: json.loads((folder / "model" / name).read_text()) for name in FILES}
    return folder / "model", read


def ask(there) -> None:
    """Load a model and have it answer."""
    model = load_model(there, device="cpu")
    generate(model, render(model.tokenizer, [Prompt("moss")]), max_new_tokens=2)


def plan(there) -> None:
    """Say what a model needs."""
    size_of.cache_clear()
    size_of(str(there))


def look(there) -> None:
    """Open a checkpoint as `lox check` does."""
    checkpoint = Checkpoint(there)
    assert checkpoint.matrices
    assert isinstance(checkpoint.missing, list)
    assert checkpoint.fingerprint


@pytest.mark.filterwarnings("ignore")  # that settings are left out
@pytest.mark.parametrize(
    ("call", "name"), [(look, FILES[0]), (plan, FILES[0]), *((ask, name) for name in FILES)]
)
@tries(30)
@given(st.data())
def test_a_config_that_is_anything_is_followed_or_refused(spoken, call, name, data):
    there, read = spoken
    odd = damaged({k: v for k, v in read[name].items() if k != "model"}).map(as_json) | NO_JSON
    for file, whole in read.items():
        (there / file).write_bytes(data.draw(odd) if file == name else as_json(whole))
    refused(lambda: call(there), there)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("config.json", {"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000; up to 2000"),
        ("config.json", {"vocab_size": 10**7}, r"describes \d+ values and its files hold \d+"),
        ("config.json", {"hidden_size": 10**6}, "one of them is of another model"),
        ("config.json", {"text_config": 7}, "text_config is no JSON object"),
        ("config.json", {"sliding_window": "x"}, "cannot answer .TypeError"),
        ("config.json", {"rms_norm_eps": 1e308}, "cannot answer .*logits are NaN or all alike"),
        ("config.json", {"dtype": 7}, "cannot load it"),
        ("generation_config.json", {"num_beams": 10**4, "max_time": 0}, None),
        ("generation_config.json", {"eos_token_id": 2**63}, "eos_token_id 9223372036854775808"),
        ("generation_config.json", {"eos_token_id": {}}, r"eos_token_id \{\} in its configs"),
    ],
)
def test_a_config_that_would_take_for_ever_or_break_the_model_is_one_line(
    spoken, name, fields, message
):
    there, read = spoken
    for file, whole in read.items():
        (there / file).write_bytes(as_json(whole | fields if file == name else whole))
    line = refused(lambda: ask(there), there)
    assert line is None if message is None else re.search(message, line)


# --- what is no file ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "m-1.safetensors", INDEX, *FILES, "adapter_config.json",
     "adapter_model.safetensors", "chat_template.jinja"],
)  # fmt: skip
def test_a_pipe_in_place_of_a_file_is_not_waited_for(spoken, adapters, tmp_path, name):
    there, read = spoken
    for file, whole in read.items():
        (there / file).write_bytes(as_json(whole))
    source = adapters["llama"][1] if name.startswith("adapter") else there
    folder = shutil.copytree(source, tmp_path / "folder")
    if name.startswith("m-1"):
        (folder / "model.safetensors").unlink()
        (folder / INDEX).write_bytes(as_json({"weight_map": {"a.weight": name}}))
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    for call in (look, ask):
        refused(lambda call=call: in_time(lambda: call(folder)), folder)
