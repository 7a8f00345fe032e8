import shutil

import pytest
import torch
from checkpoints import UP, delta, save_tensors, weights

from lox_kit.weights.checkpoint import Checkpoint
from lox_kit.weights.pair import check_pair
from lox_kit.weights.pair import delta as float32_delta


def pair_of(tmp_path, base, aligned):
    """Write two checkpoints of these tensors and open them."""
    made = {"base": base, "aligned": aligned}
    return [Checkpoint(save_tensors(tmp_path / name, tensors)) for name, tensors in made.items()]


def test_a_fitting_pair_is_reported(pair):
    report = check_pair(Checkpoint(pair.base), Checkpoint(pair.aligned))
    assert set(report.matrices) == {n for n, W in weights(pair.aligned).items() if W.ndim == 2}
    assert report.tied is None
    assert report.notes == ()
    assert report.largest_mb == pytest.approx(4e-6 * 48 * 32)
    file = pair.aligned / "model.safetensors"
    assert report.total_mb == pytest.approx(file.stat().st_size / 1e6)


def test_patterns_choose_the_matrices(pair):
    checkpoints = Checkpoint(pair.base), Checkpoint(pair.aligned)
    report = check_pair(*checkpoints, include="mlp", exclude=r"layers\.0|gate|down")
    assert report.matrices == (UP,)
    assert report.notes == (
        r"15 of 16 matrices are left out (include='mlp', exclude='layers\\.0|gate|down'); "
        "the paper takes all.",
    )


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"include": "q_porj"}, r"include='q_porj'.* leave no matrix .*A name looks like \w"),
        ({"exclude": "*.mlp"}, r"'\*.mlp': not a regular expression"),
    ],
)
def test_patterns_that_choose_nothing_are_refused(pair, patterns, message):
    with pytest.raises(ValueError, match=message):
        check_pair(Checkpoint(pair.base), Checkpoint(pair.aligned), **patterns)


def test_a_gained_token_is_explained(tmp_path):
    base = {"model.embed_tokens.weight": torch.zeros(5, 2), "lm_head.weight": torch.zeros(4, 2)}
    aligned = {"model.embed_tokens.weight": torch.ones(5, 2), "lm_head.weight": torch.ones(5, 2)}
    message = (
        r"lm_head.weight: base has shape \(4, 2\), aligned has \(5, 2\). One checkpoint gained a "
        r'token; resize the base embeddings, or pass exclude="lm_head\|embed_tokens".'
    )
    with pytest.raises(ValueError, match=message):
        check_pair(*pair_of(tmp_path, base, aligned))


def test_another_shape_elsewhere_is_another_architecture(tmp_path):
    pair = pair_of(tmp_path, {"a.weight": torch.zeros(4, 2)}, {"a.weight": torch.ones(2, 4)})
    with pytest.raises(ValueError, match=r"a.weight: base has shape \(4, 2\).*one architecture"):
        check_pair(*pair)


def test_a_matrix_on_one_side_only_is_named(tmp_path):
    few, more = (
        {"a.weight": torch.zeros(2, 2)},
        {n: torch.ones(2, 2) for n in ("a.weight", "b.weight")},
    )
    few, more = pair_of(tmp_path, few, more)
    with pytest.raises(ValueError, match=r'b.weight: in .*aligned .*exclude="b\\\.weight"'):
        check_pair(few, more)
    with pytest.raises(ValueError, match=r"b.weight: in .*aligned but not in .*base \(1 such"):
        check_pair(more, few)
    assert check_pair(few, more, exclude="b").matrices == ("a.weight",)


def test_of_an_unknown_architecture_what_differs_is_named_and_may_be_left_out(tmp_path):
    head, config = {"v_head.summary.weight": torch.ones(1, 2)}, {"model_type": "of-my-own"}
    for name, x, more in (("base", 1.0, {}), ("aligned", 2.0, head)):
        W = torch.full((3, 2), x)
        both = {"lm_head.weight": W, "model.embed_tokens.weight": W.clone()}  # of a tie unsaid
        save_tensors(tmp_path / name, both | more, config)
    pair = [Checkpoint(tmp_path / name) for name in ("base", "aligned")]
    with pytest.raises(ValueError, match=r"v_head.summary.weight: in .*aligned but not in"):
        check_pair(*pair)
    assert set(check_pair(*pair, exclude="v_head").matrices) == set(both)


def test_the_same_weights_are_no_pair(pair, tmp_path):
    copy = shutil.copytree(pair.aligned, tmp_path / "copy")
    (copy / "config.json").write_text("{}")
    for other in (pair.aligned, copy):
        with pytest.raises(ValueError, match="hold the same weights: the delta is zero"):
            check_pair(Checkpoint(other), Checkpoint(pair.aligned))


def test_what_may_surprise_is_noted(tmp_path):
    def tensors(x, dtype):
        return {
            "model.embed_tokens.weight": torch.full((4, 2), x),
            "a.weight": torch.full((2, 2), x, dtype=dtype),
            "experts.weight": torch.full((3, 2, 2), x),
            "norm.weight": torch.full((2,), x),
            "steps": torch.ones(2, 2, dtype=torch.int64),
        }

    pair = pair_of(tmp_path, tensors(0.0, torch.float32), tensors(1.0, torch.bfloat16))
    report = check_pair(*pair)
    assert set(report.matrices) == {"model.embed_tokens.weight", "a.weight"}
    tied, dtypes, stacked = report.notes
    assert tied.startswith("model.embed_tokens.weight is tied to the output head")
    assert dtypes.startswith("1 matrices have another dtype in base (torch.float32)")
    assert stacked.startswith("2 tensors of more than one dimension are no matrices")
    assert "the first is steps): 53.33% of the numbers" in stacked


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_delta_is_taken_in_float32(make_pair, dtype):
    pair = make_pair(dtype=dtype)
    dW = float32_delta(Checkpoint(pair.base), Checkpoint(pair.aligned), UP, "cpu")
    assert dW.dtype == torch.float32
    torch.testing.assert_close(dW.double(), torch.from_numpy(delta(pair, UP)), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float64, torch.bfloat16])
def test_a_delta_between_two_dtypes_is_theirs_to_the_last_bit(tmp_path, dtype):
    before, after = torch.eye(2).to(dtype), torch.full((2, 2), 3.0)
    pair = pair_of(tmp_path, {"a.weight": before}, {"a.weight": after})
    dW = float32_delta(*pair, "a.weight", "cpu")
    assert dW.tolist() == [[2.0, 3.0], [3.0, 2.0]]
