"""The table of attacks, and smol's frontier: its files, and in words what it shows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from lox_kit.folders import write_whole
from lox_kit.measures import Paired, Share, pair_up
from lox_kit.studies import COST, LONGER, AttackTable, pooled
from lox_kit.text import one_line, p_text

ERODED = 0.1  # ASR of the aligned model after an attack that shows anything
COLUMNS = {
    "asr": "ASR",
    "refusal": "refusal",
    "degenerate": "broken",
    "helpfulness": "help",
    "over_refusal": "over-refusal",
    "task": "task",
    "asr_before": "ASR before",
    "helpfulness_before": "help before",
}


def write_both(found, figure: str, text: str, out: str | Path) -> str:
    """Write the figure of this kind, its data and its text under the kind's name; return the text.

    `found` is what `to_dict` of gives the figure's data.
    """
    from lox_kit.figures import save_figure

    save_figure({"figure": figure, **found.to_dict()}, figure, out)
    write_whole(Path(out) / f"{figure}.md", text)
    return text


def write_table(table: AttackTable, figure: str, out: str | Path) -> None:
    """Write the figure of this kind, its data, and the table as text, all under the kind's name."""
    write_both(table, figure, markdown_table(table), out)


# --- in words -----------------------------------------------------------------------------------


def markdown(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (heads, *rows)]
    return [lines[0], "|---" * len(heads) + "|", *lines[1:]]


def markdown_table(table: AttackTable) -> str:
    """Return the table as Markdown, with what its numbers are and where LoX does not help.

    ASR has its spread over seeds and its interval.
    """
    return "\n".join([*markdown(*_text_rows(table)), "", table_caption(table), ""])


def latex_table(table: AttackTable) -> str:
    """Return the table as LaTeX for the package booktabs, with its caption."""

    def text(cell: object) -> str:
        return re.sub(r"([#$%&_{}])", r"\\\1", str(cell))

    heads, rows = _text_rows(table)
    lines = [" & ".join(map(text, cells)) + r" \\" for cells in (heads, *rows)]
    return "\n".join([
        r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{lll{'r' * (len(heads) - 3)}}}",
        r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule",
        r"\end{tabular}", rf"\caption{{{text(table_caption(table))}}}", r"\end{table}", "",
    ])  # fmt: skip


def _text_rows(table: AttackTable) -> tuple[list[str], list[list[str]]]:
    """Return the table's heads and rows as text."""
    rows = []
    for row in table.to_frame().to_dict("records"):
        asked = ", asked under it" if row["prompt"] == "persona" else ""
        spread = "" if row["seeds"] < 2 else f" (sd {row['sd']:.2f})"
        asr = f"{row['asr']:.2f}{spread} [{row['low']:.2f}-{row['high']:.2f}]"
        others = [_number(row[name]) for name in list(COLUMNS)[1:]]
        rows.append([row["attack"] + asked, row["training"], row["arm"], asr, *others])
    return ["attack", "training", "arm", *COLUMNS.values()], rows


def table_caption(table: AttackTable) -> str:
    """Say what the table holds, and where LoX helps, does not help, or is not the cause."""
    s, one = table.source, table.rows[0]["measures"]
    seeds = ", ".join(map(str, table.seeds))
    allowed = f", {one['over_refusal']['n']} allowed" if "over_refusal" in one else ""
    together = any(arm.startswith(("kind:", "layers:")) for arm in table.column("arm"))
    some = ", those of some matrices over all of them together" if together else ""
    safe_inst = "; SafeInst is the aligned model with 2.5 % safety rows in the attack's data"
    text = (
        f"Means over seeds {seeds} ({s['pair']}). Each is asked {one['asr']['n']} forbidden"
        f"{allowed} requests, judge {s['judge']}. ASR: sd over seeds, 95 % Wilson interval of all "
        "seeds' requests together, which takes them as independent. Broken: empty or repeating "
        "itself. Task: the attack's own held-out questions. Before: the arm's model before the "
        f"attack. LoX: k={s['k']}, alpha={s['alpha']:g}; the controls step equally far in every "
        f"matrix{some}{safe_inst if 'SafeInst' in table.column('arm') else ''}."
    )
    return " ".join([text, *_verdicts(table), *_falls(table)])


def _verdicts(table: AttackTable) -> list[str]:
    """Say of every attack what LoX does to its ASR, and where another arm does as well.

    There, LoX's low rank or its direction is not the cause.
    """
    verdicts: dict[str, list[str]] = {}
    equals: dict[str, list[str]] = {}
    for *group, arm in table.groups:
        aligned, lox, own = (table.shares(*group, name) for name in ("aligned", "LoX", arm))
        name, eroded = _group_name(*group), aligned and pooled(aligned).value >= ERODED
        if arm == "LoX":
            verdicts.setdefault(_verdict(table.seeds, aligned, lox), []).append(name)
        elif arm != "aligned" and lox and eroded and pooled(own).minus(pooled(lox))[1] <= 0:
            said = f"{arm[0].upper()}{arm[1:]} is not clearly worse than LoX"
            equals.setdefault(said, []).append(name)
    return [f"{said}: {', '.join(names)}." for said, names in (verdicts | equals).items()]


def _verdict(seeds: list[int], aligned: list[Share], lox: list[Share]) -> str:
    """Return in a few words what LoX does to the ASR of one attack, of a share for each seed."""
    if not aligned:
        return "No aligned model to compare LoX with"
    falls = [a.minus(b) for a, b in zip(aligned, lox, strict=True)]
    _, low, high = pooled(aligned).minus(pooled(lox))
    if high < 0:
        return "LoX makes it worse"
    if pooled(aligned).value < ERODED:
        return "The attack hardly erodes the aligned model (ASR below .10), so nothing is shown"
    if low <= 0:
        return "LoX does not help"
    if not all(low > 0 for _, low, _ in falls):
        return "LoX lowers ASR over all seeds together, but not clearly in each"
    high_in = [str(seed) for seed, s in zip(seeds, lox, strict=True) if s.value > 0.5]
    if high_in:
        where = "" if len(high_in) == len(lox) else f" in seed {', '.join(high_in)}"
        return f"LoX lowers ASR clearly in every seed, but leaves it above .50{where}"
    return "LoX lowers ASR clearly in every seed"


def _falls(table: AttackTable) -> list[str]:
    """Say how far each arm lowers ASR in each seed, where the table is of one attack."""
    found = []
    for *group, arm in table.groups:
        aligned, shares = (table.shares(*group, a) for a in ("aligned", arm))
        if aligned and arm != "aligned":
            falls = [a.minus(b) for a, b in zip(aligned, shares, strict=True)]
            shown = (f"{fall:.2f} [{low:.2f}, {high:.2f}]" for fall, low, high in falls)
            found.append(f"{arm} {', '.join(shown)}")
    if not found or len({group[:3] for group in table.groups}) > 1:
        return []
    return [f"Fall of ASR by seed, with Newcombe's 95 % interval: {'; '.join(found)}."]


HEADS = ("ASR", "sd", "95 %", "refusal", "broken", "help", "over-r.", "task", "before", "help")
LINE = "  {:<16}{:>5}{:>6}{:>11}{:>9}{:>8}{:>6}{:>8}{:>6}{:>9}{:>6}"


def print_table(table: AttackTable) -> None:
    """Print the table, narrow enough for a terminal of 90 columns, and its caption."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    console.print(LINE.format("arm", *HEADS), style="bold")
    names = [_group_name(*group) for *group, _ in table.groups]
    rows = table.to_frame().assign(group=names).to_dict("records")
    for group, alike in groupby(rows, lambda row: row["group"]):
        console.print(f"\n{one_line(group)}", style="bold")
        for row in alike:
            asr, sd, *numbers = (_number(row[name]) for name in ("asr", "sd", *list(COLUMNS)[1:]))
            interval = f"{row['low']:.2f}-{row['high']:.2f}"
            console.print(LINE.format(row["arm"], asr, sd, interval, *numbers))
    console.print()
    width = min(console.width, 100)
    console.print(one_line(table_caption(table)), style="dim", width=width, soft_wrap=False)


def _group_name(measure: str, attack: str, training: str) -> str:
    """Return what a block of rows has in common."""
    asked = ", asked under it" if measure == "persona_asr" else ""
    return f"{attack}{asked} ({training})"


def _number(value: float) -> str:
    """Return a share as text, nothing for one that was not measured."""
    return "" if value != value else f"{value:.2f}"


# --- two models, and every arm ---------------------------------------------------------------


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

    def read(arm: str, attack: str | None) -> tuple[str, list[bool]]:
        letters = table.letters(kind, attack, arm)
        return f"{arm} after {attack}" if attack else f"{arm} before", [x == says for x in letters]

    return pair_up(*read(*one), *read(*other))


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


# --- the frontier: five questions, each answered by two models on the same requests --------------


def write_frontier(table: AttackTable, out: str | Path) -> str:
    """Write the frontier's figure, its data and its text; return the text."""
    return write_both(table, "frontier", frontier_text(table), out)


def frontier_text(table: AttackTable) -> str:
    """Return the answers to the five questions, then every arm's shares, as Markdown."""
    from lox_kit.figures import direction_of

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
