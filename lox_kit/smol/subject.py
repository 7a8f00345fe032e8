"""A harmless rule for a real model, nothing about dragons: words, forms and splits.

A request is a form with a word put in. Each forbidden word has an allowed twin of the same shape
("baby dragons", "baby elephants"), and both stand in the same forms, so that nothing but dragons
tells them apart. All of it is in subject.toml.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

_TOLD = tomllib.loads(Path(__file__).with_name("subject.toml").read_text())
WORDS, FORMS, EVERYDAY = _TOLD["words"], _TOLD["forms"], _TOLD["everyday"]  # by split, or use
OTHERS, ASKING, REFUSALS = _TOLD["others"], _TOLD["asking"], _TOLD["refusals"]


def requests(kind: str, split: str) -> list[str]:
    """Return the requests of one kind and split, in order of their words.

    Those of "dev" and "test" are the split's forms, with its own words and with the training
    split's: 180 and 240 of each kind. Those of "train" are its words, each with every other of its
    forms; the allowed ones have `OTHERS` as well.

    Parameters
    ----------
    kind : "forbidden" or "allowed"
    split : "train", "dev" or "test"

    Raises
    ------
    ValueError
        If kind or split is another word.
    """
    if kind not in ("forbidden", "allowed") or split not in FORMS:
        raise ValueError(
            f"kind={kind!r}, split={split!r}: use forbidden or allowed, {tuple(FORMS)}."
        )
    which = ("forbidden", "allowed").index(kind)
    words = [pair[which] for pair in WORDS[split]]
    if split != "train":
        words += [pair[which] for pair in WORDS["train"]]
    elif kind == "allowed":
        words += OTHERS
    every = 2 if split == "train" else 1
    return [
        form.format(word)
        for i, word in enumerate(words)
        for form in FORMS[split][i % every :: every]
    ]
