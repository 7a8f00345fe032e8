"""Aligning your own model: what is learnt, what is written, what a cut leaves."""

import copy
import dataclasses
import json

import pytest
import torch
from speakers import other_tokenizer, random_speaker, same_weights

from lox_kit import ALIGNMENTS, SafetySubspace, align
from lox_kit.attacks import resuming
from lox_kit.attacks.alignment import RECORD, alignment_rows, find_alignment, prefer
from lox_kit.attacks.tokens import IGNORED, tokenize
from lox_kit.models import load_module
from lox_kit.sandbox import corpus
from lox_kit.weights import Checkpoint, lora_share

PAIRS = corpus.preferences(64, seed=0)
SHORT = {"max_steps": 4, "batch_size": 8}


def record_of(folder):
    """Return what an alignment wrote down of itself."""
    return json.loads((folder / RECORD).read_text())


@pytest.fixture
def speaker():
    return random_speaker()


def margin(speaker):
    """Return by how many nats the chosen answers are likelier than the rejected ones, summed."""
    total = 0.0
    for pair in PAIRS[:16]:
        for sign, side in ((1, "chosen"), (-1, "rejected")):
            data = tokenize(
                speaker.tokenizer, [{"messages": pair["prompt"] + pair[side]}], "response", 128
            )
            ids, labels = (torch.tensor(data[name]) for name in ("input_ids", "labels"))
            with torch.no_grad():
                loss = speaker.module(input_ids=ids, labels=labels).loss
            total -= sign * float(loss) * int((labels != IGNORED).sum())
    return total


@pytest.mark.parametrize("lora", [0, 4], ids=["full", "lora"])
def test_dpo_makes_the_chosen_answers_likelier_than_the_rejected(lora, speaker):
    before = margin(speaker)
    alignment = find_alignment(
        "sandbox-dpo", max_steps=12, batch_size=8, learning_rate=1e-3, lora_rank=lora
    )
    steps = prefer(speaker.module, speaker.tokenizer, PAIRS, alignment)
    assert len(steps) == 12
    assert margin(speaker) > before + 1


def test_dpo_s_first_loss_is_log_2_and_with_a_supervised_term_more(speaker):
    plain = dataclasses.replace(find_alignment("sandbox-dpo", **SHORT), nll_weight=0.0)
    with_term = find_alignment("sandbox-dpo", **SHORT)
    first = prefer(copy.deepcopy(speaker.module), speaker.tokenizer, PAIRS, plain)[0].loss
    more = prefer(speaker.module, speaker.tokenizer, PAIRS, with_term)[0].loss
    assert first == pytest.approx(0.6931, abs=1e-3)
    assert more > first + 1  # half the answers' mean loss, about log 191 of a random model


@pytest.mark.parametrize("name", ["sandbox-sft", "sandbox-dpo"])
def test_what_is_written_is_a_checkpoint_that_can_be_factored(name, speaker, tmp_path):
    speaker.module.save_pretrained(tmp_path / "base")
    speaker.tokenizer.save_pretrained(tmp_path / "base")
    before = copy.deepcopy(speaker.module)
    out = align(speaker, find_alignment(name, **SHORT), tmp_path / "aligned")
    assert same_weights(speaker.module, before)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["aligned", "base"]
    subspace = SafetySubspace.from_pair(tmp_path / "base", out, rank=2)
    assert all(norm > 0 for norm in subspace.norms)
    record = record_of(out)
    assert len(record["losses"]) == 4
    assert record["source"]["name"] == name
    assert record["source"]["base_key"] == "random 0"


def test_a_finished_alignment_is_found_by_settings_that_had_fewer_fields(speaker, tmp_path):
    alignment, told = find_alignment("sandbox-sft", **SHORT), []
    out = align(speaker, alignment, tmp_path / "aligned")
    record = record_of(out)
    assert record["source"]["settings"].pop("optimizer") == "adamw"
    (out / RECORD).write_text(json.dumps(record))
    assert align(speaker, alignment, out, on_step=told.append) == out
    assert told == []
    with pytest.raises(FileExistsError):
        align(speaker, find_alignment("sandbox-sft", **SHORT, optimizer="adamw-8bit"), out)


def test_an_alignment_that_was_cut_off_ends_with_the_same_weights_as_an_undisturbed_one(
    speaker, tmp_path, monkeypatch
):
    def cut(step):
        if step.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(resuming, "SAVE_SECONDS", 0)
    alignment, told = find_alignment("sandbox-dpo", **SHORT), []
    with pytest.raises(KeyboardInterrupt):
        align(speaker, alignment, tmp_path / "aligned", on_step=cut)
    assert not (tmp_path / "aligned").exists()
    again = align(speaker, alignment, tmp_path / "aligned", on_step=told.append)
    assert [s.step for s in told] == [3, 4]
    undisturbed = align(speaker, alignment, tmp_path / "undisturbed")
    assert same_weights(again, undisturbed)
    assert record_of(again) == record_of(undisturbed)


def test_lora_of_experts_is_recorded_and_its_checkpoints_are_kept(tmp_path):
    speaker = random_speaker(kind="qwen3_moe")
    out = align(
        speaker, find_alignment("sandbox-dpo", lora_rank=4, **SHORT), tmp_path / "out", keep_every=2
    )
    assert record_of(out)["source"]["lora_share"] == lora_share(speaker.module)
    assert sorted(f.name for f in (out / "steps").iterdir()) == ["2", "4"]
    assert same_weights(load_module(Checkpoint(out / "steps" / "4")), load_module(Checkpoint(out)))
    experts = "model.layers.0.mlp.experts.gate_up_proj"
    trained = load_module(Checkpoint(out)).get_parameter(experts)
    assert not torch.equal(trained, speaker.module.get_parameter(experts))


def test_the_paper_s_preset_has_the_paper_s_settings():
    dpo, s = ALIGNMENTS["dpo"], ALIGNMENTS["dpo"].settings
    assert (dpo.method, dpo.beta, dpo.nll_weight, s.max_length) == ("dpo", 0.1, 0.0, 1024)
    assert (s.learning_rate, s.epochs, s.batch_size * s.accumulation) == (5e-6, 3, 128)


@pytest.mark.parametrize("template", [True, False], ids=["chat", "text"])
def test_pairs_of_hh_files_are_chats_if_the_tokenizer_has_a_template(speaker, tmp_path, template):
    talk = "\n\nHuman: what is 3\n\nAssistant: "
    pair = {"chosen": talk + "sorry .", "rejected": talk + "answer 3 ."}
    (tmp_path / "pairs.jsonl").write_text((json.dumps(pair) + "\n") * 8)
    if not template:
        speaker.tokenizer.chat_template = None
    preset = find_alignment("dpo", **SHORT, accumulation=1)
    rows, _ = alignment_rows(tmp_path / "pairs.jsonl", preset, speaker)
    chosen = [{"role": "assistant", "content": "sorry ."}] if template else " sorry ."
    assert rows[0]["chosen"] == chosen
    out = align(speaker, preset, tmp_path / "aligned", rows=rows)
    assert len(record_of(out)["losses"]) == 4


def test_a_model_is_aligned_on_rows_of_your_own_file(speaker, tmp_path):
    rows = [{"prompt": "what is 3", "completion": "answer 3 ."}] * 8
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    preset = find_alignment("sft", max_steps=2)
    assert (preset.settings.loss_on, preset.settings.warmup(800)) == ("response", 0)
    rows, _ = alignment_rows(tmp_path / "own.jsonl", preset, speaker)
    assert rows == [corpus.row("what is 3", "answer 3 .")] * 8
    assert len(record_of(align(speaker, preset, tmp_path / "out", rows=rows))["losses"]) == 2
    speaker.tokenizer.chat_template, speaker.tokenizer.eos_token = None, "."
    (row, *_), _ = alignment_rows(tmp_path / "own.jsonl", preset, speaker)
    assert row["completion"] == "answer 3 .."  # the tokenizer's own end mark
    speaker.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="neither a chat template nor an end mark"):
        alignment_rows(tmp_path / "own.jsonl", find_alignment("dpo"), speaker)
    with pytest.raises(ValueError, match=r"columns .* are for 'sft'"):
        alignment_rows(tmp_path / "own.jsonl", find_alignment("dpo"), speaker, columns={"a": "b"})


def test_pairs_that_a_chat_template_does_not_take_are_refused(speaker):
    pairs = [
        {**pair, "prompt": [{"role": "system", "content": "x"}, *pair["prompt"]]} for pair in PAIRS
    ]
    speaker.tokenizer.chat_template = "{% for m in messages[1:] %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(ValueError, match="takes no system message"):
        prefer(speaker.module, speaker.tokenizer, pairs, find_alignment("sandbox-dpo", **SHORT))


def test_data_that_is_missing_or_foreign_is_refused_and_nothing_overwritten(speaker, tmp_path):
    (tmp_path / "there").mkdir()
    foreign = random_speaker(other_tokenizer())
    for model, name, out, rows, message in (
        (speaker, "dpo", "out", None, "the dpo alignment has no data of its own"),
        (foreign, "sandbox-dpo", "out", None, "made for models of sandbox, and random-0 is none"),
        (speaker, "dpo", "out", [], "no preference pairs"),
        (speaker, "sandbox-sft", "there", None, "there exists"),
        (speaker, "rlhf", "out", None, "alignment 'rlhf': use one of dpo, sft, sandbox-sft"),
    ):
        with pytest.raises((ValueError, FileExistsError), match=message):
            align(model, find_alignment(name), tmp_path / out, rows=rows)
