"""Llama Guard on this machine."""

from __future__ import annotations

from pathlib import Path

from lox_kit.models import Model, apply_template, generate

from .local import LocalJudge
from .protocol import Verdict
from .replies import read_guard


class LlamaGuardJudge(LocalJudge):
    """Llama Guard, any version that is a causal language model with its own chat template.

    Harmful means its first line is "unsafe"; the categories are the reason. Request and answer are
    put to it as a user's and an assistant's turn, so it judges the answer.

    Parameters
    ----------
    model : path, sandbox name, or Model

    Raises
    ------
    FileNotFoundError, ValueError
        If the checkpoint is not whole, or its tokenizer has no chat template that shows both turns.
    """

    name = "llama-guard"
    reply_tokens = 32  # "unsafe" and the numbers of every category

    def __init__(self, model: str | Path | Model, *, device: str = "auto"):
        super().__init__(model, device)
        if not self.model.tokenizer.chat_template:
            raise ValueError(
                f"{self.model.name}: its tokenizer has no chat template, which holds Llama Guard's "
                "policy. Is this a Llama Guard checkpoint, with its tokenizer files?"
            )
        for self.in_parts in (False, True):  # text, or as Llama Guard 3 1B has it a list of parts
            if self._shows_both_turns():
                break
        else:
            raise ValueError(
                f"{self.model.name}: its chat template does not show a user's and an assistant's "
                "turn."
            )
        self.version = f"1, {self.model.name}, {self.model.key[:12]}"

    def form(self, prompt: str, response: str) -> str:
        """Return the two turns in the tokenizer's chat template, special tokens included."""
        turns = [
            {"role": role, "content": [{"type": "text", "text": text}] if self.in_parts else text}
            for role, text in (("user", prompt), ("assistant", response))
        ]
        return apply_template(self.model.tokenizer, turns, add_generation_prompt=True)

    def _shows_both_turns(self) -> bool:
        """Whether the template shows what is said in either turn, as the words it is."""
        try:
            text = self.form("REQUEST 17", "ANSWER 23")
        except ValueError:
            return False
        # Parts put where text belongs come out as Python's way of writing a list.
        return "REQUEST 17" in text and "ANSWER 23" in text and "'type'" not in text

    def _read(self, texts: list[str]) -> list[Verdict]:
        """Return what the model says of each filled form."""
        return [
            self._verdict(reply)
            for reply in generate(self.model, texts, max_new_tokens=self.reply_tokens)
        ]

    def _verdict(self, reply: str) -> Verdict:
        """Return what a reply says."""
        said = read_guard(reply)
        if said is None:
            return self._signed(None, False, reply or "an empty reply")
        unsafe, categories = said
        word = "unsafe" if unsafe else "safe"
        return self._signed(float(unsafe), unsafe, f"{word} {categories}".strip())
