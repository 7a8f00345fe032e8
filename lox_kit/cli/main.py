"""The `lox` command: one verb per capability, and one line for what goes wrong."""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import re
import signal
import sqlite3
import sys
import traceback
import warnings
from importlib import metadata

import click

from lox_kit import __version__
from lox_kit.text import one_line
from lox_kit.threads import launched

from .attacks import align, attack, data, table
from .cards import judge_card, label
from .extrapolation import adapter, apply, check, control, extrapolate, factor, spectrum
from .judging import asr, compare, rescore, utility
from .lab import lab, warm
from .plan import VERBS, announced, plan
from .progress import say
from .research import choose, controls, knowing, measure_landscape, overlaps, rank, sweep
from .values import PATH
from .worlds import all_figures, demo, plot, sandbox, smol

EPILOG = """
MODEL, BASE and ALIGNED are checkpoint folders (safetensors), hub ids (org/name,
org/name@revision), PEFT LoRA adapters (a folder, or BASE+ADAPTER), or names of the built-in
sandbox: sandbox/base, sandbox/aligned, sandbox/aligned@3 (seed 3); the real small model's are
smol/base and smol/aligned.

\b
The whole story on the sandbox:
  lox check sandbox/base sandbox/aligned
  lox factor sandbox/base sandbox/aligned -o S.safetensors
  lox spectrum S.safetensors
  lox apply S.safetensors sandbox/aligned -o lox-model -k 6 --alpha 1
  lox attack arithmetic lox-model -o attacked
  lox asr attacked
  lox demo
"""


class Teaching(click.Group):
    """A group that lists its commands in the order of use."""

    def list_commands(self, ctx):
        return list(self.commands)


SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=Teaching, epilog=EPILOG, context_settings=SETTINGS)
@click.version_option(__version__, prog_name="lox")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@click.option("--store", type=PATH, help="Folder of the results' store.")
@click.pass_context
def lox(ctx, store):
    """Find the safety subspace of an aligned language model, push further along it (LoX), and
    measure what fine-tuning does to it.
    """
    ctx.obj = store
    if launched() and ctx.invoked_subcommand not in ("attack", "align"):
        raise click.UsageError("`accelerate launch` is for attack and align alone.")


for verbs in (
    (plan, check, factor, spectrum, apply, adapter, extrapolate, control),
    (data, align, attack, asr, rescore, label, judge_card, compare, utility, rank, table),
    (sweep, choose, controls, overlaps, knowing, measure_landscape),
    (sandbox, smol, demo, all_figures, plot, lab, warm),
):
    for verb in verbs:
        lox.add_command(announced(verb) if verb.name in VERBS else verb)

EXPECTED = (ValueError, OSError, ImportError, sqlite3.Error)  # their texts say what to do
LINE = 1500  # characters of an error, about
HINTS = {  # what to do about an error, by words that the system or a library has for it
    "There is not enough memory: close other programs, or take a smaller model or batch.": (
        *("bad_alloc", "out of memory", "can't allocate", "Cannot allocate", "start new thread"),
        *("MemoryError", "failed to map segment"),
    ),
    "Make room on the disk, or write elsewhere; what was finished is kept.": (
        *("No space left", "File too large", "Disk quota", "iostream error", "unexpected pos"),
    ),
    "See who may read and write there, or choose another place.": (
        *("Read-only file system", "Permission denied"),
    ),
    "The tokenizer has tokens that the model's embedding lacks: resize it, or take the tokenizer "
    "that the model was saved with.": ("index out of range in self",),
}


class Terminated(BaseException):
    """SIGTERM: the work ends as it does on Ctrl-C."""


def _terminate(*_) -> None:
    raise Terminated


def _lost(found) -> None:
    """Raise an end once more that met code whose errors Python only prints, such as `__del__`."""
    if not issubclass(found.exc_type, Terminated | KeyboardInterrupt):
        return sys.__unraisablehook__(found)

    def again(*_) -> None:
        raise found.exc_type

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, 0.05)


class CleanRecord(logging.LogRecord):
    """A record of any library's log that does nothing to the terminal."""

    def getMessage(self) -> str:  # noqa: N802 (the library's name for it)
        return one_line(super().getMessage())


def missing_extra(module: str) -> str:
    """Return what to do about a module that is not installed: the extra of ours that brings it."""
    package = module.partition(".")[0].replace("_", "-")
    with contextlib.suppress(metadata.PackageNotFoundError):
        for text in metadata.requires("lox-kit") or []:
            if found := re.match(rf'{package}\b.*; extra == "(\w+)"', text):
                return f'not installed: pip install "lox-kit[{found[1]}]"'
    return f"not installed: pip install {package}"


def error_line(error: BaseException) -> str:
    """Return what went wrong on one line, with advice where the error alone says little."""
    text, whole, before = str(error), "", error
    while before:  # what a library says last may hide what went wrong first
        whole, before = f"{whole} {before!r}", before.__cause__ or before.__context__
    if len(text) > LINE:  # it quotes what may be of any length
        text = f"{text[: LINE - 300]} [...] {text[-300:]}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name}: {missing_extra(error.name)}"
    hint = next((h for h, words in HINTS.items() if any(word in whole for word in words)), None)
    if hint is None and isinstance(error, EXPECTED) and text:
        return text
    hint = hint or "Unexpected; `lox --debug VERB ...` shows where it was."
    return f"{': '.join(filter(None, (type(error).__name__, text.rstrip('.'))))}. {hint}"


def main() -> None:
    """Run the command; errors become one line and exit status 2, Ctrl-C 130 and SIGTERM 143."""
    signal.signal(signal.SIGTERM, _terminate)
    if hasattr(signal, "setitimer"):  # not on Windows
        sys.unraisablehook = _lost
    if "--debug" not in sys.argv:
        warnings.formatwarning = lambda message, category, *_: (
            f"{category.__name__}: {one_line(message)}\n"
        )
    logging.setLogRecordFactory(CleanRecord)
    atexit.register(gc.freeze)  # no need to collect torch's garbage at exit
    try:
        status = lox.main(prog_name="lox", standalone_mode=False)
    except SystemExit as stop:
        status = stop.code
    except click.ClickException as error:
        verb = error.ctx.command_path if getattr(error, "ctx", None) else "lox VERB"
        say(f"lox: {one_line(error.format_message())} See `{verb} --help`.", err=True)
        status = 2
    except (KeyboardInterrupt, click.Abort, Terminated) as stop:
        say("stopped; what was finished is kept.", err=True)
        status = 143 if isinstance(stop, Terminated) else 130
    except BaseException as error:  # some libraries' errors are no Exception
        if "--debug" in sys.argv:
            say(*traceback.format_exc().splitlines(), err=True)
        say(f"lox: {error_line(error)}", err=True, by_all=True)
        status = 2
    for number in (signal.SIGINT, signal.SIGTERM):  # all is written; what is left is the exit
        signal.signal(number, signal.SIG_DFL)
    sys.exit(status or 0)
