"""`lox warm`: the store of a class, filled once."""

from __future__ import annotations

import os
from pathlib import Path

import click

from lox_kit.course import delivered
from lox_kit.store import Store

from . import options
from .progress import say, stages


@click.command()
@click.argument("notebooks", nargs=-1, type=options.PATH)
@options.out
def warm(notebooks, out):
    """Run notebooks once, and keep all that they train and measure in a store for a class.

    Default: those that came with the package. Each student names it with LOX_KIT_CLASS=FOLDER, and
    what is there is read instead of made; it is never written through that name. A notebook that
    was interrupted finds again what it had finished.
    """
    Store(out).close()
    ours = (f for at, f in delivered().items() if f.suffix == ".ipynb" and "solutions" not in at)
    out, notebooks = out.resolve(), notebooks or list(ours)
    with stages() as on_stage:
        for i, notebook in enumerate(notebooks):
            on_stage(f"notebooks, {notebook.name}", i, len(notebooks))
            _run(notebook, out)
        on_stage("notebooks", len(notebooks), len(notebooks))
    say(f"kept in {out}: export LOX_KIT_CLASS={out}")


def _run(file: Path, store: Path) -> None:
    """Run a notebook with this store; what it shows is thrown away.

    Raises
    ------
    ValueError
        If a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(file, as_version=4)
    place = {"metadata": {"path": str(file.resolve().parent)}}
    own = {name: value for name, value in os.environ.items() if name != "LOX_KIT_CLASS"}
    try:
        client = NotebookClient(notebook, timeout=None, kernel_name="python3", resources=place)
        client.execute(env=own | {"LOX_KIT_STORE": str(store)})
    except CellExecutionError as error:
        raise ValueError(f"{file}: {error.ename}: {error.evalue}") from error
