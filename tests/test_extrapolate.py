"""One call writes what factoring and applying write."""

import pytest
from checkpoints import content, factor, weights
from speakers import watch
from test_lox import KINDS

from lox_kit import SafetySubspace, apply_lox, extrapolate
from lox_kit.extrapolation import factoring

K, ALPHA = 3, 1.25


@pytest.fixture
def counted(monkeypatch):
    """The calls that factor a matrix, as they are."""
    return watch(monkeypatch, factoring, "factor_one")


def in_two_steps(pair, folder, **options):
    """Return the subspace file and the checkpoint that the two verbs make."""
    folder.mkdir()
    subspace = factor(pair, folder / "S.safetensors", **options)
    return folder / "S.safetensors", apply_lox(subspace, pair.aligned, folder / "lox", K, ALPHA)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_one_call_writes_the_bytes_of_the_two_steps(make_pair, tmp_path, counted, options):
    pair, factors = make_pair(**options), tmp_path / "S.safetensors"
    file, there = in_two_steps(pair, tmp_path / "two", rank=5)
    out = extrapolate(pair.base, pair.aligned, tmp_path / "lox", K, ALPHA, factors=factors, rank=5)
    assert content(out) == content(there)
    assert factors.read_bytes() == file.read_bytes()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["S.safetensors", "lox", "two"]
    counted.clear()
    again = extrapolate(pair.base, pair.aligned, tmp_path / "3", K, ALPHA, factors=file, rank=5)
    assert content(again) == content(there)
    assert counted == []


@pytest.mark.parametrize(
    ("k", "rank", "certify"), [(0, 1, 16), (K, K, 16), (20, 20, 20), (None, "full", 16)]
)
def test_k_directions_are_factored_and_certified(pair, tmp_path, k, rank, certify):
    S, there = tmp_path / "S.safetensors", tmp_path / "there"
    options = {"include": "mlp", "exclude": "gate", "seed": 3}
    out = extrapolate(pair.base, pair.aligned, tmp_path / "lox", k, factors=S, **options)
    subspace = SafetySubspace.load(S)
    assert {**subspace.info, **options, "rank": rank, "certify": certify} == subspace.info
    assert content(out) == content(apply_lox(subspace, pair.aligned, there, k))


def test_progress_counts_every_matrix_and_every_tensor_and_ends(pair, subspace, tmp_path):
    told = []
    extrapolate(
        pair.base, pair.aligned, tmp_path / "lox", K, on_stage=lambda *what: told.append(what)
    )
    totals = {"factoring": len(subspace), "writing": len(weights(pair.aligned))}
    assert told == [(what, i, total) for what, total in totals.items() for i in range(total + 1)]


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": K, "alpha": -0.1}, "alpha=-0.1: use a finite number >= 0"),
        ({"k": -1}, "k=-1"),
        ({"k": 4, "rank": 3}, "k=4"),
        ({"k": None, "rank": 3}, "k=None"),
    ],
    ids=str,
)
def test_what_could_not_be_written_is_refused_before_it_is_factored(
    pair, tmp_path, counted, options, message
):
    with pytest.raises(ValueError, match=message):
        extrapolate(pair.base, pair.aligned, tmp_path / "lox", **options)
    assert list(tmp_path.iterdir()) == counted == []


def test_what_is_there_is_left_alone(pair, tmp_path):
    with pytest.raises(FileExistsError, match="exists; remove it or choose another name"):
        extrapolate(pair.base, pair.aligned, tmp_path, K)
    file, _ = in_two_steps(pair, tmp_path / "two", rank=5)
    with pytest.raises(FileExistsError, match="exists and is another subspace"):
        extrapolate(pair.base, pair.aligned, tmp_path / "lox", K, factors=file, rank=6)
    assert not (tmp_path / "lox").exists()
