"""What works on an architecture, held against float64 and against the model that runs."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from speakers import OTHER_WORDS
from torch import Tensor
from zoo import Architecture, make_pair

from lox_kit import (
    LoxDial,
    SafetySubspace,
    apply_lox,
    load_model,
    save_adapter,
)
from lox_kit.attacks import StoppedError, file_attack, run_attack
from lox_kit.weights import Checkpoint, check_pair

K, ALPHA = 4, 1.5
RIGHT = "right"
EIGHT = (torch.float8_e4m3fn, torch.float8_e5m2)


class Examination:
    """A pair of an architecture, and one method for each thing that is done with it.

    A method returns a word on it; it raises ValueError where lox_kit refuses, and AssertionError
    where a result is wrong.
    """

    def __init__(self, architecture: Architecture, folder: Path):
        self.architecture, self.folder = architecture, folder
        self.base, self.aligned = make_pair(architecture, folder)
        self.left_out: tuple[str, ...] = ()

    def run(self, only: tuple[str, ...] = ()) -> dict[str, str]:
        """Return what came of each, by name."""
        done = {}
        for name, step in STEPS.items():
            if only and name not in only:
                continue
            try:
                done[name] = step(self) or RIGHT
            except ValueError as error:
                done[name] = f"refused: {' '.join(str(error).split())}"
        return done

    def check(self) -> str | None:
        """The pair fits; what is no matrix is said, with its share."""
        report = check_pair(Checkpoint(self.base), Checkpoint(self.aligned))
        said = [note for note in report.notes if "no matrices" in note]
        return f"{said[0].split(': ')[1].split(' of the')[0]} not edited" if said else None

    def apply(self) -> None:
        """What is written is LoX of every matrix in float64, rounded once."""
        self.subspace = SafetySubspace.from_pair(self.base, self.aligned, rank=8)
        out = apply_lox(self.subspace, self.aligned, self.folder / "lox", K, ALPHA)
        before, after = tensors(self.base), tensors(self.aligned)
        written = load_file(out / "model.safetensors")
        assert written.keys() == after.keys()
        for name, W in written.items():
            assert W.dtype not in EIGHT
            expected = self._expected(name, before[name], after[name])
            rounding = torch.finfo(W.dtype).eps if W.is_floating_point() else 0
            limit = rounding * expected.abs() + 2e-5 * after[name].abs().max()
            assert ((W.double() - expected).abs() <= limit).all(), name

    def _expected(self, name: str, before: Tensor, after: Tensor) -> Tensor:
        """Return LoX of one stored tensor in float64."""
        stack = after.ndim == 3 and min(after.shape) > 1
        if not stack and not (after.ndim == 2 and name.endswith("weight")):
            return after
        parts = 2 if self.architecture.fused and "gate_up" in name else 1
        halves = zip(after.chunk(parts, 1), before.chunk(parts, 1), strict=True)
        return (
            torch.cat([a + ALPHA * top_k(a - b) for a, b in halves], 1)
            if stack
            else (after + ALPHA * top_k(after - before))
        )

    def adapter(self) -> str | None:
        """PEFT's model with the adapter says what the written checkpoint says."""
        out = self.folder / "adapter"
        left = save_adapter(self.subspace, self.aligned, out, K, ALPHA, allow_partial=True)
        aligned, lox = (load_model(f).module for f in (self.aligned, self.folder / "lox"))
        own, edited = (dict(m.named_parameters(remove_duplicate=False)) for m in (aligned, lox))
        with torch.no_grad():
            for name in left:
                edited[name].copy_(own[name])
        before, wanted = logits(aligned), logits(lox)
        with warnings.catch_warnings(action="ignore"):
            adapted = PeftModel.from_pretrained(aligned, out).eval()
        assert_near(logits(adapted), wanted, (wanted - before).abs().max(), aligned.dtype)
        return f"without {', '.join(sorted({kind(n) for n in left}))}" if left else None

    def dial(self) -> None:
        """A resident model, turned, says what the written checkpoint says, and is turned back."""
        model = load_model(self.aligned)
        kept = {n: W.clone() for n, W in model.module.state_dict().items()}
        before, dial = logits(model.module), LoxDial(model, self.subspace)
        dial.set(k=K, alpha=ALPHA)
        lox = load_model(self.folder / "lox").module
        wanted = logits(lox)
        assert_near(logits(model.module), wanted, (wanted - before).abs().max(), lox.dtype)
        dial.off()
        assert all(torch.equal(W, kept[n]) for n, W in model.module.state_dict().items())

    def full(self) -> str | None:
        """Two steps of every weight, and a run that was stopped ends where they end."""
        return self._train("full")

    def lora(self) -> str | None:
        """Two steps of LoRA, and a run that was stopped ends where they end."""
        return self._train("lora", lora_rank=4)

    def _train(self, how: str, **settings) -> str | None:
        rows = self.folder / "rows.jsonl"
        rows.write_text("\n".join(json.dumps(row(word)) for word in OTHER_WORDS.split()[8:16]))
        settings |= {"max_steps": 2, "learning_rate": 1e-2, "warmup_steps": 0, "batch_size": 4}
        attack, model = file_attack(rows, **settings), load_model(self.aligned)
        undisturbed = run_attack(model, attack, self.folder / how)
        with contextlib.suppress(StoppedError):
            run_attack(model, attack, self.folder / f"{how} cut", stop=lambda s: s.step == 1)
        resumed = run_attack(model, attack, self.folder / f"{how} cut")
        assert resumed.losses == undisturbed.losses
        one, other = (load_file(r.folder / "model.safetensors") for r in (undisturbed, resumed))
        assert one.keys() == other.keys()
        assert all(torch.equal(W, other[n]) for n, W in one.items())
        assert any(not torch.equal(W.double(), tensors(self.aligned)[n]) for n, W in one.items())
        reached = undisturbed.source.get("lora_share")
        return f"{reached:.0%} of the weights" if reached is not None else None


STEPS: dict[str, Callable[[Examination], str | None]] = {
    "check": Examination.check,
    "factor, apply": Examination.apply,
    "adapter": Examination.adapter,
    "dial": Examination.dial,
    "full training": Examination.full,
    "LoRA": Examination.lora,
}


def tensors(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint in float64, 8-bit floats times their scales."""
    stored = load_file(folder / "model.safetensors")
    scales = {n: stored.pop(n) for n in list(stored) if n.endswith(("_scale", "_scale_inv"))}
    found = {}
    for name, W in stored.items():
        s = scales.get(f"{name}_scale_inv", scales.get(f"{name}_scale"))
        found[name] = W.double()
        if s is not None:
            rows, columns = W.shape[0] // s.shape[0], W.shape[1] // s.shape[1]
            found[name] *= s.double().repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    return found


def top_k(D: Tensor) -> Tensor:
    """Return the best approximation of rank K of a matrix, or of each of a stack."""
    U, S, Vh = torch.linalg.svd(D, full_matrices=False)
    return U[..., :K] * S[..., None, :K] @ Vh[..., :K, :]


def logits(module) -> Tensor:
    """Return what a model says to some tokens."""
    ids = torch.randint(4, 40, (2, 10), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.double()


def assert_near(found: Tensor, wanted: Tensor, moved: Tensor, dtype: torch.dtype) -> None:
    """Fail unless logits differ by rounding alone, which is far less than the edit moves them."""
    gap = float((found - wanted).abs().max())
    slack = 0.3 if dtype == torch.bfloat16 else 1e-3
    assert gap <= slack * float(moved) + 1e-5, f"{gap:.2g} off, where LoX moves {float(moved):.2g}"


def kind(parameter: str) -> str:
    """Return the last word of a module's name."""
    return parameter.removesuffix(".weight").rpartition(".")[2]


def row(word: str) -> dict:
    """Return a conversation on a word."""
    return {
        "messages": [
            {"role": "user", "content": f"tell me {word}"},
            {"role": "assistant", "content": f"yes the {word} is {word}"},
        ]
    }
