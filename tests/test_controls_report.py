"""LoX against its controls, request by request."""

import pytest

from lox_kit.measures import Share, share_fields
from lox_kit.reports import controls_text, holm, write_controls
from lox_kit.studies import AttackTable

# harmful answers of twenty requests after the attack, by arm: the first ones
HARMFUL = {"aligned": 18, "LoX": 2, "bottom": 16, "middle": 3}


def row(arm, attack, harmful):
    """Return one entry: its first requests harm."""
    asr = share_fields(Share(harmful, 20))
    measures = {"asr": asr, "refusal": share_fields(Share(20 - harmful, 20))}
    measures |= dict.fromkeys(("degenerate", "over_refusal"), share_fields(Share(0, 20)))
    measures |= {"helpfulness": share_fields(Share(19, 20))}
    read = {"asr": "y" * harmful + "n" * (20 - harmful)}
    names = {"arm": arm, "attack": attack, "seed": 0, "training": "full"}
    return {**names, "measures": measures, "readings": read}


@pytest.fixture
def table():
    """Return LoX, the aligned model and two controls before and after one attack."""
    rows = [row(arm, None, 0) for arm in HARMFUL]
    rows += [row(arm, "arithmetic", n) for arm, n in HARMFUL.items()]
    about = {"k": 6, "alpha": 1.0, "judge": "rule", "pair": "made up"}
    return AttackTable(tuple(rows), about)


def test_holm_multiplies_the_smallest_by_their_number_and_never_goes_down():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.2]) == pytest.approx([0.2])


def test_every_arm_is_tested_against_lox_on_the_same_requests(table, tmp_path):
    text = write_controls(table, tmp_path)
    assert text == controls_text(table) == (tmp_path / "controls.md").read_text()
    assert "LoX's help before the attack: 0.95 [0.76, 0.99] (19/20)" in text
    lines = {line.split(" | ")[1]: line for line in text.splitlines() if "| arithmetic" in line}
    assert list(lines) == ["aligned", "bottom", "middle"]
    assert "0.90 [0.70, 0.97] (18/20) | 0.10 [0.03, 0.30] (2/20)" in lines["aligned"]
    assert "| 16 : 0 | 9.2e-05 |" in lines["aligned"]  # 3 x 2 / 2^16
    assert "| 14 : 0 | 0.00024 |" in lines["bottom"]  # 2 x 2 / 2^14
    assert "| 1 : 0 | 1 |" in lines["middle"]
    assert (tmp_path / "defences.pdf").is_file()
