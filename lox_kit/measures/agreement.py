"""Two yes-or-no readings of the same items: do they agree, and does one say yes more often?"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from lox_kit.text import p_text

from .intervals import Share

Z, POWER = 1.959964, 0.841621  # normal quantiles: of 95 % two-sided, and of a power of .8


@dataclasses.dataclass(frozen=True)
class Paired:
    """The 2 x 2 table of two readings: two judges of one model, or one judge of two models."""

    first: str  # what was read the first time, for people
    second: str
    both: int  # items that both call harmful
    only_first: int
    only_second: int
    neither: int
    left_out: int = 0  # items that one of the two could not read

    @property
    def n(self) -> int:
        """Items in the table."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def agree(self) -> float | None:
        """Share of the items on which both say the same, in [0, 1]; None without items."""
        return (self.both + self.neither) / self.n if self.n else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa: agreement beyond what the two rates make by chance, in [-1, 1].

        None where it is undefined: without items, or where both give every item the same answer.
        """
        if self.n in (self.both, self.neither):
            return None
        first, second = self.both + self.only_first, self.both + self.only_second  # say yes
        chance = (first * second + (self.n - first) * (self.n - second)) / self.n**2
        return (self.agree - chance) / (1 - chance)

    @property
    def kappa_interval(self) -> tuple[float, float] | None:
        """Large-sample 95 % interval of kappa, in [-1, 1]; None where kappa is undefined.

        Fleiss, Cohen and Everitt (1969), Psychological Bulletin 72, for two classes. Where both
        agree on all it has no width, however few they are.
        """
        if (kappa := self.kappa) is None:
            return None
        table = [[self.both, self.only_first], [self.only_second, self.neither]]
        p = np.array(table) / self.n
        rows, columns = p.sum(1), p.sum(0)
        chance = float(rows @ columns)
        weights = np.eye(2) - np.add.outer(columns, rows) * (1 - kappa)  # c_i + r_j
        spread = float((p * weights**2).sum()) - (kappa - chance * (1 - kappa)) ** 2
        wide = Z * math.sqrt(max(spread, 0.0) / self.n) / (1 - chance)
        return max(kappa - wide, -1.0), min(kappa + wide, 1.0)

    @property
    def shares(self) -> tuple[Share, Share]:
        """The share that each calls harmful, of the items in the table."""
        return tuple(Share(self.both + n, self.n) for n in (self.only_first, self.only_second))

    @property
    def difference(self) -> tuple[float, float, float]:
        """First share minus second, and its 95 % interval, in [-1, 1].

        Newcombe's square-and-add interval for paired proportions, with the correlation of the two
        readings: Newcombe (1998), Statistics in Medicine 17, 2635-2650, method 10.
        """
        one, other = self.shares
        a, b, c, d = self.both, self.only_first, self.only_second, self.neither
        margins = math.sqrt((a + b) * (c + d) * (a + c) * (b + d))
        excess = a * d - b * c
        excess = max(excess - self.n / 2, 0.0) if excess > 0 else excess
        return one.minus(other, correlation=excess / margins if margins else 0.0)

    def prompts_needed(self, points: float = 0.1) -> int:
        """Return how many prompts show a difference of so much in four studies of five.

        For McNemar's test at the 5 % level, two-sided, with a power of .8, where as large a share
        of the prompts is discordant as here (at least `points`): Miettinen (1968), Biometrics 24;
        Connor (1987), Biometrics 43.
        """
        discordant = max((self.only_first + self.only_second) / self.n, points)
        root = Z * math.sqrt(discordant) + POWER * math.sqrt(discordant - points**2)
        return math.ceil((root / points) ** 2)

    @property
    def p_value(self) -> float:
        """Exact McNemar test, two-sided: are `only_first` and `only_second` equally likely?

        The binomial test (scipy) of the discordant items; 1 where there are none.
        """
        discordant = self.only_first + self.only_second
        if not discordant:
            return 1.0
        from scipy.stats import binomtest

        return float(binomtest(self.only_first, discordant).pvalue)

    def to_dict(self) -> dict:
        """Return the table and what follows from it as plain data."""
        derived = {name: getattr(self, name) for name in ("n", "agree", "kappa", "p_value")}
        return dataclasses.asdict(self) | derived

    def __str__(self) -> str:
        return (
            f"only {self.first}: {self.only_first}, only {self.second}: {self.only_second}, "
            f"both: {self.both}, neither: {self.neither}"
            f"{f', left out: {self.left_out}' if self.left_out else ''}; "
            f"exact McNemar {p_text(self.p_value)}"
        )


def pair_up(
    first: str, one: Sequence[bool | None], second: str, other: Sequence[bool | None]
) -> Paired:
    """Cross two readings of the same items.

    Parameters
    ----------
    one, other : sequence of bool or None
        None where an item could not be read; it is counted in `left_out`.
    """
    cells = Counter(zip(one, other, strict=True))
    order = [(True, True), (True, False), (False, True), (False, False)]
    counts = [cells[cell] for cell in order]
    return Paired(first, second, *counts, left_out=len(one) - sum(counts))
