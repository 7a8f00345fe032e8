"""What comes with the package for lessons: notebooks, their solutions, recorded results."""

from __future__ import annotations

import json
import os
import re
from importlib import metadata
from pathlib import Path

from .checking import exercise

TEACHER = "LOX_KIT_TEACHER"  # the environment variable that shows solutions
OURS = ("0*.ipynb", "course/*.ipynb", "course/*.md", "course/solutions/*.ipynb")


def delivered() -> dict[str, Path]:
    """Return the notebooks and what lies beside them by place, such as "course/1_weights.ipynb".

    Raises
    ------
    FileNotFoundError
        If neither a checkout nor a wheel has any.
    """
    top = Path(__file__).resolve().parents[2] / "notebooks"
    found = {f.relative_to(top).as_posix(): f for pattern in OURS for f in top.glob(pattern)}
    if not found:
        places = {f: str(f).partition("notebooks/") for f in metadata.files("lox-kit") or []}
        found = {at[2]: Path(f.locate()) for f, at in places.items() if "share" in at[0]}
    if not found:
        raise FileNotFoundError("no notebooks were installed with lox_kit; name a folder.")
    return dict(sorted(found.items()))


def solution(name: str) -> None:
    """Print an exercise's solution, as the notebook of solutions has it.

    Raises
    ------
    PermissionError
        If the environment variable LOX_KIT_TEACHER is not set.
    """
    exercise(name)
    if not os.environ.get(TEACHER):
        raise PermissionError(f"solutions are the teacher's: set {TEACHER}=1, or ask for a hint.")
    (file,) = (f for n, f in delivered().items() if n.startswith(f"course/solutions/{name[0]}_"))
    cells = json.loads(file.read_text("utf-8"))["cells"]
    wanted = f"answer-{name.replace('.', '-')}"
    (cell,) = (c for c in cells if c["metadata"].get("nbgrader", {}).get("grade_id") == wanted)
    print(re.sub(r"\n? *### (BEGIN|END) SOLUTION", "", "".join(cell["source"])))


def recorded(name: str) -> dict:
    """Return a result that was recorded, as plain data, and print which command made it."""
    kept = json.loads(Path(__file__).with_name("recorded.json").read_text("utf-8"))[name]
    print(f"Recorded, not computed here: {kept['command']}")
    return kept["result"]
