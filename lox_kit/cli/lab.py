"""The notebooks: `lox lab`, on a copy that is the user's own, and `lox warm`, for a class."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from lox_kit.course import delivered
from lox_kit.folders import data_folder, write_whole
from lox_kit.store import Store

from . import options
from .progress import say, stages
from .values import PATH

OURS = Path(__file__).with_name("jupyter")  # JupyterLab's defaults: no news, every cell drawn


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--fresh", is_flag=True, help="Put the notebooks back as they were delivered.")
@options.device
@click.argument("notebooks", required=False, type=PATH)
@click.argument("jupyter", nargs=-1, type=click.UNPROCESSED)
def lab(fresh, notebooks, jupyter):
    """Open JupyterLab on the notebooks: `lox lab`, `lox lab FOLDER`, `lox lab -- --port 9000`.

    Without a folder it opens a copy in the user's data folder, which keeps your changes.
    Everything after `--` goes to JupyterLab, such as --port, --ip, --no-browser.
    """
    if str(notebooks or "").startswith("-"):  # click takes what follows `--` for an argument, too
        notebooks, jupyter = None, (str(notebooks), *jupyter)
    if notebooks is None:
        notebooks = copied_notebooks(fresh)
    elif fresh:
        raise ValueError(f"--fresh resets lox's own copy; {notebooks} is yours and stays.")
    if not notebooks.is_dir():
        raise FileNotFoundError(f"{notebooks}: no such folder; `lox lab` alone opens lox's own.")
    import jupyterlab  # noqa: F401 - if it is missing, fail here, in one line

    say(f"notebooks: {notebooks}", err=True)
    sys.stdout.flush()
    places = filter(None, (str(OURS), os.environ.get("JUPYTER_CONFIG_PATH")))
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(places)
    root = ["--allow-root"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    command = [sys.executable, "-m", "jupyterlab", *root, *jupyter, str(notebooks)]
    if os.name == "nt":  # where exec would leave this process, and the shell would take its place
        import subprocess

        raise SystemExit(subprocess.call(command))
    os.execv(sys.executable, command)  # a signal to this process is one to the server


def copied_notebooks(fresh: bool = False) -> Path:
    """Return the user's copy of the notebooks, completed; or made again, if it is to be fresh.

    Raises
    ------
    FileNotFoundError
        If no notebooks were installed with the package.
    """
    folder = data_folder() / "notebooks"
    for place, source in delivered().items():
        if fresh or not (folder / place).exists():
            write_whole(folder / place, source.read_bytes())
    return folder


@click.command()
@click.argument("notebooks", nargs=-1, type=PATH)
@options.out
@options.device
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
