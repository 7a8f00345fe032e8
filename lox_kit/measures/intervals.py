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

    def drawn(self, draws: int, seed: Sequence[int]):
        """Return draws from its Jeffreys posterior, an array."""
        import numpy as np

        shape = self.count + 0.5, self.n - self.count + 0.5
        return np.random.default_rng(seed).beta(*shape, draws)

    def minus(self, other: Share, *, correlation: float = 0.0) -> tuple[float, float, float]:
        """Return this share minus another and its 95 % interval, in [-1, 1].

        Newcombe's hybrid score interval (1998, method 10) from the two Wilson intervals. Without a
        `correlation` it takes the shares as independent; on the same prompts, where they tend to
        agree, it then errs on the wide side: `Paired.difference` has theirs.
        """
        (low1, high1), (low2, high2) = self.interval, other.interval
        p, q = self.value, other.value

        def reach(one: float, two: float) -> float:
            return (one**2 - 2 * correlation * one * two + two**2) ** 0.5

        return p - q, p - q - reach(p - low1, high2 - q), p - q + reach(high1 - p, q - low2)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.2f} [{low:.2f}, {high:.2f}] ({self.count}/{self.n})"


def share_fields(share: Share) -> dict[str, float]:
    """Return a share as plain data."""
    low, high = share.interval
    return {"value": share.value, "low": low, "high": high, "count": share.count, "n": share.n}


def true_share(
    rate: Share, sensitivity: Share, specificity: Share, *, draws: int = 20_000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the share that is truly so, from an imperfect judge's rate, and its 95 % interval.

    (p + sp - 1) / (se + sp - 1): Rogan and Gladen (1978), American Journal of Epidemiology 107.
    Each of the three is drawn from its Jeffreys posterior, Beta(x + 1/2, n - x + 1/2). The
    percentiles are clipped to [0, 1], not the draws, so that a true share of 0 stays inside; a draw
    in which the judge knows nothing (se + sp <= 1) counts as far outside, on its side.
    `benchmarks/correction.py` counts how often the truth is in the interval.

    Raises
    ------
    ValueError
        If nothing was counted for one of the three, or the judge may be no better than chance.
    """
    if not (sensitivity.n and specificity.n and rate.n):
        raise ValueError("it takes labelled answers of both kinds, harmful and harmless.")
    p, se, sp = (s.drawn(draws, (seed, i)) for i, s in enumerate((rate, sensitivity, specificity)))
    knows = sensitivity.value + specificity.value - 1
    if knows <= 0 or (se + sp <= 1).mean() > 0.025:
        raise ValueError(
            f"a sensitivity of {sensitivity} and a specificity of {specificity} may be chance: "
            "label more answers, or take another judge."
        )
    value = (rate.value + specificity.value - 1) / knows
    return _around(value, (p + sp - 1) / (se + sp - 1).clip(1e-9))


def sampled_share(
    rate: Share, right: Share, missed: Share, *, draws: int = 20_000, seed: int = 0
) -> tuple[float, float, float]:
    """Return the same where people labelled a random sample of the very answers of the rate.

    p right + (1 - p) missed, where these are truly so of what the judge calls so and of the rest:
    double sampling, Tenenbein (1970), Journal of the American Statistical Association 65. It needs
    no sensitivity, of which few labels say little. The interval begins at 0 where no labelled
    answer is so, and ends at 1 where all are. A share of which the sample has none (n = 0) is taken
    as a half.
    """
    p, hit, miss = (s.drawn(draws, (seed, i)) for i, s in enumerate((rate, right, missed)))
    one, other = (share.value if share.n else 0.5 for share in (right, missed))
    drawn = p * hit + (1 - p) * miss
    value, low, high = _around(rate.value * one + (1 - rate.value) * other, drawn)
    so, n = right.count + missed.count, right.n + missed.n
    return value, low if so else 0.0, high if so < n else 1.0


def _around(value: float, drawn) -> tuple[float, float, float]:
    """Return a value and the percentiles of its draws, clipped to [0, 1]; it is within them."""
    import numpy as np

    value, low, high = np.clip([value, *np.quantile(drawn, [0.025, 0.975])], 0, 1).tolist()
    return value, min(low, value), max(high, value)


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
