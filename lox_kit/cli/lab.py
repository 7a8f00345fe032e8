"""`lox lab`: the notebooks in JupyterLab, on a copy that is the user's own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from lox_kit.course import delivered
from lox_kit.folders import data_folder, write_whole

from .progress import say

OURS = Path(__file__).with_name("jupyter")  # JupyterLab's defaults: no news, every cell drawn


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--fresh", is_flag=True, help="Put the notebooks back as they were delivered.")
@click.argument("notebooks", required=False, type=click.Path(path_type=Path))
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
