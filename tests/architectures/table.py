"""Write figures/architectures.md: what works on which architecture, what is refused and why.

python tests/architectures/table.py
"""

from __future__ import annotations

import sys
import tempfile
import traceback
import warnings
from importlib.metadata import version
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # where the other tests' models are
from examine import RIGHT, STEPS, Examination
from transformers.utils import logging
from zoo import ZOO, Architecture

OUT = Path(__file__).parents[2] / "figures" / "architectures.md"
HEAD = """# Architectures

Tiny random models of {count} architectures, as transformers {transformers} has them, each held
against LoX in float64 and against the model that runs: `python tests/architectures/table.py`.
"right" is a result within rounding; what is refused says so in one line, below. FP8 is read as
float32 and written as bfloat16. "Without" names what an adapter leaves out: a tied embedding, or
what PEFT {peft} cannot adapt. Each training is two steps, and two with a stop between them.

| architecture | kind | {columns} |
|---|---|{rule}|
"""


def main() -> None:
    """Examine each, print as it goes, write the table."""
    warnings.simplefilter("ignore")
    logging.set_verbosity(50)
    lines, notes = [], []
    for name, architecture in ZOO.items():
        cells = examined(architecture)
        print(name, cells, flush=True)
        for step, said in cells.items():
            if said.startswith("refused: "):
                reason = said.removeprefix("refused: ").replace(tempfile.gettempdir(), "")
                notes.append(f"{len(notes) + 1}. {name}, {step}: {reason}")
                cells[step] = f"refused ({len(notes)})"
        lines.append(f"| {name} | {architecture.family} | {' | '.join(cells.values())} |")
    versions = {"transformers": version("transformers"), "peft": version("peft")}
    columns, rule = " | ".join(STEPS), "|".join(["---"] * len(STEPS))
    head = HEAD.format(count=len(ZOO), columns=columns, rule=rule, **versions)
    OUT.write_text("\n".join([head + "\n".join(lines), "", *notes]).rstrip() + "\n")
    sys.exit(any("WRONG" in line for line in lines))


def examined(architecture: Architecture) -> dict[str, str]:
    """Return what came of each step; WRONG where a result is."""
    with tempfile.TemporaryDirectory() as folder:
        examination, cells = Examination(architecture, Path(folder)), {}
        for step in STEPS:
            try:
                cells |= examination.run(only=(step,))
            except Exception:
                traceback.print_exc()
                cells[step] = "WRONG"
    return {step: cells.get(step, RIGHT) for step in STEPS}


if __name__ == "__main__":
    main()
