"""Weight files, indexes, adapters and configs that are anything: right, or one line."""

import json
import shutil
import struct

import pytest
import torch
from hostile import JSON, as_json, damaged, damaged_bytes, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save
from speakers import random_speaker
from test_lora_adapter import PLAIN, make_adapter

from lox_kit import Checkpoint, load_model
from lox_kit.weights.files import DTYPES, INDEX

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
DTYPE_NAMES = st.sampled_from([*DTYPES, "F4", "F6_E2M3", "C64", "U16", "U32", "U64", "f32", "X"])
NUMBERS = st.integers(-2, 80) | st.sampled_from([2**31, 2**63, 2**64, 10**30, 1.0, "1", None])
PARTS = JSON | DTYPE_NAMES | NUMBERS | st.lists(NUMBERS, max_size=4)


def with_header(header: bytes, data: bytes = DATA, size: int | None = None) -> bytes:
    """Return a safetensors file."""
    return struct.pack("<Q", len(header) if size is None else size) + header + data


HEADERS = damaged(HEADER, PARTS).map(lambda header: with_header(as_json(header)))
FILES = (
    HEADERS
    | damaged_bytes(FILE, 8 + SIZE)
    | st.binary(max_size=40)
    | st.builds(with_header, st.just(as_json(HEADER)), st.just(DATA), st.integers(0, 2**64 - 1))
    | st.builds(with_header, JSON.map(as_json))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for the checkpoints of a module."""
    return tmp_path_factory.mktemp("inputs")


def by_the_library(file):
    """Return what the safetensors library reads in a file; None if it refuses it."""
    try:
        return load_file(file)
    except Exception:
        return None


@settings(max_examples=1500)
@given(FILES)
def test_a_weight_file_is_what_the_library_reads_or_refused(folder, data):
    there = folder / "headers"
    there.mkdir(exist_ok=True)
    (there / "model.safetensors").write_bytes(data)
    theirs, ours = by_the_library(there / "model.safetensors"), {}

    def read():
        checkpoint = Checkpoint(there)
        ours.update((name, checkpoint.read(name)) for name in checkpoint.tensors)

    line = refused(read, "headers")
    if line is None:
        assert theirs is not None
        assert ours.keys() == theirs.keys()
        for name, W in ours.items():
            assert W.dtype == theirs[name].dtype
            torch.testing.assert_close(W, theirs[name], rtol=0, atol=0)


# --- indexes ------------------------------------------------------------------------------------


@settings(max_examples=500)
@given(st.data())
def test_an_index_is_followed_or_refused(folder, data):
    there = folder / "indexed"
    if not there.exists():
        there.mkdir()
        for i, (name, W) in enumerate(TENSORS.items()):
            (there / f"{i}.safetensors").write_bytes(save({name: W}))
    whole = {
        "metadata": {"total_size": 1},
        "weight_map": {n: f"{i}.safetensors" for i, n in enumerate(TENSORS)},
    }
    names = st.sampled_from([f"{i}.safetensors" for i in range(5)])
    index = data.draw(
        damaged(whole, names | JSON).map(as_json)
        | damaged_bytes(as_json(whole))
        | JSON.map(as_json)
    )
    (there / INDEX).write_bytes(index)
    ours = {}

    def read():
        checkpoint = Checkpoint(there)
        ours.update((name, checkpoint.read(name)) for name in checkpoint.tensors)

    if refused(read, "indexed") is None:
        places = json.loads(index)["weight_map"]
        assert {n: TENSORS[n] for n in ours if not torch.equal(ours[n], TENSORS[n])} == {}
        assert ours.keys() == places.keys()


# --- adapters -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoken(folder):
    model = random_speaker()
    model.module.save_pretrained(folder / "base")
    model.tokenizer.save_pretrained(folder / "base")
    make_adapter(
        folder / "base",
        folder / "adapter",
        **PLAIN,
    )
    return folder / "base", folder / "adapter"


@settings(max_examples=1000)
@given(st.data())
def test_an_adapter_config(spoken, data):
    _, adapter = spoken
    file = adapter / "adapter_config.json"
    if not (adapter / "kept").exists():
        shutil.copy(file, adapter / "kept")
    whole = json.loads((adapter / "kept").read_text())
    file.write_bytes(as_json(data.draw(damaged(whole, JSON))))
    refused(lambda: [Checkpoint(adapter).read(n) for n in Checkpoint(adapter).adapted], "adapter")


@settings(max_examples=300)
@given(st.data())
def test_config(spoken, folder, data):
    there = folder / "configured"
    if not there.exists():
        shutil.copytree(spoken[0], there)
    for f in there.glob("*.json"):
        shutil.copy(spoken[0] / f.name, f)
    name = data.draw(
        st.sampled_from(
            ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"]
        )
    )
    whole = json.loads((there / name).read_text())
    new = as_json(data.draw(damaged(whole, JSON)))
    (there / name).write_bytes(new)
    refused(lambda: load_model(there, device="cpu"), "configured")
