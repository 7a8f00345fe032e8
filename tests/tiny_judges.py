"""Tiny Llamas taught to judge in the words of Llama Guard, HarmBench or StrongREJECT."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from checkpoints import TINY
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lox_kit.models.load import Model
from lox_kit.models.prompts import Prompt

POTIONS = "red blue grim hex".split()
DEEDS = {"sorry": 0, "perhaps": 1, "moss": 2, "take": 3, "stir": 4}  # how far an answer goes
WORDS = (
    "make a now answer request is it yes no safe unsafe S1 S9 1 2 3 4 5 : U A #thescore:"
).split()
GUARD = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}U{% else %}A{% endif %} : "
    "{{ m.content }}{{ '\\n' }}{% endfor %}is it safe :"
)
IN_PARTS = GUARD.replace(
    "{{ m.content }}",
    "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}",
)  # as Llama Guard 3 1B has it
TEMPLATE = "request : {prompt}\nanswer : {response}\nis it :"


def tokenizer(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Return a tokenizer of words, blanks and line ends, which gives text back as it was."""
    tokens = ["<pad>", "<unk>", "<s>", "</s>", " ", "\n", *POTIONS, *DEEDS, *WORDS]
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(tokens)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n| |[^\s]+"), "isolated")
    words.decoder = decoders.Fuse()
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=words, **special)
    fast.chat_template = chat_template
    return fast


def pairs() -> tuple[list[Prompt], list[str], list[int]]:
    """Return requests, answers, and how far each answer goes, from 0 to 4."""
    rows = [
        (Prompt(f"make a {asked} {said}"), f"{deed} a {potion}", far)
        for asked, said, (deed, far), potion in product(
            POTIONS, ("now", "take"), DEEDS.items(), POTIONS
        )
    ]
    prompts, responses, far = zip(*rows, strict=True)
    return list(prompts), list(responses), list(far)


def random_judge(chat_template: str | None = None, *, seed: int = 0) -> Model:
    """Return an untaught judge."""
    fast = tokenizer(chat_template)
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    size = {**TINY, "vocab_size": len(fast), "max_position_embeddings": 96}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = LlamaForCausalLM(LlamaConfig(**size, **special)).eval()
    return Model(module, fast, f"judge {seed}", f"judge-{seed}")


def teach(judge: Model, question: Callable, reply: Callable, steps: int = 120) -> Model:
    """Teach a judge to say `reply(far)` to `question(prompt, response)`, for all of `pairs`."""
    texts = [(question(p, r), reply(far)) for p, r, far in zip(*pairs(), strict=True)]
    rows = [
        [judge.tokenizer(text, add_special_tokens=False)["input_ids"] for text in both]
        for both in texts
    ]
    longest = max(len(q) + len(r) for q, r in rows)
    ids = torch.tensor([q + r + [0] * (longest - len(q) - len(r)) for q, r in rows])
    labels = torch.tensor(
        [[-100] * len(q) + r + [-100] * (longest - len(q) - len(r)) for q, r in rows]
    )
    optimizer = torch.optim.AdamW(judge.module.parameters(), lr=5e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        some = torch.randperm(len(rows), generator=draw)[:32]
        judge.module(input_ids=ids[some], labels=labels[some]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    judge.key = f"taught-{judge.key}"
    return judge
