"""Judges that are models on this machine: what one is given, and how much it can read."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from lox_kit.models import Model, Prompt, fitting_batches, load_model

from .protocol import Judge, Made, Pair, Verdict
from .replies import break_markers


class LocalJudge(Judge):
    """A causal language model on this machine that reads a request and its answer.

    What is too long for the model gets an unparsed verdict that says so.

    Parameters
    ----------
    model : path, sandbox name, or Model
    """

    reply_tokens = 1  # the longest reply
    batch_size = 128  # texts read at once
    adds_special = False  # whether the tokenizer adds special tokens to what `form` returns

    def __init__(self, model: str | Path | Model, device: str):
        self.model = model if isinstance(model, Model) else load_model(model, device=device)

    def question(self, prompt: Prompt, response: str) -> str:
        """Return what the model is given, with no special token in the judged text."""
        tokenizer = self.model.tokenizer
        added = tokenizer.added_tokens_decoder.values()
        special = {*tokenizer.all_special_tokens, *(str(t) for t in added if t.special)}
        return self.form(*(break_markers(text, special) for text in (prompt.text, response)))

    def form(self, prompt: str, response: str) -> str:
        """Return a request and its answer in the words this model was trained on."""
        raise NotImplementedError

    def _ask(self, todo: dict[str, Pair]) -> Generator[Made]:
        """Yield verdicts, a batch of like length at a time."""
        texts = {key: self.question(*pair) for key, pair in todo.items()}
        rows = self.model.tokenizer(list(texts.values()), add_special_tokens=self.adds_special)
        longest = getattr(self.model.module.config, "max_position_embeddings", None)
        long = {}
        for key, row in zip(todo, rows["input_ids"], strict=True):
            if longest is not None and len(row) + self.reply_tokens > longest:
                what = f"{len(row)} tokens with its template, and the judge reads {longest}"
                long[key] = self._signed(None, False, f"not judged: {what}")
                del texts[key]
        if long:
            yield long
        yield from fitting_batches(texts, self.batch_size, self._read)

    def _read(self, texts: list[str]) -> list[Verdict]:
        """Return what the model says of each filled form, all in one batch."""
        raise NotImplementedError
