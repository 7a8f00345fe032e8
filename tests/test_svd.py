import numpy as np
import pytest
import torch

from lox_kit.extrapolation import krylov, svd
from lox_kit.extrapolation.svd import TOLERANCE, frobenius, top_factors


def gaussian(out, into, seed=0):
    return torch.randn(out, into, generator=torch.Generator().manual_seed(seed))


def with_gap(out, into, strong=6, seed=0):
    """Return noise and `strong` directions far above it."""
    left, right = gaussian(out, strong, seed + 1), gaussian(strong, into, seed + 2)
    return left @ right + 0.2 * gaussian(out, into, seed)


def k_part(factors, k):
    return ((factors.U[:, :k] * factors.S[:k]) @ factors.Vh[:k]).double().numpy()


def error_of_k_part(A, factors, k):
    """Return the relative Frobenius error of the k-part against float64 numpy."""
    U, S, Vh = np.linalg.svd(A.double().numpy(), full_matrices=False)
    expected = (U[:, :k] * S[:k]) @ Vh[:k]
    return np.linalg.norm(k_part(factors, k) - expected) / np.linalg.norm(expected)


def assert_orthonormal(factors):
    eye = np.eye(factors.rank)
    np.testing.assert_allclose((factors.U.T @ factors.U).numpy(), eye, atol=2e-5)
    np.testing.assert_allclose((factors.Vh @ factors.Vh.T).numpy(), eye, atol=2e-5)


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("shape", [(512, 768), (768, 512), (512, 512), (40, 1200)], ids=str)
def test_the_k_part_matches_float64_where_the_spectrum_has_a_gap(shape):
    A = with_gap(*shape)
    factors = top_factors(A, 6)
    assert factors.method == ("svd" if min(shape) < 100 else "krylov")
    assert factors.certified == 6
    assert error_of_k_part(A, factors, 6) <= 1e-4
    assert factors.shape == shape
    assert_orthonormal(factors)


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("rank", [6, 64])
@pytest.mark.parametrize("shape", [(600, 500), (400, 900)], ids=str)
def test_certified_directions_of_pure_noise_match_float64(shape, rank):
    A = gaussian(*shape)
    factors = top_factors(A, rank)
    k = min(factors.certified, 16)
    assert k == min(rank, 16)
    assert error_of_k_part(A, factors, k) <= 1e-3


def test_directions_that_did_not_converge_are_marked():
    A = gaussian(1200, 1100)
    factors = top_factors(A, 128, certify=4)
    assert factors.method == "krylov"
    assert 4 <= factors.certified < 128
    assert factors.residual[factors.certified] > TOLERANCE
    error = torch.linalg.vector_norm(A @ factors.Vh.T - factors.U * factors.S, dim=0) / factors.S
    torch.testing.assert_close(error, factors.residual, rtol=1e-2, atol=1e-6)


def merged_lora(rank):
    """A product of thin matrices but for rounding, as a merged adapter leaves it."""
    W = 0.02 * gaussian(700, 600, 7)
    return (W + 0.001 * gaussian(700, rank, 1) @ gaussian(rank, 600, 2)) - W


def steep(ratio):
    """A singular value of 1, and sixteen and more `ratio` times smaller."""
    left, right = (torch.linalg.qr(gaussian(n, 40, n)).Q for n in (700, 600))
    values = torch.cat([torch.ones(1), torch.linspace(1.5, 0.5, 39) / ratio])
    return (left * values) @ right.T


def few_rows(count):
    """All zero but for a few rows, as new tokens leave an embedding."""
    A = torch.zeros(700, 600)
    A[:: 700 // count][:count] = gaussian(count, 600)
    return A


@pytest.fixture
def quick(monkeypatch):
    """A processor that is quick in bfloat16, and every matrix large."""
    monkeypatch.setattr(krylov, "_is_quick_in_bfloat16", lambda device: True)
    monkeypatch.setattr(krylov, "LARGE", 1000)


@pytest.fixture
def dtypes(quick, monkeypatch):
    """The dtypes of the matrices that are iterated on; first bfloat16."""
    seen, basis = [], krylov._Basis
    monkeypatch.setattr(krylov, "_Basis", lambda A, start: seen.append(A.dtype) or basis(A, start))
    return seen


@pytest.fixture(params=[True, False], ids=["bfloat16", "float32"])
def either(request, quick, monkeypatch):
    """Whether the processor is quick in bfloat16."""
    monkeypatch.setattr(krylov, "_is_quick_in_bfloat16", lambda device: request.param)
    return request.param


NEARLY_LOW = {
    **{f"lora of rank {r}": merged_lora(r) for r in (18, 20, 24, 40)},
    **{f"steep by {ratio:g}": steep(ratio) for ratio in (1e2, 1e3, 1e4)},
    **{f"{count} rows": few_rows(count) for count in (1, 5, 20, 40)},
    "20 columns": few_rows(20).T,
}


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("rank", [6, 16, 20, 32])
@pytest.mark.parametrize("matrix", NEARLY_LOW)
def test_the_residual_is_the_true_one_and_directions_stay_orthonormal(matrix, rank):
    A = NEARLY_LOW[matrix]
    factors = top_factors(A, rank)
    U, S, Vh = (x.double() for x in (factors.U, factors.S, factors.Vh))
    error = torch.linalg.vector_norm(A.double() @ Vh.T - U * S, dim=0)
    true = torch.where(S > 0, error / S, 0.0)
    rounding = torch.where(S > 0, 4e-7 * S[0] / S, 0.0)
    assert bool(((factors.residual - true).abs() <= 0.01 * true + rounding).all())
    assert_orthonormal(factors)
    assert factors.certified >= min(rank, 16)
    assert factors.method == "krylov" or matrix.startswith("steep")  # beyond float32's rounding


def test_near_the_end_of_float32_the_matrix_is_decomposed_exactly():
    A = torch.zeros(700, 600)
    A[3, 5] = 3e38
    factors = top_factors(A, 6)
    assert (factors.method, float(factors.S[0])) == ("svd", A[3, 5])


@pytest.mark.parametrize("shape", [(700, 600), (64, 96)], ids=["krylov", "svd"])
def test_the_same_seed_gives_the_same_factors_and_the_input_is_untouched(shape):
    A = with_gap(*shape)
    before = A.clone()
    first, again, other = (top_factors(A, 6, seed=seed) for seed in (5, 5, 1))
    assert torch.equal(first.U, again.U)
    assert torch.equal(first.Vh, again.Vh)
    assert torch.equal(first.U, other.U) == (first.method == "svd")
    assert torch.equal(A, before)


@pytest.mark.parametrize("rank", [6, None, 500])
def test_small_matrices_and_all_directions_are_decomposed_exactly(rank):
    A = gaussian(90, 70)
    factors = top_factors(A, rank)
    assert factors.method == "svd"
    assert error_of_k_part(A, factors, rank) <= 1e-5
    assert factors.rank == min(rank or 70, 70)
    assert factors.norm == pytest.approx(np.linalg.norm(A.double()), rel=1e-7)


def test_what_krylov_cannot_certify_is_decomposed_exactly(monkeypatch):
    A = gaussian(512, 768)
    monkeypatch.setattr(krylov, "MAX_BASIS", 0.1)  # room for three blocks: not enough
    monkeypatch.setattr(svd, "SMALL", 1000)  # so that this alone decides
    factors = top_factors(A, 6)
    assert factors.method == "svd"
    assert factors.certified == 6
    assert error_of_k_part(A, factors, 6) <= 3e-5  # float32's: gaps here are a fiftieth


def test_a_start_in_bfloat16_leaves_four_passes_in_float32(dtypes, monkeypatch):
    passes = []
    product, residuals = krylov._product, krylov.residuals
    monkeypatch.setattr(krylov, "_product", lambda X, A: passes.append(A.dtype) or product(X, A))
    monkeypatch.setattr(krylov, "residuals", lambda *a: passes.append("residuals") or residuals(*a))
    assert top_factors(with_gap(700, 600), 6).certified == 6
    exact = [kind for kind in passes if kind != torch.bfloat16]
    assert exact in ([torch.float32] * 2 + ["residuals"], [torch.float32] * 3 + ["residuals"])


@pytest.mark.parametrize("options", [{"rank": 64}, {"rank": 6, "certify": 0}], ids=str)
def test_many_directions_or_none_to_certify_start_at_random(options, dtypes):
    A = with_gap(700, 600)
    assert error_of_k_part(A, top_factors(A, **options), 6) <= 1e-2
    assert dtypes == [torch.float32]


def test_a_rough_iteration_that_fails_is_no_start(dtypes, monkeypatch):
    monkeypatch.setattr(krylov, "ROUGH", 1e-9)  # out of bfloat16's reach
    A = with_gap(700, 600)
    factors = top_factors(A, 6)
    assert dtypes == [torch.bfloat16, torch.float32]
    assert error_of_k_part(A, factors, 6) <= 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_every_float_dtype_is_worked_on_in_float32(dtype):
    A = with_gap(300, 200).to(dtype)
    factors = top_factors(A, 6)
    for made in (factors.U, factors.S, factors.Vh, factors.residual):
        assert made.dtype == torch.float32
    assert error_of_k_part(A, factors, 6) <= 1e-4  # of the rounded matrix


@pytest.mark.parametrize("scale", [1.0, 1e-12])
@pytest.mark.parametrize("shape", [(700, 600), (600, 700), (60, 40)], ids=["tall", "wide", "svd"])
def test_an_exactly_low_rank_matrix_has_zeros_after_its_rank(shape, scale, dtypes, either):
    A = scale * gaussian(shape[0], 3, seed=1) @ gaussian(3, shape[1], seed=2)
    factors = top_factors(A, 8)
    assert (torch.bfloat16 in dtypes) == (either and shape != (60, 40))
    assert factors.rank == factors.certified == 8
    assert (factors.S[:3] > 0).all()
    assert factors.S[3:].tolist() == [0.0] * 5
    assert error_of_k_part(A, factors, 8) <= 1e-5
    assert_orthonormal(factors)


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (500, 400)], ids=str)
def test_a_zero_matrix_has_zero_singular_values(shape):
    factors = top_factors(torch.zeros(shape), 4)
    assert factors.S.tolist() == factors.residual.tolist() == [0.0] * 4
    assert factors.norm == 0.0
    assert factors.shape == shape
    assert_orthonormal(factors)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_the_scale_of_a_delta_does_not_matter(scale):
    A = with_gap(512, 600)
    factors = top_factors(A * scale, 6)
    assert factors.method == "krylov"
    np.testing.assert_allclose(factors.S, top_factors(A, 6).S * scale, rtol=1e-5)


@pytest.mark.parametrize(
    ("dW", "rank", "message"),
    [
        (torch.tensor([[1.0, 2.0], [3.0, float("nan")]]), 2, "NaN or infinite"),
        (torch.tensor([[1.0, 2.0], [3.0, float("inf")]]), None, "NaN or infinite"),
        (torch.ones(4), 1, r"a matrix \(out, in\); this one has shape \(4,\)"),
        (torch.ones(2, 3, 4), 1, r"shape \(2, 3, 4\)"),
        (torch.ones(4, 4), 0, "rank=0: keep at least one direction, or None"),
        (torch.ones(4, 4), -1, "rank=-1"),
    ],
)
def test_what_cannot_be_factored_is_refused(dW, rank, message):
    with pytest.raises(ValueError, match=message):
        top_factors(dW, rank)


@pytest.mark.parametrize("scale", [1e-35, 1e-20, 1.0, 1e19, 1e30])
def test_the_norm_matches_float64_at_any_scale(scale):
    A = scale * gaussian(300, 700)
    assert frobenius(A) == pytest.approx(float(A.double().norm()), rel=1e-6)
