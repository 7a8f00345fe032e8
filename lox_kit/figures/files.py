"""Figures as files that do not change by themselves.

Every figure is drawn from plain data that `save_figure` writes beside it as JSON, and `redraw`
makes it again from that file alone.
"""

from __future__ import annotations

import datetime
import io
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import matplotlib.pyplot as plt

from lox_kit import __version__, figures
from lox_kit.folders import reading, write_whole

from .canvas import layers
from .numbers import frame

DRAW = {
    kind: getattr(figures, f"figure_{kind}")
    for kind in """
        spectrum energy_map explorer defences alpha frontier attack_lab attack_table epochs
        retained r_bars pipeline overlaps rank_curve rank_and_r judges interval landscape_map
        landscape_3d flatness sweep choice
    """.split()
}
VERSIONS = ("lox_kit", "torch", "transformers", "numpy", "matplotlib")
_MAKER = f"lox_kit {__version__}"
METADATA = {  # no dates: an unchanged figure is an unchanged file
    "pdf": {"CreationDate": None, "Creator": _MAKER},
    "svg": {"Date": None, "Creator": _MAKER},
    "png": {"Software": _MAKER},
}


def save_figure(
    data: dict,
    name: str,
    folder: str | Path = "figures",
    *,
    width: float | str | None = None,
    style: str | Path | dict = "paper",
    kinds: Iterable[str] = tuple(METADATA),
) -> list[Path]:
    """Draw a figure from its data and write JSON, CSV, PDF, SVG and PNG; return their paths.

    The CSV has what was measured. The JSON has the data, and under "made" the command, versions,
    commit and date that made them: they stay while the data stay, so the same data give the same
    bytes.

    Parameters
    ----------
    width : float or str, optional
        Inches, or a venue of `WIDTHS`; the type keeps its size. By default a figure has its own.
    style : "paper", "talk", or a style of your own
        See `figures.use`.
    kinds : of "pdf", "svg", "png"

    Raises
    ------
    ValueError
        If the data do not say which figure they are, or there is no such width.
    """
    pages = _pages(data, kinds, width, style)
    made = _made(data, Path(folder, f"{name}.json"))
    data = {k: v for k, v in data.items() if k != "made"} | ({"made": made} if made else {})
    table = frame(data).to_csv(index=False, lineterminator="\n")
    pages = {"json": json.dumps(data, indent=1) + "\n", "csv": table, **pages}
    return [write_whole(Path(folder, f"{name}.{kind}"), page) for kind, page in pages.items()]


def _made(data: dict, file: Path) -> dict | None:
    """Return what made these data: what they, or the same data in this file, say; else this run.

    None where that is not known.
    """
    if "made" in data:
        return data["made"]
    if file.is_file() and holds(file, data):
        return json.loads(file.read_text()).get("made")
    return made_now()


def holds(file: Path, data: dict) -> bool:
    """Whether a figure's JSON has these data, whatever made them."""
    with suppress(ValueError, TypeError, RecursionError):  # it is something else
        kept, given = json.loads(file.read_text()), json.loads(json.dumps(data))
        return {**kept, "made": None} == {**given, "made": None}
    return False


def made_now() -> dict[str, object]:
    """Return the command that runs, the versions it runs on, the checkout's commit and the date."""
    root, (name, *arguments) = Path(__file__).parents[2], sys.argv
    command = shlex.join([Path(name).name, *arguments]) if Path(name).name == "lox" else None
    command = command and command.replace(str(Path.home()), "~")
    versions = {package: metadata.version(package) for package in VERSIONS}
    commit = None
    if (root / ".git").exists():
        with suppress(OSError):
            asked = ["git", "-C", root, "describe", "--always", "--dirty"]
            commit = subprocess.run(asked, capture_output=True, text=True).stdout.strip() or None
    date = datetime.date.today().isoformat()
    return {"command": command, "versions": versions, "commit": commit, "date": date}


def draw(data: dict, file: str | Path) -> None:
    """Draw a figure from its data into a .pdf, .svg or .png.

    Raises
    ------
    ValueError
        If the data do not say which figure they are, or the file is of another kind.
    """
    kind = Path(file).suffix.removeprefix(".").lower()
    write_whole(file, _pages(data, [kind])[kind])


def _pages(data: dict, kinds: Iterable[str], width=None, style="paper") -> dict[str, bytes]:
    """Return a figure drawn from its data, as the content of a file of each kind."""
    if data.get("figure") not in DRAW:
        raise ValueError(f"figure={data.get('figure')!r}: use one of {', '.join(DRAW)}.")
    if unknown := [kind for kind in kinds if kind not in METADATA]:
        raise ValueError(f"{unknown[0]!r}: figures are written as {', '.join(METADATA)}.")
    pages = {kind: io.BytesIO() for kind in kinds}
    fig = DRAW[data["figure"]](data, width=width, style=style)
    with plt.style.context(layers(style)):
        for kind, page in pages.items():
            fig.savefig(page, format=kind, metadata=METADATA[kind])
    return {kind: page.getvalue() for kind, page in pages.items()}


def redraw(file: str | Path, **look) -> list[Path]:
    """Draw a figure again from the JSON that `save_figure` left beside it.

    Parameters
    ----------
    look
        As `save_figure` takes them: width, style, kinds.
    """
    file = Path(file)
    with reading(file, "cannot be drawn"):
        data = {"made": None, **json.loads(file.read_text())}  # None: not by this run
        return save_figure(data, file.stem, file.parent, **look)
