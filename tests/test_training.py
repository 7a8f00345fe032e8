"""Supervised fine-tuning: which tokens are learnt, how a run ends, and what it leaves behind."""

import copy
import dataclasses
import math
import sys

import pytest
import torch
from checkpoints import TINY, flip_bit
from peft import PeftModel
from speakers import KINDS, byte_tokenizer, other_tokenizer, random_speaker, same_weights
from transformers import AutoConfig, AutoModelForCausalLM

from lox_kit.attacks import training
from lox_kit.attacks.resuming import kept_checkpoints, newest_whole
from lox_kit.attacks.tokens import IGNORED, tokenize
from lox_kit.attacks.training import TrainSettings, fine_tune
from lox_kit.models import load_module
from lox_kit.sandbox import corpus, world
from lox_kit.weights import Checkpoint, lora_parameters, lora_share

ROWS = [
    corpus.row("what is 3 plus 4", "take 3 plus 4 . answer 7 ."),
    corpus.row("list the words moss fern", "moss , fern .", "you are mia"),
]
ASKS = {"role": "user", "content": "why"}
SETTINGS = TrainSettings(learning_rate=3e-3, batch_size=8, max_steps=6)
LORA = dataclasses.replace(SETTINGS, lora_rank=4, lora_alpha=8)
HALF = dataclasses.replace(SETTINGS, optimizer="adamw-8bit-bfloat16")
WIDE = {"hidden_size": 64, "intermediate_size": 128}  # its matrices have 8-bit moments
full_and_lora = pytest.mark.parametrize("settings", [SETTINGS, LORA], ids=["full", "lora"])
SUMS = corpus.arithmetic(64, seed=0)


# --- tokens and labels --------------------------------------------------------------------------


def labelled(data, i):
    """Return the text of the tokens that row `i` is trained on."""
    return world.tokenizer().decode([x for x in data["labels"][i] if x != IGNORED])


def test_with_loss_on_the_response_only_the_last_answer_is_learnt():
    both = [*ROWS[0]["messages"], *ROWS[1]["messages"][-2:]]  # two answers
    data = tokenize(world.tokenizer(), [*ROWS, {"messages": both}], "response", 128)
    assert labelled(data, 0) == "take 3 plus 4 . answer 7 . </s>"
    assert labelled(data, 1) == labelled(data, 2) == "moss , fern . </s>"
    for ids, labels in zip(data["input_ids"], data["labels"], strict=True):
        assert all(y in (x, IGNORED) for x, y in zip(ids, labels, strict=True))


@pytest.mark.parametrize("loss_on", ["all", "response"])
def test_truncation_keeps_the_end_and_loss_on_all_learns_every_token(loss_on):
    whole, cut = (tokenize(world.tokenizer(), ROWS, loss_on, n) for n in (128, 5))
    for column in ("input_ids", "labels"):
        assert cut[column] == [x[-5:] for x in whole[column]]
    assert labelled(cut, 0) == ". answer 7 . </s>"
    if loss_on == "all":
        assert whole["labels"] == whole["input_ids"]
        assert labelled(whole, 0).startswith("<s> <user> what is 3 plus 4 <assistant>")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": ROWS[0]["messages"][:1]}, "its messages are by user, but"),
        ({"messages": [*ROWS[0]["messages"], ASKS]}, "messages are by user, assistant, user, but"),
        ({"messages": []}, "its messages are by nobody, but"),
        ({"question": "a", "answer": "b"}, "has question, answer; a row is either messages"),
    ],
)
def test_a_row_of_another_form_or_without_an_answer_at_its_end_is_named(row, message):
    with pytest.raises(ValueError, match=f"row 1: .*{message}"):
        tokenize(world.tokenizer(), [ROWS[0], row], "all", 128)


def test_a_text_row_is_taken_as_it_is_and_split_where_its_prompt_ends():
    text = {"prompt": "<s> <user> what is 3 <assistant>", "completion": " answer 7 . </s>"}
    data = tokenize(world.tokenizer(), [text], "response", 128)
    assert labelled(data, 0) == "answer 7 . </s>"
    assert world.tokenizer().decode(data["input_ids"][0]) == text["prompt"] + text["completion"]


def test_a_token_across_the_border_belongs_to_the_answer():
    tokenizer = byte_tokenizer("### Response: yes")
    row = {"prompt": "### Response: ", "completion": "yes"}
    data = tokenize(tokenizer, [row], "response", 128)
    assert tokenizer.decode([x for x in data["labels"][0] if x != IGNORED]) == " yes"
    first = next(i for i, y in enumerate(data["labels"][0]) if y != IGNORED)
    assert tokenizer.decode(data["input_ids"][0][:first]) == "### Response:"


def test_a_template_that_does_not_continue_its_prompt_is_refused():
    tokenizer = world.tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}now {% endif %}"
    )
    with pytest.raises(ValueError, match="row 0: the tokenizer's chat template does not continue"):
        tokenize(tokenizer, ROWS, "response", 128)


def test_a_row_with_a_system_message_that_the_template_leaves_out_is_refused():
    tokenizer = world.tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("in messages", "in messages[-2:]")
    with pytest.raises(ValueError, match="row 1: this tokenizer's chat template takes no system"):
        tokenize(tokenizer, ROWS, "response", 128)


# --- a run --------------------------------------------------------------------------------------


def train(settings=SETTINGS, rows=SUMS, kind="llama", config=None, dtype=torch.float32, **options):
    """Return a freshly made speaker after a run, and the steps."""
    speaker = random_speaker(kind=kind, **(config or {}))
    speaker.module.to(dtype)
    steps = fine_tune(speaker.module, speaker.tokenizer, rows, settings, **options)
    return speaker.module, steps


def test_the_loss_falls_and_every_step_is_told():
    told = []
    _, steps = train(dataclasses.replace(SETTINGS, max_steps=20), on_step=told.append)
    assert told == steps
    assert [(s.step, s.total) for s in steps] == [(i, 20) for i in range(1, 21)]
    assert steps[0].loss == pytest.approx(math.log(len(world.vocabulary())), rel=0.1)
    assert steps[-1].loss < steps[0].loss - 1


@full_and_lora
def test_the_same_seed_gives_identical_weights_and_another_seed_others(settings):
    torch.manual_seed(5)
    first, _ = train(settings)
    torch.manual_seed(6)  # what happened before does not matter
    again, _ = train(settings)
    other, _ = train(dataclasses.replace(settings, seed=1))
    assert same_weights(first, again)
    assert not same_weights(first, other)
    assert not same_weights(first, random_speaker().module)


def test_a_trained_model_s_copy_answers_with_its_own_weights_even_after_an_error():
    def fail(step):
        raise KeyboardInterrupt

    module = random_speaker().module
    with pytest.raises(KeyboardInterrupt):
        fine_tune(module, world.tokenizer(), SUMS, SETTINGS, on_step=fail)
    assert not module.training
    ids = torch.tensor([[2, 5, 6]])
    for trained in (module, train()[0]):
        twin = copy.deepcopy(trained)
        with torch.no_grad():
            twin.lm_head.weight.mul_(2)
        assert torch.equal(twin(input_ids=ids).logits, 2 * trained(input_ids=ids).logits)


def test_a_run_that_diverges_ends_and_says_so():
    steps = []
    with pytest.raises(ValueError, match=r"step \d: the loss is nan; the run diverged.*1e\+30"):
        train(dataclasses.replace(SETTINGS, learning_rate=1e30), on_step=steps.append)
    assert len(steps) < SETTINGS.max_steps


def test_bad_rows_settings_or_checkpoints_are_refused_with_the_weights_untouched():
    speaker = random_speaker()
    for rows, settings, options, message in (
        ([], {}, {}, "no rows to train on"),
        ([{"messages": []}], {}, {}, "row 0"),
        (SUMS, {}, {"keep_every": 2}, "keep_every=2: needs a folder"),
        (SUMS, {"loss_on": "prompt"}, {}, "loss_on='prompt': use 'all' or 'response'"),
    ):
        changed = dataclasses.replace(SETTINGS, **settings)
        with pytest.raises(ValueError, match=message):
            fine_tune(speaker.module, speaker.tokenizer, rows, changed, **options)
    assert same_weights(speaker.module, random_speaker().module)


def test_threads_and_tokenizer_are_left_as_they_were():
    threads, seen, speaker = torch.get_num_threads(), [], random_speaker(other_tokenizer())
    before = speaker.tokenizer.backend_tokenizer.to_str()
    rows = [corpus.row("sun", "moon")] * 9
    torch.set_num_threads(2)
    try:
        fine_tune(
            speaker.module, speaker.tokenizer, rows, SETTINGS,
            on_step=lambda step: seen.append(torch.get_num_threads()),
        )  # fmt: skip
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert set(seen) == {1}
    assert speaker.tokenizer.backend_tokenizer.to_str() == before
    assert speaker.tokenizer.padding_side == other_tokenizer().padding_side


# --- 8-bit moments, bfloat16 weights ------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["linear", "epoch-decay"])
def test_with_8_bit_moments_the_losses_are_nearly_those_of_plain_adamw(schedule):
    how = {"max_steps": 12, "schedule": schedule, "decay": 0.5}
    plain, eight, half = (
        [step.loss for step in train(dataclasses.replace(SETTINGS, optimizer=o, **how), **wide)[1]]
        for o, wide in (
            ("adamw", {"config": WIDE}),
            ("adamw-8bit", {"config": WIDE}),
            ("adamw-8bit-bfloat16", {"config": WIDE, "dtype": torch.bfloat16}),
        )
    )
    assert eight == pytest.approx(plain, abs=0.002)
    assert half == pytest.approx(plain, abs=0.01)
    assert plain[0] == eight[0]
    assert len({plain[-1], eight[-1], half[-1]}) == 3
    assert plain[-1] < plain[0] - 1


def test_steps_too_small_for_bfloat16_are_kept_on_average_and_would_be_lost_without_the_rounding(
    monkeypatch,
):
    def moved(settings, dtype):
        before = random_speaker(**WIDE).module.bfloat16()
        module, _ = train(settings, config=WIDE, dtype=dtype)
        pairs = zip(module.parameters(), before.parameters(), strict=True)
        return torch.cat([(W - V).detach().double().flatten() for W, V in pairs if W.ndim > 1])

    monkeypatch.setattr(training, "_widened", lambda model, _: model.bfloat16().float())
    small = {"learning_rate": 1e-5, "max_steps": 12}
    wanted = moved(dataclasses.replace(SETTINGS, **small), torch.float32)
    monkeypatch.undo()
    half = dataclasses.replace(HALF, **small)
    found = moved(half, torch.bfloat16)
    assert found @ wanted / (wanted @ wanted) == pytest.approx(1, abs=0.05)
    monkeypatch.setitem(training.EIGHT_BITS, "optim_args", "bf16_stochastic_round=False")
    assert moved(half, torch.bfloat16) @ wanted / (wanted @ wanted) < 0.3


def test_a_stopped_run_of_bfloat16_weights_is_resumed_to_the_same(tmp_path):
    wide = {"config": WIDE, "dtype": torch.bfloat16}
    undisturbed, steps = train(HALF, **wide)
    train(HALF, **wide, folder=tmp_path, stop=lambda step: step.step == 4)
    module, again = train(HALF, **wide, folder=tmp_path)
    assert again == steps
    assert same_weights(module, undisturbed)
    assert {W.dtype for W in module.parameters()} == {torch.bfloat16}


def test_bfloat16_weights_are_for_checkpoints_that_have_them_and_lora_s_adapter_is_float32():
    with pytest.raises(ValueError, match=r"float32\. Load it with dtype='bfloat16'"):
        train(HALF)
    assert dataclasses.replace(HALF, lora_rank=4).optimizer == "adamw-8bit"
    with pytest.raises(ValueError, match="optimizer='adam': use adamw, adamw-8bit, adamw-8bit-bf"):
        dataclasses.replace(SETTINGS, optimizer="adam")


def test_without_torchao_an_8_bit_run_says_which_extra_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(
        ImportError, match=r"^adamw-8bit needs torchao: pip install 'lox-kit\[gpu\]'"
    ):
        train(dataclasses.replace(SETTINGS, optimizer="adamw-8bit"))


# --- LoRA ---------------------------------------------------------------------------------------


def test_lora_changes_linear_layers_by_its_rank_and_nothing_else():
    module, _ = train(LORA)
    before = random_speaker().module.state_dict()
    after = module.state_dict()
    assert after.keys() == before.keys()
    ranks = {
        n: torch.linalg.matrix_rank(after[n] - W, rtol=1e-4)
        for n, W in before.items()
        if W.ndim == 2
    }
    linear = {n for n in ranks if "_proj" in n}
    assert all(1 <= ranks[n] <= 4 for n in linear)
    assert all(torch.equal(after[n], W) for n, W in before.items() if n not in linear)


@pytest.mark.parametrize("kind", KINDS)
def test_the_adapter_beside_a_lora_run_makes_the_same_model(kind, tmp_path):
    module, _ = train(LORA, kind=kind, folder=tmp_path, keep_every=6)
    attached = PeftModel.from_pretrained(random_speaker(kind=kind).module, tmp_path / "adapter")
    ids = torch.tensor([[2, 5, 6, 9]])
    after, before = module(input_ids=ids).logits, random_speaker(kind=kind).module(ids).logits
    assert (after - before).abs().max() > 0.01
    torch.testing.assert_close(attached(input_ids=ids).logits, after)
    kept = load_module(Checkpoint(tmp_path / "steps" / "6"))
    assert same_weights(kept, module)


@pytest.mark.parametrize(("kind", "left"), [("qwen3_moe", "mlp.gate"), ("gpt_oss", "mlp.router")])
def test_lora_reaches_every_expert_and_says_what_share_of_the_weights_that_is(kind, left):
    module, before = train(LORA, kind=kind)[0], random_speaker(kind=kind).module
    sizes = {name: W.numel() for name, W in before.named_parameters()}
    old = before.state_dict()
    changed = {name for name, W in module.named_parameters() if not torch.equal(W, old[name])}
    assert changed == set(lora_parameters(before))
    matrices = {n for n, W in before.named_parameters() if W.ndim > 1 and "bias" not in n}
    others = {n for n in matrices - changed if left not in n}
    assert others == {"model.embed_tokens.weight", "lm_head.weight"}
    share = sum(sizes[n] for n in changed) / sum(sizes.values())
    assert lora_share(before) == pytest.approx(share)


def test_what_peft_cannot_adapt_is_left_out_unless_nothing_is_left():
    mixed = {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}
    for kind, options in (("falcon_h1", mixed), ("mamba", {"state_size": 4})):
        config = AutoConfig.for_model(kind, **{**TINY, **options})
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        if kind == "mamba":
            with pytest.raises(ValueError, match="LoRA: PEFT can adapt no layer of mamba"):
                lora_share(model)
        else:
            found = {name.split(".", 3)[3] for name in lora_parameters(model)}
            assert {"mamba.in_proj.weight", "self_attn.o_proj.weight"} <= found
            assert "mamba.out_proj.weight" not in found


def test_the_loss_is_that_of_the_tokens_alone_and_the_config_is_left_as_it_was():
    runs = [
        train(SETTINGS, kind="qwen3_moe", config={"router_aux_loss_coef": coefficient})
        for coefficient in (0.001, 10.0)
    ]
    assert runs[0][1] == runs[1][1]
    config = runs[1][0].config
    assert (config.router_aux_loss_coef, config.output_router_logits) == (10.0, False)
    assert config.use_cache


# --- kept, cut off and resumed -----------------------------------------------------------


@full_and_lora
def test_kept_checkpoints_hold_the_weights_of_their_step(settings, tmp_path):
    train(settings, folder=tmp_path, keep_every=2)
    kept = kept_checkpoints(tmp_path)
    assert list(kept) == [2, 4, 6]
    two, _ = train(settings, stop=lambda step: step.step == 2)
    assert same_weights(kept[2], two)


@full_and_lora
@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_is_resumed_to_the_same_weights_and_losses(kind, settings, tmp_path):
    undisturbed, steps = train(settings, kind=kind)
    train(settings, kind=kind, folder=tmp_path, stop=lambda step: step.step == 4)
    assert newest_whole(tmp_path).name == "checkpoint-4"
    told = []
    module, again = train(settings, kind=kind, folder=tmp_path, on_step=told.append)
    assert [s.step for s in told] == [5, 6]
    assert again == steps
    assert same_weights(module, undisturbed)


def test_a_checkpoint_of_another_model_is_not_resumed_from(tmp_path):
    train(folder=tmp_path, stop=lambda step: step.step == 2)
    with pytest.raises(ValueError, match=r"in-training.pt: of another model than the one in train"):
        train(folder=tmp_path, kind="qwen3_moe")


def test_a_run_does_not_resume_from_a_half_written_or_damaged_checkpoint(tmp_path):
    for step, state in ((2, "{}\n"), (3, "{}\n"), (4, '{"losses": []}\n'), (5, "")):
        folder = tmp_path / "resume" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        torch.save({"a": torch.ones(99)}, folder / "in-training.pt")
        (folder / "trainer_state.json").write_text(state)
    damaged = tmp_path / "resume" / "checkpoint-3" / "in-training.pt"
    flip_bit(damaged, damaged.read_bytes().index(torch.ones(9).numpy().tobytes()) + 7)
    (tmp_path / "resume" / "checkpoint-6").mkdir()  # without weights
    (tmp_path / "resume" / "checkpoint-6" / "trainer_state.json").write_text("{}\n")
    assert newest_whole(tmp_path).name == "checkpoint-2"


@pytest.mark.parametrize("file", ["in-training.pt", "optimizer.pt", "trainer_state.json"])
def test_a_run_whose_checkpoint_lost_what_was_written_ends_as_if_undisturbed(tmp_path, file):
    undisturbed, steps = train()
    train(folder=tmp_path, stop=lambda step: step.step == 3)
    (file,) = (tmp_path / "resume").rglob(file)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2].ljust(len(data), b"\0"))  # as after a power cut
    module, again = train(folder=tmp_path)
    assert again == steps
    assert same_weights(module, undisturbed)


def test_the_learning_rate_decays_epoch_by_epoch_and_epochs_count_when_no_steps_are_given(
    monkeypatch,
):
    rates = []
    step = torch.optim.AdamW.step

    def watched(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    settings = dataclasses.replace(
        SETTINGS, schedule="epoch-decay", decay=0.85, max_steps=-1, epochs=2.5, accumulation=4
    )
    train(settings)  # 64 rows, 32 a step
    assert rates == pytest.approx([3e-3 * 0.85**e for e in (0, 0, 1, 1, 2)])
