"""The frontier in words: five questions, each answered by two models on the same requests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lox_kit.figures import direction_of
from lox_kit.measures import Paired, pair_up
from lox_kit.studies import COST, LONGER, AttackTable, pooled
from lox_kit.text import p_text

from .table import markdown, table_caption, write_both


def write_frontier(table: AttackTable, out: str | Path) -> str:
    """Write the frontier's figure, its data and its text; return the text."""
    return write_both(table, "frontier", frontier_text(table), out)


def frontier_text(table: AttackTable) -> str:
    """Return the answers to the five questions, then every arm's shares, as Markdown."""
    attacks = table.attacks
    lines = [line for attack in attacks for line in _questions(table, attack)]
    cost = paired(table, "allowed", (COST.name, None), ("aligned", None))
    lines.append(f"- What does it cost? {told(cost, 'Allowed requests refused by')}")
    heads = ["arm", "over-refusal before", "refusal before", *(f"after {a}" for a in attacks)]
    cells = [("over_refusal", None), ("refusal", None), *(("refusal", a) for a in attacks)]
    directions = dict.fromkeys(map(direction_of, table.source["arms"].values()))
    caption = (
        f"Directions: {', '.join(directions)}. A seed is one of the alignment's and the attacks' "
        "data and order; the base is one model, out of 4 bits a weight. Requests are pooled over "
        f"seeds in the tests, which takes seeds as alike. {table_caption(table)}"
    )
    table_lines = markdown(heads, share_rows(table, cells))
    return "\n".join([*lines, "", *table_lines, "", caption, ""])


def paired(
    table: AttackTable,
    kind: str,
    one: tuple[str, str | None],
    other: tuple[str, str | None],
    says: str = "r",
) -> Paired:
    """Cross the refusals of two models, each an arm and an attack, over all seeds' requests.

    Parameters
    ----------
    kind : str
        "forbidden" or "allowed"; or "asr" or "helpfulness", with "y" in place of refusals.
    says : str
        The letter to count, see `measures.read_requests`.
    """
    read = []
    for arm, attack in (one, other):
        said = [letter == says for letter in table.letters(kind, attack, arm)]
        read += [f"{arm} after {attack}" if attack else f"{arm} before", said]
    return pair_up(*read)


def _questions(table: AttackTable, attack: str) -> list[str]:
    """Return the answers to the four questions about one attack, a line each.

    Where two arms are compared, what both refuse too much before the attack is said as well.
    """
    over = {arm: table.pooled("over_refusal", None, arm).value for arm in table.column("arm")}
    full = [name for name, arm in table.source["arms"].items() if arm["kind"] == "full delta"]
    near = min(full, key=lambda arm: abs(over[arm] - over[COST.name]))
    after = COST.name, attack
    asked = {
        "Does it erode?": ("forbidden", ("aligned", None), ("aligned", attack)),
        "Does LoX hold it?": ("forbidden", after, ("aligned", attack)),
        "Is it the low rank? At nearly equal cost:": ("forbidden", after, (near, attack)),
        "Is it more than refusing more?": ("forbidden", after, (LONGER.name, attack)),
    }
    lines = []
    for why, pair in asked.items():
        said = told(paired(table, *pair), "Forbidden requests refused by")
        arms = dict.fromkeys(arm for arm, _ in pair[1:])
        costs = (f"{arm} {over[arm]:.2f}" for arm in arms)
        before = f" Over-refusal before: {', '.join(costs)}." if len(arms) > 1 else ""
        lines.append(f"- {attack}. {why} {said}{before}")
    return lines


def told(pair: Paired, what: str) -> str:
    """Return both shares of what was counted, the difference with its interval, McNemar's test.

    Parameters
    ----------
    what : str
        Is said before the models' names, such as "Allowed requests refused by".
    """
    (one, other), (fall, low, high) = pair.shares, pair.difference
    return (
        f"{what} {pair.first}: {one}; {pair.second}: {other}; "
        f"difference {fall:+.2f} [{low:+.2f}, {high:+.2f}], {pair.only_first} against "
        f"{pair.only_second} requests, exact McNemar {p_text(pair.p_value)}."
    )


def share_rows(table: AttackTable, cells: Sequence[tuple[str, str | None]]) -> list[list[str]]:
    """Return a row for every arm: its shares over all seeds, each a measure and an attack, as text.

    One that was not measured is empty.
    """
    found = []
    for arm in table.column("arm"):
        shares = [table.shares(measure, attack, "full", arm) for measure, attack in cells]
        found.append([arm, *(str(pooled(s)) if s else "" for s in shares)])
    return found
