"""Check an exercise by its properties, give a hint, show a solution, and keep what was passed.

The exercises are in lesson1.toml to lesson5.toml: code that a check begins with (`given`), what
holds of a right answer (`holds`, an expression), and what is said where it does not (`says`). Their
notebooks, solutions and recorded results come with the package.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

from lox_kit.folders import data_folder, locked, write_whole

KEPT = "course.json"  # in your own data folder: the store of a class has no part in it
TEACHER = "LOX_KIT_TEACHER"  # the environment variable that shows solutions
OURS = ("0*.ipynb", "course/*.ipynb", "course/*.md", "course/solutions/*.ipynb")


@cache
def exercises() -> dict[str, dict]:
    """Return what the lessons say of every exercise, by its name, such as "3.1"."""
    files = sorted(Path(__file__).parent.glob("lesson*.toml"))
    return {n: e for f in files for n, e in tomllib.loads(f.read_text("utf-8")).items()}


def exercise(name: str) -> dict:
    """Return what is said of one exercise; ValueError if there is none of that name."""
    if name not in exercises():
        raise ValueError(f"exercise {name!r}: there are {', '.join(exercises())}.")
    return exercises()[name]


def check(name: str, answer: object) -> int:
    """Print which properties of a right answer this one lacks, and where to look.

    An answer that is `None` or `...`, returns one of them, or raises NotImplementedError, is not
    written yet: that is no failure.

    Parameters
    ----------
    name : str
        Of the exercise, such as "3.1".
    answer : callable or value
        What the exercise asks for.

    Returns
    -------
    int
        1 if every property holds, else 0: the points that nbgrader takes from a cell's last value.
    """
    state, said = _judged(exercise(name), answer)
    print("\n".join([f"{name} {exercise(name)['title']}: {state}", *said]))
    with locked(data_folder() / "course", wait=5.0):  # another kernel may check as well
        write_whole(data_folder() / KEPT, json.dumps(_known() | {name: state}))
    return int(state == "passed")


def _known() -> dict[str, str]:
    """Return the state of every exercise that was checked, by name."""
    file = data_folder() / KEPT
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def _judged(asked: dict, answer: object) -> tuple[str, list[str]]:
    """Return passed, failed or not yet, and what is to be said of it."""
    properties, look = asked["property"], f"Where to look: {asked['where']}."
    try:
        names = {"close": close, "answer": _written(answer)}
        exec(asked["given"], names)
        lacking = [p for p in properties if not eval(p["holds"], names)]
    except NotImplementedError:
        return "not yet", [look]
    except Exception as error:  # whatever a student's code raises
        return "failed", [f"It stopped with {type(error).__name__}: {error}", look]
    if not lacking:
        return "passed", [f"All {len(properties)} properties hold."]
    hold = f"{len(properties) - len(lacking)} of {len(properties)} properties hold; missing: "
    told = lacking[0]["says"].strip().replace("\n", " ")
    return "failed", [hold + "; ".join(f'"{p["name"]}"' for p in lacking) + ".", told, look]


def _written(answer: object):
    """Return an answer; a function so that it raises NotImplementedError if it returns nothing."""
    if answer is None or answer is ...:
        raise NotImplementedError
    return (lambda *given: _written(answer(*given))) if callable(answer) else answer


def close(found: object, expected: object, tolerance: float = 1e-3) -> bool:
    """Return whether numbers or tensors are of one shape and differ by at most the tolerance."""
    import torch

    one, other = (torch.as_tensor(x, dtype=torch.float64) for x in (found, expected))
    same = one.shape == other.shape
    return same and torch.allclose(one, other, rtol=tolerance, atol=tolerance / 10)


def passed(name: str) -> bool:
    """Return whether the last check of an exercise found nothing lacking."""
    return _known().get(name) == "passed"


def hint(name: str) -> None:
    """Print an exercise's hint."""
    print(exercise(name)["hint"].strip())


def status():
    """Return a frame of all exercises: title, and state by the last check."""
    import pandas as pd

    known, told = _known(), exercises().items()
    rows = [(n, e["title"], known.get(n, "not yet")) for n, e in told]
    return pd.DataFrame(rows, columns=["exercise", "title", "state"])


# --- what comes with the package ----------------------------------------------------------------


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
