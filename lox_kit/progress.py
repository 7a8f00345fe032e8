"""Progress in one shape: what is being done, how much of it is done, how much there is."""

from __future__ import annotations

from collections.abc import Callable

OnStage = Callable[[str, int, int], None]  # what is being done, done of it, in all (0: not known)


def tell(on_stage: OnStage | None, what: str, done: int, total: int) -> None:
    """Report what is being done, if anyone listens. Raising from `on_stage` ends the work there."""
    if on_stage:
        on_stage(what, done, total)
