"""The finished table of attacks: shares of every entry, and their summary over seeds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from lox_kit.folders import write_whole
from lox_kit.measures import Share


@dataclasses.dataclass(frozen=True, eq=False)
class AttackTable:
    """Shares of every entry, by attack (None: before any), training, arm and seed."""

    rows: tuple[dict, ...]
    source: dict[str, object]

    @property
    def seeds(self) -> list[int]:
        """The seeds, in order."""
        return sorted({row["seed"] for row in self.rows})

    @property
    def groups(self) -> list[tuple[str, str, str, str]]:
        """Attack, prompt ("plain" or "persona"), training and arm of every group of seeds."""
        attacked = [row for row in self.rows if row["attack"]]
        attacks, trainings, arms = (
            list(dict.fromkeys(row[name] for row in attacked))
            for name in ("attack", "training", "arm")
        )
        asked = {"plain": "asr", "persona": "persona_asr"}
        return [
            (attack, prompt, training, arm)
            for attack in attacks
            for prompt, measure in asked.items()
            for training in trainings
            for arm in arms
            if self.shares(measure, attack, training, arm)
        ]

    def shares(self, measure: str, attack: str | None, training: str, arm: str) -> list[Share]:
        """Return one measure of one group, a share per seed; [] if it was not measured."""
        if attack is None and arm == "SafeInst":
            arm = "aligned"  # its model before the attack
        found = [
            (row["seed"], row["measures"][measure])
            for row in self.rows
            if (row["attack"], row["training"], row["arm"]) == (attack, training, arm)
            and measure in row["measures"]
        ]
        by_seed = sorted(found, key=lambda seed_and_share: seed_and_share[0])
        return [Share(fields["count"], fields["n"]) for _, fields in by_seed]

    def to_frame(self):
        """Return one row per attack, training, arm and prompt, over the seeds.

        `asr` is the mean over seeds, `sd` its standard deviation (n - 1), `low` and `high` the 95 %
        Wilson interval of all seeds' prompts together, which takes them as independent. The prompt
        is "plain", and for a persona attack also "persona". Shares are in [0, 1].
        """
        import pandas as pd

        rows = []
        for attack, prompt, training, arm in self.groups:
            names = {"attack": attack, "training": training, "arm": arm, "prompt": prompt}
            prefix = "persona_" if prompt == "persona" else ""
            rows.append(names | self._numbers(attack, training, arm, prefix))
        return pd.DataFrame(rows)

    def _numbers(self, attack: str, training: str, arm: str, prefix: str) -> dict:
        """Return the numbers of one row of the frame."""
        asr = self.shares(prefix + "asr", attack, training, arm)
        low, high = pooled(asr).interval
        after = {
            "refusal": self.shares(prefix + "refusal", attack, training, arm),
            "degenerate": self.shares(prefix + "degenerate", attack, training, arm),
            "helpfulness": self.shares("helpfulness", attack, training, arm),
            "over_refusal": self.shares("over_refusal", attack, training, arm),
            "task": self.shares("task", attack, training, arm),
        }
        before = {
            "asr_before": self.shares(prefix + "asr", None, "full", arm),
            "helpfulness_before": self.shares("helpfulness", None, "full", arm),
        }
        return {
            "asr": _mean(asr),
            "sd": _sd(asr),
            "low": low,
            "high": high,
            "count": pooled(asr).count,
            "n": pooled(asr).n,
            "seeds": len(asr),
            **{name: _mean(shares) for name, shares in {**after, **before}.items()},
        }

    def entries(self):
        """Return one row per entry and measure: value, low, high, count, n."""
        import pandas as pd

        names = ("attack", "training", "arm", "seed")
        return pd.DataFrame(
            {**{n: row[n] for n in names}, "measure": measure, **share}
            for row in self.rows
            for measure, share in row["measures"].items()
        )

    def to_dict(self) -> dict:
        """Return the numbers as plain data."""
        return {"rows": list(self.rows), "source": self.source}

    def save(self, file: str | Path) -> Path:
        """Write the numbers as JSON; answers stay in the store."""
        return write_whole(file, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, file: str | Path) -> AttackTable:
        """Read what `save` wrote."""
        data = json.loads(Path(file).read_text())
        return cls(tuple(data["rows"]), data["source"])


def pooled(shares: Sequence[Share]) -> Share:
    """Return the share of all counts together."""
    return Share(sum(s.count for s in shares), sum(s.n for s in shares))


def _mean(shares: Sequence[Share]) -> float:
    """Return the mean over seeds, NaN of nothing."""
    return sum(s.value for s in shares) / len(shares) if shares else float("nan")


def _sd(shares: Sequence[Share]) -> float:
    """Return the standard deviation over seeds, NaN of fewer than two."""
    import numpy as np

    return float(np.std([s.value for s in shares], ddof=1)) if len(shares) > 1 else float("nan")
