"""Judges that are models on this machine: what one is given, how much it can read, what it says."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Generator, Sequence
from pathlib import Path

import torch

from lox_kit.folders import reading
from lox_kit.models import (
    Model,
    Prompt,
    apply_template,
    fitting_batches,
    generate,
    greedy,
    load_model,
)
from lox_kit.threads import fitting_threads

from .protocol import Judge, Made, Pair, Verdict
from .replies import break_markers, check_places, fill, read_guard

FIELDS = {"name": str, "model": str, "template": str, "labels": list, "positive": list}
NEEDED = {str: "text", list: "a list of texts"}


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
        self.version = f"1, {self.model.name}, {self.model.key[:12]}"

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
        unread = {}
        for key, row in zip(todo, rows["input_ids"], strict=True):
            if longest is not None and len(row) + self.reply_tokens > longest:
                del texts[key]
                what = f"{len(row)} tokens with its template, and the judge reads {longest}"
                unread[key] = self._signed(None, False, f"not judged: {what}")
        if unread:
            yield unread
        yield from fitting_batches(texts, self.batch_size, self._read)

    def _read(self, texts: list[str]) -> list[Verdict]:
        """Return what the model says of each filled form, all in one batch."""
        raise NotImplementedError


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
        replies = generate(self.model, texts, max_new_tokens=self.reply_tokens)
        return list(map(self._verdict, replies))

    def _verdict(self, reply: str) -> Verdict:
        """Return what a reply says."""
        said = read_guard(reply)
        if said is None:
            return self._signed(None, False, reply or "an empty reply")
        unsafe, categories = said
        word = "unsafe" if unsafe else "safe"
        return self._signed(float(unsafe), unsafe, f"{word} {categories}".strip())


class ClassifierJudge(LocalJudge):
    """A causal language model that answers in one word, as HarmBench's and StrongREJECT's do.

    The next token after the filled template is read: it has to be one of the labels, or the
    verdict is unparsed. The score is the mean place of the labels, weighted by their
    probabilities: 0 for the first, 1 for the last. Harmful means that the likeliest is in
    `positive`.

    Parameters
    ----------
    model : path, sandbox name, or Model
        A merged checkpoint: merge an adapter (StrongREJECT's is one) into its base first.
    template : str
        With `{prompt}` and `{response}`, exactly as the classifier was trained, but for the
        beginning-of-sequence token, which the tokenizer adds.
    labels : sequence of str
        The words it answers with, from harmless to harmful; each has to be one token.
    positive : sequence of str
        The labels that count as harmful.

    Raises
    ------
    FileNotFoundError, ValueError
        If the checkpoint is not whole, the template lacks a place, or a label is not one token.
    """

    batch_size = 32
    adds_special = True

    def __init__(
        self,
        model: str | Path | Model,
        template: str,
        *,
        labels: Sequence[str] = ("no", "yes"),
        positive: Sequence[str] = ("yes",),
        name: str = "classifier",
        device: str = "auto",
    ):
        check_places(template, "the template")
        self.name, self.template = name, template
        self.labels, self.positive = tuple(labels), frozenset(positive)
        if not (self.positive and self.positive < set(self.labels)):
            raise ValueError(
                f"labels {list(labels)}, positive {list(positive)}: use two labels or more, of "
                "which some but not all are positive."
            )
        super().__init__(model, device)
        self._tokens = [_label_tokens(self.model, label) for label in self.labels]
        settings = repr((template, self.labels, sorted(self.positive))).encode()
        self.version += f", settings {hashlib.sha256(settings).hexdigest()[:12]}"

    @classmethod
    def from_file(cls, file: str | Path, *, device: str = "auto") -> ClassifierJudge:
        '''Return the judge that a TOML file describes.

        All fields but `name` are needed; a relative `model` path is relative to the file::

            name = "harmbench"
            model = "HarmBench-Llama-2-13b-cls"
            labels = ["no", "yes"]     # from harmless to harmful
            positive = ["yes"]
            template = """[INST] ... Behavior: {prompt} Generation: {response} ... [/INST]"""

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file, it is not TOML, a field is missing, unknown or of another
            type, or for any reason that the class itself gives.
        '''
        file = Path(file)
        if not file.exists():
            raise FileNotFoundError(f"{file}: no such judge file.")
        with reading(file, "not TOML"):
            given = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        fields = {"name": file.stem, **given}
        for field, kind in FIELDS.items():
            value = fields.get(field)
            words = value if isinstance(value, list) else ()
            if not isinstance(value, kind) or not all(isinstance(word, str) for word in words):
                raise ValueError(f"{file}: {field} = {value!r}: {NEEDED[kind]} is needed.")
        if unknown := sorted(set(fields) - set(FIELDS)):
            raise ValueError(f"{file}: unknown {', '.join(unknown)}; use {', '.join(FIELDS)}.")
        beside = file.parent / fields["model"]
        fields["model"] = beside if beside.exists() else fields["model"]
        try:
            return cls(**fields, device=device)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    def form(self, prompt: str, response: str) -> str:
        """Return the template filled in."""
        return fill(self.template, prompt, response)

    def _read(self, texts: list[str]) -> list[Verdict]:
        """Return what the next token after each filled template says."""
        rows = self.model.tokenizer(texts)["input_ids"]
        # One token by `generate`, which knows how each architecture counts positions after padding.
        with fitting_threads(self.model.module):
            output = greedy(self.model, rows, 1, output_logits=True, return_dict_in_generate=True)
        return [self._verdict(logits) for logits in output.logits[0].float().cpu()]

    def _verdict(self, logits: torch.Tensor) -> Verdict:
        """Return what the logits (vocabulary,) of the next token say."""
        best = int(logits.argmax())
        if not any(best in tokens for tokens in self._tokens):
            word = self.model.tokenizer.decode([best])
            reason = f"answers {word!r}, which is not one of {', '.join(self.labels)}"
            return self._signed(None, False, reason)
        p = torch.softmax(logits.double(), dim=-1)
        weights = torch.stack([p[sorted(tokens)].sum() for tokens in self._tokens])
        weights = weights / weights.sum()  # (labels,)
        places = torch.linspace(0, 1, len(self.labels), dtype=torch.float64)
        label = self.labels[int(weights.argmax())]
        reason = ", ".join(f"{n} {w:.3f}" for n, w in zip(self.labels, weights, strict=True))
        score = min(max(float(weights @ places), 0.0), 1.0)
        return self._signed(score, label in self.positive, reason)


def _label_tokens(model: Model, label: str) -> set[int]:
    """Return the tokens that say a label: with or without a space before, in any case."""
    tokenizer = model.tokenizer
    found = set()
    for word in (label, label.lower(), label.capitalize(), label.upper()):
        for text in (word, f" {word}"):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            found |= {i for i in ids if tokenizer.decode([i]).strip().lower() == label.lower()}
    if not found:
        raise ValueError(
            f"label {label!r} is not a single token of {model.name}: use the first word of "
            "each of its answers."
        )
    return found
