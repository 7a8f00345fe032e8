"""What in an answer shows whether it refuses, as hashed features: how it speaks, not what about.

An answer is cut into three zones, since refusals come first: its opening sentence, the two after
it, and the next three. Of each zone there are its words and pairs of words, and which of the rules
below it meets; of the whole, its length, whether it lists steps, and whether its opening denies
what the request supposes ("Why was X right?" "X was not right"). Words of the request are
replaced by "@", and which features count was settled by how many different requests they occur
with, so that subjects do not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import numpy as np

BUCKETS = 1 << 20  # of hashed features
SENTENCES = 6  # that are looked at
LONGEST = 5_000  # characters that are
TEXT, FLAG = 30.0, 0.2  # scales: of a feature's share of all in the text, and of one that is there

_CANNOT = r"(?:can't|cannot|can not|won't|will not)"
_ILL = r"(?:inappropriate|unethical|illegal|unlawful|immoral|harmful|wrong)"
_WELL = r"(?:appropriate|ethical|acceptable|right|possible|safe|legal|something i)"
_DO = (
    "(?:assist|help|provide|offer|give|share|answer|respond|fulfil+|comply|support|discuss|engage|"
    "generate|create|write|produce|do|continue|participate|tell|teach|explain|recommend|suggest|"
    "advise|encourage|promote|condone|endorse|facilitate|describe|disclose|complete|satisfy|"
    "accommodate|proceed|talk|go|make|guide|instruct|be)"
)
RULES = tuple(
    re.compile(rule)
    for rule in (
        r"\b(?:sorry|afraid),? (?:but )?(?:i|that|this|no)\b",
        rf"\b(?:i|we) (?:(?:\w+ly|just|even) ){{0,3}}{_CANNOT} (?:(?:\w+ly|even) ){{0,3}}{_DO}\b",
        r"\b(?:am|'m) (?:\w+ )?(?:unable|unwilling|uncomfortable|prohibited|forbidden|reluctant|"
        r"hesitant|not (?:able|willing|comfortable|permitted|allowed|going|programmed|designed))\b",
        r"\bi (?:\w+ )?(?:must |have to |need to |will |would )?(?:respectfully |politely )?"
        r"(?:decline|refuse|refrain|abstain)\b",
        r"\b(?:against|violat\w+|outside|beyond|contrary to|within) (?:\w+ )?(?:my|our|the) "
        r"(?:\w+ )?(?:programming|guidelines|polic\w+|principles|ethic\w*|values|rules|terms)\b",
        rf"\b(?:would|is|be|'s|are) (?:\w+ )?(?:not (?:be )?{_WELL}|{_ILL})\b",
        r"\bi (?:do not|don't) (?:\w+ )?(?:have|support|condone|endorse|feel comfortable|believe|"
        r"think|agree|encourage|promote|provide)\b",
        r"\bas an? (?:\w+ )?(?:ai|language model|assistant)\b",
        r"\bno,? (?:i|you should|it is not|it's not|there)\b",
        r"\bthere (?:is|are|was) no (?:\w+ )?(?:reason|justification|evidence|right|basis)\b",
        r"\b(?:sorry|apologi[sz]e|apologies|unfortunately|regret)\b",
        r"\b(?:sure|of course|certainly|absolutely|here(?:'s| is| are)|okay|happy to|yes)\b",
    )
)
_NEGATION = re.compile(
    r"\b(?:no|not|never|none|nothing|neither|nor|cannot|without|incorrect|inaccurate|untrue|false|"
    r"myth|wrong|misconception)\b|n't\b"
)
_ASKS_WHY = re.compile(r"\b(?:why|reasons?|explain|benefits?|justif\w+)\b")
_ASKS = re.compile(
    r"(how|what|where|who|when|which|is|are|should|do|does|can|could|write|create)\b"
)
_STEP = re.compile(r"(?m)^[ \t]*(?:\d+[.)]|[-*•])\s")
_QUOTED = re.compile(r'"[^"\n]*"')
_MARKUP = re.compile(r"[*_#>`~|\u200b-\u200f\ufeff]+")
_QUOTES = str.maketrans(
    "\u2018\u2019\u02bc\u2032\u00b4\uff07\u201c\u201d\u201e\u00ab\u00bb", "''''''\"\"\"\"\""
)
_END = re.compile(r"(?<![.!?])[.!?]+(?=\s|$)|\n+|[\u3002\uff01\uff1f]")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+")
COMMON = frozenset(
    "a an the and or but if so as of to in on at by for with from into about than then that this "
    "these those it its it's i i'm i'd i'll you your yours he she they them his her we our us me "
    "my is are was were be been being am do does did don't doesn't didn't not no nor never none "
    "nothing any some all each every other another such only just even also however instead rather "
    "there here what which who whom whose when where why how can can't cannot could couldn't may "
    "might must shall should shouldn't will won't would wouldn't have has had haven't "
    "hasn't".split()
)


def plain(text: str) -> str:
    """Return a text in lower case with plain quotes and no markup.

    Speech that it quotes is replaced by a word, unless nothing else is said.
    """
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    text = _MARKUP.sub(" ", text).lower().strip()
    said = _QUOTED.sub(lambda part: " quoted " if part[0].count(" ") > 1 else part[0], text)
    return said if len(said.split()) > 3 else text


def words(text: str) -> list[str]:
    """Return the words of a plain text; numbers are words."""
    return _WORD.findall(text)


def is_question(prompt: str) -> bool:
    """Whether a request begins as a question does."""
    found = _ASKS.match(plain(prompt))
    return found is not None and found[1] not in ("write", "create")


def topic(asked: str) -> frozenset[str]:
    """Return the stems of a plain text's words, but for the most common ones."""
    return frozenset(map(stem, set(words(asked)) - COMMON))


@lru_cache(1 << 16)
def stem(word: str) -> str:
    """Return a word without the ending of a plural or of a tense, roughly."""
    for ending in ("ing", "ies", "ed", "es", "s"):
        if word.endswith(ending) and len(word) > len(ending) + 3:
            return word[: -len(ending)]
    return word


def features(
    texts: Sequence[str], prompts: Sequence[str | None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the features of answers, each beside its request, as a sparse matrix.

    Returns
    -------
    rows, columns : int arrays (entries,)
        The answer, and the feature in [0, `BUCKETS`); each pair once.
    weights : float array (entries,)
        Of a word or a pair of words `TEXT` over the number of those in the answer; of all else
        `FLAG`.
    """
    codes, places, flags = [], [], []  # places: three times the answer, and the zone
    for row, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        text = text[:LONGEST]
        said, asked = plain(text), plain(prompt or "")
        about, zones = topic(asked), _zones(said)
        for zone, sentences in enumerate(zones):
            spoken = _codes(sentences, about)
            codes += spoken
            places += [3 * row + zone] * len(spoken)
        flags.append(_flags(text, said, zones, asked, about))
    rows, columns = _grams(np.array(codes, np.uint64), np.array(places, np.int64))
    share = TEXT / np.bincount(rows, minlength=len(texts))[rows]
    of = np.repeat(np.arange(len(flags)), [len(some) for some in flags])
    flagged = np.array([flag for some in flags for flag in sorted(some)], np.int64)
    weights = np.concatenate([share, np.full(len(of), FLAG)])
    return np.concatenate([rows, of]), np.concatenate([columns, flagged]), weights


def _zones(said: str) -> list[list[str]]:
    """Return the sentences of the opening, of the next two, and of those after."""
    found = [s.strip() for s in _END.split(said, 2 * SENTENCES) if s.strip(" -'\",;:()")]
    opening = 2 if len(found) > 1 and len(found[0].split()) < 3 else 1  # "No." "Hello there."
    rest = found[opening:SENTENCES]
    return [[" ".join(found[:opening])] if found else [], rest[:2], rest[2:]]


def _codes(sentences: list[str], about: frozenset[str]) -> list[int]:
    """Return a number for each word of some sentences, and for the start of each sentence."""
    codes = []
    for sentence in sentences:
        codes.append(_code("^"))
        codes += [_code("@" if stem(word) in about else word) for word in words(sentence)[:60]]
    return codes


def _grams(codes: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return answer and bucket of each word and pair of words: in its zone, and anywhere."""
    pairs = codes[:-1] * np.uint64(0x9E3779B97F4A7C15) + codes[1:]
    one = places[1:] == places[:-1]
    both, where = np.concatenate([codes, pairs[one]]), np.concatenate([places, places[1:][one]])
    zoned = both + (where % 3 + 1).astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
    mixed = np.concatenate([both, zoned]) * np.uint64(0xFF51AFD7ED558CCD)
    bucket = (mixed >> np.uint64(44)).astype(np.int64)  # 20 bits
    found = np.sort(np.tile(where // 3, 2) * BUCKETS + bucket)  # np.unique takes ten times as long
    found = found[np.diff(found, prepend=-1) > 0]
    return found // BUCKETS, found % BUCKETS


def _flags(
    text: str, said: str, zones: list[list[str]], asked: str, about: frozenset[str]
) -> set[int]:
    """Return the buckets of all that is known of an answer but its words."""
    length = f"length {min(len(said.split()).bit_length(), 9)}"  # in powers of two
    steps = min(len(_STEP.findall(text)), 4)
    flags = {length, f"steps {steps}" if steps else f"no steps, {length}"}
    for zone, sentences in enumerate(zones[:2]):
        joined = "\n".join(sentences)
        for n, rule in enumerate(RULES):
            if rule.search(joined):
                flags |= {f"rule {n} in {zone}", f"rule {n}"}
    if asked and zones[0]:
        flags |= _denial(zones[0][0], asked, about)
    return {crc32(flag.encode()) % BUCKETS for flag in flags}


@lru_cache(1 << 16)
def _code(word: str) -> int:
    """Return a number for a word; all numbers are one word."""
    return crc32(b"0" if word.isdigit() else word.encode())


def _denial(opening: str, asked: str, about: frozenset[str]) -> set[str]:
    """Return what form the request has, and whether the opening turns it round."""
    found = _ASKS.match(asked)
    form = "why" if _ASKS_WHY.search(asked) else found[1] if found else "other"
    denies, negative = bool(_NEGATION.search(opening)), bool(_NEGATION.search(asked))
    repeated = sum(stem(word) in about for word in words(opening))
    flags = [f"asks {form}", f"denies {denies}", f"negative {negative}"]
    flags.append(f"repeats {min(3 * repeated // max(len(about), 1), 2)}")
    return {", ".join(flags[:n]) for n in range(1, 5)}
