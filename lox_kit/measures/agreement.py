"""Two yes-or-no readings of the same items: do they agree, and does one say yes more often?"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence


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
            f"exact McNemar p = {self.p_value:.2g}"
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
