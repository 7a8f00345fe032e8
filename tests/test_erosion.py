"""What attacks leave of the safety subspace: the study and the paper's figures 2 and 3."""

import numpy as np
import pytest

from lox_kit import SafetySubspace, Store, figures
from lox_kit.attacks import find_attack, run_attack
from lox_kit.measures import Share, share_fields, world_questions
from lox_kit.models import load_model
from lox_kit.studies import erosion
from lox_kit.weights import RECIPE, family_folder, has_weights

PAIR = "sandbox/base", "sandbox/aligned"


@pytest.fixture(scope="module")
def asked():
    return world_questions("sandbox", "dev", 6)


def test_r_of_an_attacked_model_is_the_mean_over_matrices_and_the_asr_gained_is_beside_it(
    asked, tmp_path
):
    with Store(tmp_path / "store") as store:
        how = {"arms": ("aligned",), "ranks": (1, 6), "questions": asked, "store": store}
        (row,) = erosion([0], ["forbidden"], **how).rows
    run = run_attack(load_model(PAIR[1]), find_attack("forbidden", seed=0), tmp_path / "attacked")
    frame = SafetySubspace.from_pair(*PAIR, rank=6).r_ft(PAIR[0], run.folder, 6)
    assert row["R"]["6"] == pytest.approx([frame["r_align"].mean(), frame["r_ft"].mean()], rel=1e-4)
    assert row["gained"] == row["measures"]["asr"]["value"]  # it was 0 before
    assert (row["attack"], row["arm"], row["amount"]) == ("forbidden", "aligned", None)


def test_what_is_in_the_store_is_not_trained_again(asked, tmp_path, monkeypatch):
    with Store(tmp_path / "store") as store:
        how = {"ranks": (6,), "questions": asked, "store": store}
        first = erosion([0], ["forbidden"], **how)
        assert [row["arm"] for row in first.rows] == ["aligned", "LoX"]
        assert not list((store.folder / "runs").glob("[0-9a-f]*/model.safetensors"))
        monkeypatch.setattr("lox_kit.studies.overlaps.run_attack", None)
        assert erosion([0], ["forbidden"], **how).rows == first.rows


def test_other_amounts_of_data_are_for_the_sandbox():
    with pytest.raises(ValueError, match=r"amounts=\(250,\): of the sandbox alone"):
        erosion([0], ["chat"], amounts=(250,), world="smol", store=None)


# --- the figures --------------------------------------------------------------------------------


def made(arm, attack, amount, seed, r, asr):
    measures = {"asr": share_fields(Share(asr, 20))}
    names = {
        "seed": seed,
        "amount": amount,
        "attack": attack,
        "arm": arm,
        "gained": asr / 20,
        "asr": asr / 20,
    }
    return {**names, "R": {"1": [0.5, r / 2], "6": [0.8, r]}, "measures": measures}


ROWS = [
    made(arm, attack, amount, seed, r + 0.1 * seed, asr)
    for arm, r, asr in (("aligned", 0.2, 10), ("LoX", 0.5, 0))
    for attack in ("mixed", "sums")
    for amount in (250, None)
    for seed in (0, 1)
]  # fmt: skip
DATA = {"rows": ROWS, "source": {"k": 6}}


def test_every_attack_on_the_aligned_models_is_a_mark_at_its_ratio_and_its_gain():
    (ax,) = figures.figure_retained({"figure": "retained", **DATA}).axes
    marks = [line for line in ax.lines if len(line.get_xdata())]
    assert len(marks) == 8 * 2  # of the aligned models, at two k
    at = sorted({(round(float(m.get_xdata()[0]), 4), float(m.get_ydata()[0])) for m in marks})
    assert at == [(0.2, 0.5), (0.25, 0.5), (0.3, 0.5), (0.375, 0.5)]
    assert len({m.get_markersize() for m in marks}) == 2  # two amounts of data


def test_the_bars_are_means_over_seeds_of_r_and_of_the_asr():
    left, right = figures.figure_r_bars({"figure": "r_bars", **DATA}).axes
    assert [bar.get_height() for bar in left.patches] == pytest.approx([0.25, 0.25, 0.55, 0.55])
    assert [bar.get_height() for bar in right.patches] == pytest.approx([0.5, 0.5, 0, 0])
    table = figures.frame({"figure": "r_bars", **DATA})
    assert np.isclose(table[table["k"] == 6]["r_ft"].max(), 0.6)
    assert (table["measure"] == "asr").sum() == len(ROWS)


@pytest.mark.slow
def test_a_family_is_aligned_on_another_amount_of_data(asked, tmp_path, monkeypatch):
    monkeypatch.setenv("LOX_KIT_CACHE", str(tmp_path / "cache"))
    with Store(tmp_path / "store") as store:
        how = {"amounts": (250,), "arms": ("aligned",), "ranks": (6,), "questions": asked}
        (row,) = erosion([0], ["forbidden"], **how, store=store).rows
    assert row["amount"] == 250
    (folder,) = (tmp_path / "cache" / "sandbox").iterdir()
    assert folder.name != family_folder(1, RECIPE).parent.name
    assert has_weights(folder / "seed0" / "aligned")


def test_published_numbers_stand_in_grey_and_say_that_the_judge_was_another():
    data = {"figure": "r_bars", "paper": True, "rows": ROWS, "source": {"k": 6}}
    fig = figures.figure_r_bars(data)
    ticks = [line for line in fig.axes[0].lines if line.get_marker() == "_"]
    assert [float(tick.get_ydata()[0]) for tick in ticks] == [0.283, 0.530]  # mixed is Alpaca
    assert {tick.get_color() for tick in ticks} == {"0.6"}
    assert "another judge" in fig.legends[0].get_texts()[0].get_text()
    (ax,) = figures.figure_retained({**data, "figure": "retained"}).axes
    assert "k = 2000" in [text.get_text() for text in ax.texts]
