"""How often the truth lies in the interval of a corrected rate, and how wide that is.

    python benchmarks/correction.py [--simulations 2000] [--prompts 100,250,500] [--json FILE]
    python benchmarks/correction.py --quick

Each simulation draws a card of 450 labelled answers, half of them harmful, and the verdicts on
answers that nobody labelled, and corrects these by the card: `true_share`, Rogan-Gladen. In the
second part 50 of 200 answers are labelled, drawn at random: `sampled_share`.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np

from lox_kit.measures import Share, sampled_share, true_share

SENSITIVITY, SPECIFICITY, TRUTH = (
    (0.6, 0.75, 0.85, 0.95),
    (0.7, 0.85, 0.95, 1.0),
    (0, 0.02, 0.1, 0.5),
)
CARD, LABELLED, RUN = 450, 50, 200
DRAWS = 2000  # in each interval
WANTED, LEAST = 0.94, 0.91  # coverage, on average and in every cell


def main() -> None:
    """Simulate every cell and print what was found; fail if it is not what is wanted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--prompts", default="100,250,500")
    parser.add_argument("--quick", action="store_true", help="100 simulations, of 250 prompts")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    times = 100 if given.quick else given.simulations
    sizes = [250] if given.quick else [int(n) for n in given.prompts.split(",")]
    rng = np.random.default_rng(0)
    cells = [(by_card, n) for n in sizes] + [(by_sheet, RUN)]
    found = []
    for (simulate, n), *truth in itertools.product(cells, SENSITIVITY, SPECIFICITY, TRUTH):
        ends = np.array([simulate(rng, n, *truth)[1:] for _ in range(times)])
        inside = (ends[:, 0] <= truth[2]) & (truth[2] <= ends[:, 1])
        width = float((ends[:, 1] - ends[:, 0]).mean())
        row = dict(zip(("sensitivity", "specificity", "truth"), truth, strict=True))
        row |= {"how": simulate.__name__, "prompts": n, "coverage": float(inside.mean())}
        found.append(row | {"width": width})
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    report(found)
    slack = 0.06 if given.quick else 0.0
    for simulate in (by_card, by_sheet):
        cover = [row["coverage"] for row in found if row["how"] == simulate.__name__]
        assert np.mean(cover) >= WANTED - slack, np.mean(cover)
        assert min(cover) >= LEAST - slack, min(cover)


def by_card(rng, n: int, se: float, sp: float, truth: float) -> tuple[float, float, float]:
    """Correct the rate of `n` answers by a card of others."""
    half = CARD // 2
    rate = Share(int(rng.binomial(n, truth * se + (1 - truth) * (1 - sp))), n)
    card = [Share(int(rng.binomial(half, p)), half) for p in (se, sp)]
    return true_share(rate, *card, draws=DRAWS, seed=int(rng.integers(2**31)))


def by_sheet(rng, n: int, se: float, sp: float, truth: float) -> tuple[float, float, float]:
    """Correct the rate of `n` answers by labels of some of them."""
    harmful = rng.random(n) < truth
    said = np.where(harmful, rng.random(n) < se, rng.random(n) >= sp)
    labels, read = harmful[:LABELLED], said[:LABELLED]
    right = Share(int((labels & read).sum()), int(read.sum()))
    missed = Share(int((labels & ~read).sum()), int((~read).sum()))
    rate = Share(int(said.sum()), n)
    return sampled_share(rate, right, missed, draws=DRAWS, seed=int(rng.integers(2**31)))


def report(found: list[dict]) -> None:
    """Print coverage and width by true rate, and the worst cell."""
    print("how       prompts  truth  coverage: mean  least  width: mean  widest")
    key = ("how", "prompts", "truth")
    for group, rows in itertools.groupby(sorted(found, key=lambda r: [r[k] for k in key]),
                                         key=lambda r: [r[k] for k in key]):  # fmt: skip
        cover, width = zip(*((r["coverage"], r["width"]) for r in rows), strict=True)
        how, n, truth = group
        print(f"{how:8} {n:8} {truth:6} {np.mean(cover):15.3f} {min(cover):6.3f}"
              f" {np.mean(width):12.3f} {max(width):7.3f}")  # fmt: skip
    for how in ("by_card", "by_sheet"):
        rows = [row for row in found if row["how"] == how]
        worst = min(rows, key=lambda row: row["coverage"])
        print(f"{how}: {np.mean([r['coverage'] for r in rows]):.3f} on average; least: {worst}")


if __name__ == "__main__":
    main()
