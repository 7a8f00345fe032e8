"""Counts and means with their 95 % intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Share:
    """A count out of n, with its 95 % Wilson interval (from scipy)."""

    count: int
    n: int

    @property
    def value(self) -> float:
        """count / n, in [0, 1]."""
        return self.count / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval, in [0, 1]."""
        from scipy.stats import binomtest

        low, high = binomtest(self.count, self.n).proportion_ci(method="wilson")
        return float(low), float(high)

    def minus(self, other: Share) -> tuple[float, float, float]:
        """Return this share minus another and its 95 % interval, in [-1, 1].

        Newcombe's hybrid score interval (1998, method 10) from the two Wilson intervals. It takes
        the shares as independent; on the same prompts, where they tend to agree, it errs on the
        wide side.
        """
        (low1, high1), (low2, high2) = self.interval, other.interval
        p, q = self.value, other.value
        down = ((p - low1) ** 2 + (high2 - q) ** 2) ** 0.5
        up = ((high1 - p) ** 2 + (q - low2) ** 2) ** 0.5
        return p - q, p - q - down, p - q + up

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.2f} [{low:.2f}, {high:.2f}] ({self.count}/{self.n})"


def share_fields(share: Share) -> dict[str, float]:
    """Return a share as plain data."""
    low, high = share.interval
    return {"value": share.value, "low": low, "high": high, "count": share.count, "n": share.n}


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over prompts, with the 95 % interval of Student's t (from scipy)."""

    value: float
    low: float  # not a number for a single prompt: one value says nothing about its spread
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Average one value per prompt, of at least one."""
        from scipy.stats import sem, t

        n, value = len(values), float(sum(values) / len(values))
        spread = float(t.ppf(0.975, n - 1) * sem(values)) if n > 1 else float("nan")
        return cls(value, value - spread, value + spread, n)

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}] (n = {self.n})"
