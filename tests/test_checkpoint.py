import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from checkpoints import flip_bit, save_tensors, weights
from safetensors.torch import save_file
from speakers import watch

from lox_kit.weights import files as weight_files
from lox_kit.weights.checkpoint import Checkpoint
from lox_kit.weights.files import INDEX

# --- one checkpoint -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"shards": "15KB"}], ids=["single", "sharded"])
def test_every_tensor_is_read_as_the_safetensors_library_reads_it(make_pair, options):
    folder = make_pair(**options).aligned
    checkpoint = Checkpoint(folder)
    expected = weights(folder)
    assert len({info.file for info in checkpoint.tensors.values()}) == (7 if options else 1)
    assert checkpoint.tensors.keys() == expected.keys()
    for name, info in checkpoint.tensors.items():
        assert torch.equal(checkpoint.read(name), expected[name])
        assert (info.shape, info.dtype) == (tuple(expected[name].shape), expected[name].dtype)


def test_a_sandbox_name_is_a_checkpoint():
    checkpoint = Checkpoint("sandbox/aligned")
    assert checkpoint.name == "sandbox/aligned"
    assert "lm_head.weight" in checkpoint.tensors


@pytest.mark.parametrize("name", ["sandbox/aligned2", "sandbox/aligned@x", "sandbox/"])
def test_a_mistyped_sandbox_name_lists_the_right_ones(name):
    with pytest.raises(ValueError, match="sandbox names are sandbox/base and sandbox/aligned"):
        Checkpoint(name)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("nowhere", r"nowhere: no such folder. .* sandbox/aligned@3"),
        (".", f"neither model.safetensors nor {INDEX}; is"),
        ("a.gguf", f"neither model.safetensors nor {INDEX}, and weights.gguf is not read; is"),
    ],
)
def test_a_folder_that_is_not_there_or_holds_nothing_read_is_named(tmp_path, folder, message):
    (tmp_path / "a.gguf").mkdir()
    (tmp_path / "a.gguf" / "weights.gguf").write_bytes(b"GGUF")
    with pytest.raises(FileNotFoundError, match=message):
        Checkpoint(tmp_path / folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "a.pt"])
def test_pickles_are_refused_with_the_command_that_converts_them(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"is a pickle.* Convert it once.*save_pretrained\('"):
        Checkpoint(tmp_path)


def test_a_missing_shard_is_named(sharded):
    gone = sorted(sharded.glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(FileNotFoundError, match=f"7 shards and 1 are missing, first {gone.name}"):
        Checkpoint(sharded)


@pytest.mark.parametrize("size", [0, 5, 300, -1])
def test_a_truncated_shard_is_named_with_its_size(sharded, size):
    shard = sorted(sharded.glob("*.safetensors"))[1]
    data = shard.read_bytes()[:size]
    shard.write_bytes(data)
    message = f"{shard.name}: not a whole safetensors file .* It has {len(data)} bytes"
    with pytest.raises(ValueError, match=message):
        Checkpoint(sharded)


@pytest.mark.parametrize("text", ["", '{"weight_map": {"a"', '{"weight_map": {}}', "{}", "[]"])
def test_a_damaged_index_is_named(sharded, text):
    (sharded / INDEX).write_text(text)
    with pytest.raises(ValueError, match=f"{INDEX}: "):
        Checkpoint(sharded)


def test_a_damaged_config_is_named(tmp_path):
    folder = save_tensors(tmp_path / "a", {"w.weight": torch.ones(2, 2)}, {})
    (folder / "config.json").write_text('{"tie_word')
    with pytest.raises(ValueError, match=r"config.json: "):
        Checkpoint(folder)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model."])
def test_the_names_of_a_wrapped_model_are_refused(pair, tmp_path, prefix):
    tensors = {prefix + name: W for name, W in weights(pair.aligned).items()}
    with pytest.raises(ValueError, match=rf"{prefix}lm_head.weight has the prefix.* Unwrap"):
        Checkpoint(save_tensors(tmp_path / "wrapped", tensors))


def test_a_dtype_without_a_torch_counterpart_is_refused(tmp_path):
    header = json.dumps({"w": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ValueError, match=r"w in .*/model.safetensors: dtype C64 is not supported"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("names", "tie", "tied"),
    [
        (["model.embed_tokens", "lm_head"], False, None),
        (["model.embed_tokens", "lm_head"], True, "model.embed_tokens.weight"),
        (["model.embed_tokens"], True, "model.embed_tokens.weight"),
        (["transformer.wte"], None, "transformer.wte.weight"),
        (["gpt_neox.embed_in", "embed_out"], False, None),
    ],
)
def test_a_tied_embedding_is_found(tmp_path, names, tie, tied):
    tensors = {f"{n}.weight": torch.ones(4, 2) for n in names}
    config = {} if tie is None else {"tie_word_embeddings": tie}
    assert Checkpoint(save_tensors(tmp_path / "a", tensors, config)).tied == tied


# --- the fingerprint ----------------------------------------------------------------------------


TEMPLATE = "additional_chat_templates/default.jinja"


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json", TEMPLATE])
def test_the_fingerprint_changes_with_what_decides_the_answers_and_nothing_else(
    pair, tmp_path, file
):
    copy = shutil.copytree(pair.aligned, tmp_path / "copy")
    (copy / "README.md").write_text("a model card")
    before = Checkpoint(copy).fingerprint
    assert before == Checkpoint(pair.aligned).fingerprint  # of the content, not of the place
    (copy / TEMPLATE).parent.mkdir()
    (copy / TEMPLATE).write_text("{{ messages }}")
    before = before if file != TEMPLATE else Checkpoint(copy).fingerprint
    if file.endswith(".json"):
        (copy / file).write_bytes((copy / file).read_bytes() + b" ")
    else:
        flip_bit(copy / file, -1)
    assert Checkpoint(copy).fingerprint != before


@pytest.mark.parametrize("file", ["qwen.tiktoken", "tokenizer.model.v3"])
def test_a_tokenizer_of_any_kind_is_in_the_fingerprint(pair, tmp_path, file):
    copy = shutil.copytree(pair.aligned, tmp_path / "copy")
    before = Checkpoint(copy).fingerprint
    (copy / file).write_text("words")
    assert Checkpoint(copy).fingerprint != before


def test_code_and_licence_are_not_and_fingerprints_are_made_as_they_always_were(tmp_path):
    folder = save_tensors(tmp_path / "a", {"w.weight": torch.ones(2, 2)}, {})
    (folder / TEMPLATE).parent.mkdir()
    (folder / TEMPLATE).write_text("{{ messages }}")
    for file in ("modeling_own.py", "LICENSE", "README.md"):
        (folder / file).write_text("not a word of the model's")
    lines = ""
    for file in ("config.json", "model.safetensors", TEMPLATE):
        value = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        lines += f"{Path(file).name} {value}\n"
    assert Checkpoint(folder).fingerprint == hashlib.sha256(lines.encode()).hexdigest()


def test_a_large_file_is_hashed_once(tmp_path, monkeypatch):
    monkeypatch.setenv("LOX_KIT_CACHE", str(tmp_path / "cache"))
    hashed = watch(monkeypatch, weight_files, "_digest")
    folder = save_tensors(tmp_path / "a", {"w.weight": torch.zeros(600, 600)})
    first, second = Checkpoint(folder).fingerprint, Checkpoint(folder).fingerprint
    assert first == second
    assert [file.name for (file,), _ in hashed] == ["model.safetensors"]
    save_file({"w.weight": torch.ones(600, 600)}, folder / "model.safetensors")
    assert Checkpoint(folder).fingerprint != first
