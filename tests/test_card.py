"""The card of an edited model: what the hub reads in it, and what people do."""

import shutil

import pytest
from checkpoints import factor
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id
from test_lora_adapter import PLAIN, make_adapter

from lox_kit import Checkpoint, SafetySubspace, apply_lox, save_adapter
from lox_kit.extrapolation.card import model_card

LLAMA = "license: other\nlicense_name: llama-x\nlicense_link: LICENSE.txt"


def card_of(subspace, checkpoint, ranks=None, **info):
    """Return the card as the hub's library reads it, for a subspace of these names."""
    return ModelCard(model_card(checkpoint, SafetySubspace({**subspace.info, **info}), 3, 1, ranks))


def with_card(pair, folder, front):
    """Return a copy of the aligned model whose own card begins so."""
    copy = shutil.copytree(pair.aligned, folder)
    (copy / "README.md").write_text(f"---\n{front}\n---\nlicense: not this\n", encoding="utf-8")
    return Checkpoint(copy)


@pytest.mark.parametrize(
    ("base", "aligned", "parents"),
    [
        ("school/base", "school/aligned", ["school/base", "school/aligned"]),
        ("school/base@v1", "school/base@v1+other/adapter", ["school/base", "other/adapter"]),
        ("base", "school/aligned", ["school/aligned"]),
        ("sandbox/base", "sandbox/aligned@3", None),
        ("/models/base", "../aligned", None),
    ],
)
def test_the_parents_are_those_that_are_on_the_hub(pair, subspace, base, aligned, parents):
    checkpoint = Checkpoint(pair.aligned)
    card = card_of(subspace, checkpoint, base=base, aligned=aligned)
    assert card.data.base_model == parents
    assert all(validate_repo_id(name) is None for name in parents or [])
    assert card.data.library_name == "transformers"
    assert f"| base | {base} (" in card.text
    assert f"| aligned | {aligned} (" in card.text


def test_a_card_on_disk_is_one_that_the_hub_s_library_reads(pair, tmp_path):
    subspace = factor(pair, rank=8)
    out = apply_lox(subspace, pair.aligned, tmp_path / "lox", 3)
    save_adapter(subspace, pair.aligned, tmp_path / "adapter", 3)
    for folder, library in ((out, "transformers"), (tmp_path / "adapter", "peft")):
        card = ModelCard.load(folder / "README.md")
        assert card.data.to_dict() == {"library_name": library, "tags": ["lox", "safety"]}
        assert "| licence | not stated" in card.text


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        ("license: apache-2.0", {"license": "apache-2.0"}),
        ("# ours\nlanguage:\n- en\nlicense: 'mit'  # as ever\ntags: []", {"license": "mit"}),
        (
            'license: other\nlicense_name: "x: y"\nlicense_link: https://x.org/l',
            {"license": "other", "license_name": "x: y", "license_link": "https://x.org/l"},
        ),
        ("tags: [a]\nextra_gated_prompt: |\n  license: not this", {}),
        ("license: [unclosed", {}),
        ("- license", {}),
        ("license: 7", {}),
        ("license: &a [*a]\nother: {? [1] : 2}", {}),
        ("license:\n- mit", {"license": "mit"}),
    ],
)
def test_the_licence_is_that_of_the_aligned_model(pair, subspace, tmp_path, front, licence):
    data = card_of(subspace, with_card(pair, tmp_path / "a", front)).data.to_dict()
    assert {n: v for n, v in data.items() if n.startswith("license")} == licence


def test_a_link_to_a_file_of_a_repository_leads_to_it_from_anywhere(pair, subspace, tmp_path):
    checkpoint = with_card(pair, tmp_path / "a", LLAMA)
    assert card_of(subspace, checkpoint).data.license_link == "LICENSE.txt"  # which goes along
    checkpoint.name = "school/aligned@v1"
    link = "https://huggingface.co/school/aligned/blob/main/LICENSE.txt"
    assert card_of(subspace, checkpoint).data.license_link == link


def test_an_adapter_s_own_licence_comes_before_its_base_s(pair, subspace, tmp_path):
    base = with_card(pair, tmp_path / "base", LLAMA).path
    adapter = make_adapter(base, tmp_path / "adapter", **PLAIN)
    (adapter / "README.md").write_text("---\nlibrary_name: peft\n---\n")
    assert card_of(subspace, Checkpoint(adapter)).data.license_name == "llama-x"
    (adapter / "README.md").write_text("---\nlicense: mit\n---\n")
    card = card_of(subspace, Checkpoint(adapter))
    assert (card.data.license, card.data.license_name) == ("mit", None)


@pytest.mark.parametrize(("rank", "allowed"), [(1, 8), (6, 8), (16, 16), (17, 32), (300, 320)])
def test_an_adapter_s_card_says_what_serves_it(pair, subspace, rank, allowed):
    checkpoint = Checkpoint(pair.aligned)
    card = card_of(subspace, checkpoint, {"a": 1, "b": rank}, aligned="school/aligned@v1")
    assert (card.data.library_name, card.data.base_model_relation) == ("peft", "adapter")
    served = "vllm serve school/aligned --revision v1 --enable-lora --lora-modules lox=DIR"
    assert f"\n    {served} --max-lora-rank {allowed}\n" in card.text
    assert "in 2 matrices" in card.text
    assert "    lox adapter S.safetensors school/aligned@v1 -o DIR" in card.text
    assert "lox apply" not in card.text


def test_an_adapter_that_vllm_cannot_take_says_so(pair, subspace):
    card = card_of(subspace, Checkpoint(pair.aligned), {"a": 513})
    assert "--max-lora-rank" not in card.text
    assert "vLLM takes none above 512: serve what\n`lox apply` writes." in card.text
