"""Quantised checkpoints: 8-bit floats are read times their scales, codes are refused by name."""

import json
import shutil

import pytest
import torch
from checkpoints import UP, weights
from safetensors.torch import save_file

from lox_kit import SafetySubspace, apply_lox
from lox_kit.models import load_module
from lox_kit.weights.checkpoint import Checkpoint
from lox_kit.weights.quantised import dequantise

FLOAT8 = torch.float8_e4m3fn


def quantised(folder, to, pack, said):
    """Write a checkpoint whose projections are packed by a function, with a config that says so."""
    shutil.copytree(folder, to)
    tensors = {}
    for name, W in weights(folder).items():
        tensors |= pack(name, W) if "proj" in name else {name: W}
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((to / "config.json").read_text()) | {"quantization_config": said}
    (to / "config.json").write_text(json.dumps(config))
    return to


def by_tensor(name, W):
    s = W.abs().max() / 448
    more = {name.replace("weight", "input_scale"): torch.ones(())}
    return {name: (W / s).to(FLOAT8), f"{name}_scale": s, **more}


def by_channel(name, W):
    s = W.abs().amax(1) / 448
    return {name: (W / s[:, None]).to(FLOAT8), f"{name}_scale": s}


def by_block(name, W):
    s = W.reshape(W.shape[0] // 16, 16, W.shape[1] // 16, 16).abs().amax((1, 3)) / 448
    wide = s.repeat_interleave(16, 0).repeat_interleave(16, 1)
    return {name: (W / wide).to(FLOAT8), f"{name}_scale_inv": s}


GROUPS = {"group_0": {"weights": {"strategy": "block", "block_structure": [16, 16]}}}
EIGHT = {
    "groups": (by_block, {"quant_method": "compressed-tensors", "config_groups": GROUPS}),
    "modelopt": (by_tensor, {"quant_method": "modelopt", "quant_algo": "FP8"}),
    "compressed-tensors": (by_channel, {"quant_method": "compressed-tensors"}),
    "fp8": (by_block, {"quant_method": "fp8", "weight_block_size": [16, 16]}),
}


@pytest.mark.parametrize(("pack", "said"), EIGHT.values(), ids=EIGHT)
@pytest.mark.parametrize("side", ["base", "aligned", "both"])
def test_lox_of_8_bit_floats_is_that_of_their_values(pair, tmp_path, pack, said, side):
    folders = {
        name: quantised(folder, tmp_path / name, pack, said) if side in (name, "both") else folder
        for name, folder in (("base", pair.base), ("aligned", pair.aligned))
    }
    before, after = (Checkpoint(f).read(UP).double() for f in folders.values())
    subspace = SafetySubspace.from_pair(*folders.values(), rank=8)
    out = apply_lox(subspace, folders["aligned"], tmp_path / "lox", 4, 1.5)
    U, S, Vh = torch.linalg.svd(after - before)
    expected = after + 1.5 * U[:, :4] * S[:4] @ Vh[:4]
    W = weights(out)[UP]
    assert W.dtype == (torch.float32 if side == "base" else torch.bfloat16)
    limit = torch.finfo(W.dtype).eps * expected.abs() + 1e-5
    assert ((W.double() - expected).abs() <= limit).all()
    assert not [name for name in weights(out) if "scale" in name]
    assert ("quantization_config" in (out / "config.json").read_text()) is False


def test_a_model_of_8_bit_floats_has_the_values_that_are_edited(pair, tmp_path):
    folder = quantised(pair.aligned, tmp_path / "eight", *EIGHT["fp8"])
    module = load_module(Checkpoint(folder))
    expected = Checkpoint(folder).read(UP).to(torch.bfloat16)
    assert torch.equal(module.state_dict()[UP].to(torch.bfloat16), expected)


def test_a_written_model_answers_as_its_float64_edit_does_but_for_rounding(pair, tmp_path):
    sides = [
        quantised(folder, tmp_path / name, *EIGHT["fp8"])
        for name, folder in (("base", pair.base), ("aligned", pair.aligned))
    ]
    subspace = SafetySubspace.from_pair(*sides, rank=8)
    written = load_module(Checkpoint(apply_lox(subspace, sides[1], tmp_path / "lox", 4, 1.5)))
    exact = load_module(Checkpoint(sides[1]), dtype="float64")
    state = exact.state_dict()
    for name in subspace:
        before, after = (Checkpoint(side).read(name).double() for side in sides)
        U, S, Vh = torch.linalg.svd(after - before, full_matrices=False)
        state[name].copy_(after + 1.5 * U[:, :4] * S[:4] @ Vh[:4])
    ids = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        found, expected = (m(input_ids=ids).logits.double() for m in (written.double(), exact))
    assert (found - expected).norm() <= 2**-7 * expected.norm()  # half a unit of bfloat16 is 2^-9


def codes(name, W):
    """Return what GPTQ stores."""
    packed = torch.zeros(W.shape[1] // 8, W.shape[0], dtype=torch.int32)
    return {name.replace("weight", "qweight"): packed, name.replace("weight", "scales"): W[:1]}


CODES = {
    "gptq": codes,
    "compressed-tensors": lambda name, W: {name: (W * 9).to(torch.int8), f"{name}_scale": W[:1]},
    "bitsandbytes": lambda name, W: {name: W},  # whole weights that would be quantised in memory
    "mlx": lambda name, W: {name: torch.zeros(len(W), 4, dtype=torch.uint32)},
    "mxfp4": lambda name, W: {name.replace(".weight", "_blocks"): (W * 9).to(torch.uint8)},
}


@pytest.mark.parametrize("method", CODES)
def test_codes_are_refused_by_name(pair, tmp_path, method):
    folder = quantised(pair.aligned, tmp_path / "codes", CODES[method], {"quant_method": method})
    message = rf"quantised \({method}; .*Give the checkpoint that it was quantised from"
    with pytest.raises(ValueError, match=message) as refused:
        Checkpoint(folder)
    assert str(refused.value).endswith("take that out of config.json.") == (
        method == "bitsandbytes"
    )


def test_8_bit_floats_without_their_scales_are_refused(pair, tmp_path):
    said = {"quant_method": "fp8"}
    folder = quantised(pair.aligned, tmp_path / "a", lambda n, W: {n: W.to(FLOAT8)}, said)
    with pytest.raises(ValueError, match=r"is in torch.float8_e4m3fn and has no .*_scale_inv"):
        Checkpoint(folder)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (6,), (6, 1), (3, 2), (2, 2)])
def test_a_scale_counts_for_a_tensor_a_channel_or_a_block(shape):
    W = torch.arange(1.0, 25).reshape(6, 4)
    scale, block = torch.rand(shape) + 1, None
    wide = scale.reshape(6, 1) if shape == (6,) else scale
    if len(shape) == 2:
        block = 6 // shape[0], 4 // shape[1]
        wide = wide.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    found = dequantise(W.to(FLOAT8), scale, block)
    torch.testing.assert_close(found, W.to(FLOAT8).float() * wide)


def test_the_last_block_may_be_smaller_and_scales_that_do_not_fit_are_refused():
    W, s = torch.ones(6, 4).to(FLOAT8), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert dequantise(W, s, (4, 3))[:, 3].tolist() == [2, 2, 2, 2, 4, 4]
    for scale, block in ((torch.ones(3, 2), None), (s, (2, 2)), (torch.ones(5), None)):
        with pytest.raises(ValueError, match=r"scales \(.*\) do not"):
            dequantise(W, scale, block)
