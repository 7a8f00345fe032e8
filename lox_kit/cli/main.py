"""The `lox` command: one verb per capability, each importing what it needs when it is called."""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import re
import sqlite3
import sys
import traceback
import warnings
from pathlib import Path

import click

from lox_kit import __version__
from lox_kit.text import one_line

from .attacks import align, attack, data, table
from .extrapolation import adapter, apply, check, extrapolate, factor, spectrum
from .judging import asr, rank, rescore
from .lab import lab
from .landscape import landscape
from .options import as_json, say, wholes
from .utility import utility

EPILOG = """
MODEL, BASE and ALIGNED are checkpoint folders (safetensors), hub ids (org/name,
org/name@revision), PEFT LoRA adapters (a folder, or BASE+ADAPTER), or names of the built-in
sandbox: sandbox/base, sandbox/aligned, sandbox/aligned@3 (seed 3).

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
    """A group whose commands stand in the order in which one uses them."""

    def list_commands(self, ctx):
        return list(self.commands)


@click.group(cls=Teaching, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lox")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("--store", type=click.Path(path_type=Path), help="Folder of the results' store.")
@click.pass_context
def lox(ctx, debug, store):
    """Find the safety subspace of an aligned language model, push further along it (LoX), and
    measure what fine-tuning does to it.
    """
    ctx.obj = {"debug": debug, "store": store}


for verb in (check, factor, spectrum, apply, adapter, extrapolate):
    lox.add_command(verb)
for verb in (data, align, attack, asr, rescore, utility, rank, table, landscape):
    lox.add_command(verb)


# --- the sandbox, the demo, the lab -----------------------------------------------------------


@lox.group()
def sandbox():
    """The family of tiny models in a made-up world."""


@sandbox.command("build")
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Default: the user's cache.")
def sandbox_build(seed, out):
    """Build base and aligned of one seed from scratch; minutes on a laptop CPU."""
    from lox_kit.studies import build

    from .progress import stages

    with stages() as on_stage:
        folder = build(seed, out, on_stage=on_stage)
    say(str(folder))


@lox.command()
@click.option("--seeds", default="0", show_default=True, help="Such as 0,1,2,3.")
@click.option(
    "--build", "from_scratch", is_flag=True, help="Build seed 0 instead of the committed."
)
@click.option(
    "-o", "--out", default="figures/demo", show_default=True, type=click.Path(path_type=Path)
)
@as_json
@click.pass_obj
def demo(obj, seeds, from_scratch, out, as_json):
    """The whole story on the sandbox: factor, LoX and controls, attack, measure, plot."""
    from lox_kit.reports import print_table, run_demo
    from lox_kit.store import Store

    from .progress import stages

    wanted = wholes("--seeds", seeds, "0,1,2")
    with Store(obj["store"]) as store, stages() as on_stage:
        found = run_demo(wanted, out, from_scratch=from_scratch, store=store, on_stage=on_stage)
    if as_json:
        say(found.entries().to_json(orient="records"))
        return
    print_table(found)
    say(f"figures and numbers: {out}")


lox.add_command(lab)

EXPECTED = (ValueError, OSError, ImportError, sqlite3.Error)  # their texts say what to do
FULL = ("No space left", "File too large", "Disk quota")
MEMORY = ("bad_alloc", "out of memory", "can't allocate", "Cannot allocate", "start new thread")


class CleanRecord(logging.LogRecord):
    """A record of any library's log that does nothing to the terminal."""

    def getMessage(self) -> str:  # noqa: N802 (the library's name for it)
        return one_line(super().getMessage())


def missing_extra(module: str) -> str:
    """Return what to do about a module that is not installed: the extra of ours that brings it."""
    from importlib import metadata

    package = module.partition(".")[0].replace("_", "-")
    with contextlib.suppress(metadata.PackageNotFoundError):
        for text in metadata.requires("lox-kit") or []:
            if found := re.match(rf'{package}\b.*; extra == "(\w+)"', text):
                return f'not installed: pip install "lox-kit[{found[1]}]"'
    return f"not installed: pip install {package}"


def error_line(error: BaseException) -> str:
    """Return what went wrong, on one line; where its text may say little, also what to do."""
    text = str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name}: {missing_extra(error.name)}"
    if isinstance(error, MemoryError) or any(words in text for words in MEMORY):
        hint = "There is not enough memory: close other programs, or take a smaller model or batch."
    elif any(words in text for words in FULL):
        hint = "Make room on the disk, or write elsewhere; what was finished is kept."
    elif isinstance(error, EXPECTED) and text:
        return text
    else:
        hint = "Unexpected; `lox --debug VERB ...` shows where it was."
    return f"{': '.join(filter(None, (type(error).__name__, text.rstrip('.'))))}. {hint}"


def main() -> None:
    """Run the command; errors become one line and exit status 2."""
    as_before = warnings.formatwarning
    if "--debug" not in sys.argv:
        warnings.formatwarning = lambda message, category, *_: (
            f"{category.__name__}: {one_line(message)}\n"
        )
    logging.setLogRecordFactory(CleanRecord)
    atexit.register(gc.freeze)  # a program that ends need not look for garbage in all of torch
    try:
        status = lox.main(standalone_mode=False)
    except SystemExit as stop:
        status = stop.code
    except click.exceptions.Exit as stop:
        status = stop.exit_code
    except click.ClickException as error:
        verb = error.ctx.command_path if getattr(error, "ctx", None) else "lox VERB"
        say(f"lox: {one_line(error.format_message())} See `{verb} --help`.", err=True)
        status = 2
    except (KeyboardInterrupt, click.Abort):
        say("stopped; what was finished is kept.", err=True)
        status = 130
    except BaseException as error:  # some libraries' errors are no Exception
        if "--debug" in sys.argv:
            say(*traceback.format_exc().splitlines(), err=True)
        say(f"lox: {error_line(error)}", err=True)
        status = 2
    finally:
        warnings.formatwarning = as_before
    sys.exit(status or 0)
