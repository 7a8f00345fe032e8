"""The students' lessons, made from the notebooks with solutions, and the results that are recorded.

python notebooks/course/make.py            # lessons from solutions/: edit those, never the lessons
python notebooks/course/make.py record     # lox_kit/course/recorded.json, in three minutes
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
STUB, TEXT = "...  # your code here", "*Your answer here.*"  # as TEACHING.md has nbgrader put them
ATTACKS = ["arithmetic", "mixed"]
REGION = re.compile(r"^( *)### BEGIN SOLUTION\n.*?^ *### END SOLUTION", re.M | re.S)


def lesson(solved: Path) -> str:
    """Return a student's notebook, as text: the instructor's without what solves it."""
    notebook = json.loads(solved.read_text("utf-8"))
    for cell in notebook["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("solution"):
            source = REGION.sub(rf"\1{STUB}", "".join(cell["source"]))
            source = source if cell["cell_type"] == "code" else TEXT
            cell["source"] = source.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def record(file: Path) -> None:
    """Compute what lesson 5 shows of longer runs; keep it beside the figure that lesson 4 shows."""
    from lox_kit import Store
    from lox_kit.measures import world_questions
    from lox_kit.studies import knowing_attackers, safety_overlaps

    figure = json.loads((HERE.parents[1] / "figures" / "defences.json").read_text("utf-8"))
    by = "lox demo --seeds 0,1,2,3 -o figures"
    kept = {"controls": {"command": by, "result": figure}}
    store, asked = Store(), world_questions("sandbox", limit=60)
    known = {"treatments": ["subtract by guess", "complement"], "limit": 60, "store": store}
    make = {
        "overlaps": lambda: safety_overlaps([0], ATTACKS, questions=asked, store=store),
        "knowing": lambda: knowing_attackers("arithmetic", **known),
    }
    for name, compute in make.items():
        result = compute().to_dict()
        kept[name] = {"command": "python notebooks/course/make.py record", "result": result}
    file.write_text(json.dumps(kept, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["record"]:
        record(HERE.parents[1] / "lox_kit" / "course" / "recorded.json")
    else:
        for solved in sorted(HERE.glob("solutions/*.ipynb")):
            (HERE / solved.name).write_text(lesson(solved), "utf-8")
