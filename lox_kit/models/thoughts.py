"""The thought that a reasoning model writes before its answer: what it is cut off by."""

from __future__ import annotations

import re

_OPENING = (
    r"<(?:seed:)?think(?:ing)?>|<thought>|<reasoning>|\[THINK\]|<\|START_THINKING\|>|"
    r"<\|begin_of_thought\|>|◁think▷|<\|channel>thought"
)
_CLOSING = (
    r"</(?:seed:)?think(?:ing)?>|</thought>|</reasoning>|\[/THINK\]|<\|END_THINKING\|>|"
    r"<\|end_of_thought\|>|◁/think▷|<channel\|>"
)
_CHANNEL = r"<\|channel\|>(?:analysis|commentary)<\|message\|>"  # of gpt-oss, which names each part
_FINAL = r"<\|channel\|>final<\|message\|>|\Aanalysis(?s:.*?)assistantfinal"
_BARE = r"\A(?-i:analysis(?=(?:We|The|User|I|Need)\b))"  # the same, its special tokens left out
THOUGHT_TOKENS = (  # marks, and parts of marks, that are special tokens of some tokenizers
    "<think>", "</think>", "[THINK]", "[/THINK]", "<|START_THINKING|>", "<|END_THINKING|>",
    "<|channel|>", "<|message|>", "<|begin_of_thought|>", "<|end_of_thought|>", "◁think▷",
    "◁/think▷", "<|channel>", "<channel|>",
)  # fmt: skip
_OPEN = re.compile(f"{_OPENING}|{_CHANNEL}|{_BARE}", re.IGNORECASE)
_CLOSE = re.compile(f"{_CLOSING}|{_FINAL}", re.IGNORECASE)
_OPEN_AT_END = re.compile(rf"(?:{_OPENING}|{_CHANNEL})(?=\s*\Z)", re.IGNORECASE)


def split_thought(text: str) -> tuple[str, str | None]:
    """Return the thought and the answer of what a reasoning model wrote.

    All up to the last closing mark is thought, whether it opens with a mark or, as after a chat
    template that has opened it, does not. The answer is None if the thought was not finished.
    """
    end = max((mark.end() for mark in _CLOSE.finditer(text)), default=0)
    opened = _OPEN.search(text, end)
    if opened is None:
        return text[:end], text[end:]
    if before := text[end : opened.start()].strip():  # an answer that goes on to think
        return text[opened.start() :], before
    return text, None


def opens_thought(text: str) -> str:
    """Return the mark with which a rendered prompt leaves a thought open, or an empty string."""
    found = _OPEN_AT_END.search(text)
    return found[0] if found else ""
