"""What the values of `lox`'s options are, and how they are read."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import click

from lox_kit import measures

PATH = click.Path(path_type=Path)
COUNT = click.IntRange(1)


class Commas(click.ParamType):
    """Values separated by commas."""

    name = "list"

    def __init__(self, of: click.ParamType):
        self.of = of

    def convert(self, value, param, ctx):
        """Return them as a list."""
        return [self.of.convert(part.strip(), param, ctx) for part in value.split(",")]


class NumberOr(click.ParamType):
    """A whole number, or one word; with `share` also a share, such as 90%."""

    name = "integer"

    def __init__(self, word: str, *, share: bool = False):
        self.word, self.share = word, share

    def convert(self, value, param, ctx):
        """Return the number, the word, or a share as a float."""
        if self.share and str(value).endswith("%"):
            return click.FLOAT.convert(value[:-1], param, ctx) / 100
        return value if value == self.word else click.INT.convert(value, param, ctx)


class Fields(click.ParamType):
    """NAME=VALUE, several separated by commas: values of JSON, or text; none is None."""

    name = "name=value,..."

    def convert(self, value, param, ctx):
        """Return the values by name."""
        found = {}
        for part in re.split(r",(?=\s*\w+=)", value):
            field, equals, text = part.strip().partition("=")
            if not equals or not field or not text:
                self.fail(f"{part!r}: write NAME=VALUE, such as seed=none.", param, ctx)
            found[field] = self.plain(text, param, ctx)
        return found

    def plain(self, text, param, ctx):
        """Return what one value means."""
        words = {"true": True, "false": False, "none": None}
        if text.lower() in words:
            return words[text.lower()]
        for read in (json.loads, float):  # .5 is no JSON
            with suppress(ValueError):
                return read(text)
        if text[0] in "{[":
            self.fail(f"{text!r} is no JSON.", param, ctx)
        return text


class World(click.ParamType):
    """A built-in world, or the TOML file of one's own."""

    name = "[sandbox|smol|FILE.toml]"

    def convert(self, value, param, ctx):
        """Return the name, or the file."""
        if value in measures.WORLDS or (value.endswith(".toml") and Path(value).is_file()):
            return value
        self.fail(f"{value!r}: use {', '.join(measures.WORLDS)}, or a .toml file.", param, ctx)


NAMES, NUMBERS = Commas(click.STRING), Commas(click.INT)
