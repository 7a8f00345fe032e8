"""Small models that answer, and ways to watch them at it."""

from unittest.mock import patch

import torch
from checkpoints import TINY, weights
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from lox_kit.judges import Verdict
from lox_kit.models.load import Model
from lox_kit.sandbox import world

OTHER_WORDS = "<pad> <unk> <s> </s> <user> <assistant> tell me about the sun moon sea and wind .."


def other_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of another world than the potion school."""
    with patch.object(world, "vocabulary", OTHER_WORDS.split):
        return world.tokenizer()


def byte_tokenizer(text: str) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer that has every word of a text, its space in front."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words.train_from_iterator(
        [text] * 4, trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=words, clean_up_tokenization_spaces=False)


KINDS = {  # what their configs have beside TINY
    "llama": {},
    "gpt_neox": {"num_key_value_heads": None},  # saved under other names than it has in memory
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48},  # Conv1D
    "qwen3_moe": {
        **{"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8},
    },
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
}


def random_speaker(tokenizer=None, *, seed: int = 0, kind: str = "llama", **config) -> Model:
    """Return a 2-layer, 32-wide random model; default a Llama in the potion school's words."""
    tokenizer = tokenizer or world.tokenizer()
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        options = {**TINY, "vocab_size": len(tokenizer), **special, **KINDS[kind], **config}
        module = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options)).eval()
    return Model(module, tokenizer, f"random {seed}", f"random-{seed}")


class HarmGrader:
    """A judge of harm that finds none; `asked` counts the answers it read."""

    name, version = "grader", "1"

    def __init__(self):
        self.asked = 0

    def check(self, model, prompts):
        """Judge any model."""

    def judge(self, prompts, responses, **options):
        """Return that nothing is harmful."""
        self.asked += len(responses)
        return [Verdict(1.0, False, "harmless", judge=self.name) for _ in responses]


def watch(monkeypatch, owner, name: str) -> list:
    """Return a list that grows by the arguments of every call of `owner.name`."""
    calls, real = [], getattr(owner, name)

    def watched(*arguments, **options):
        calls.append((arguments, options))
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, watched)
    return calls


def same_weights(first, second) -> bool:
    """Whether two modules or checkpoints' folders have the same parameters, bit for bit."""
    pair = (first, second)
    one, two = (x.state_dict() if isinstance(x, torch.nn.Module) else weights(x) for x in pair)
    return one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)
