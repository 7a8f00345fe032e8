"""The safety subspace: the top singular triplets of what alignment changed, matrix by matrix.

`SafetySubspace.from_pair` streams two checkpoints and factors each delta once. Rank-k pieces nest,
so every k up to the stored rank, every alpha, the spectrum, R_align and R_ft follow from the one
file it makes (Perin et al. 2025, arXiv:2506.15606, section 3).
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from . import __version__
from .checkpoint import Checkpoint, check_pair
from .stream import SafetensorsStream
from .svd import METHODS, TOLERANCE, Factors, frobenius, singular_values, top_factors

FULL = "full"
OnLayer = Callable[[int, int, str], None]  # layers done, layers in all, the next one's name


class UncertifiedRank(UserWarning):
    """More directions are used than the factorization could certify."""


class SafetySubspace(Mapping[str, Factors]):
    """Top singular triplets of `W_aligned - W_base` for every matrix, by parameter name.

    Made by `from_pair` or `load`. Factors of a file are read when they are asked for.

    Attributes
    ----------
    info : dict
        Where it comes from: names and fingerprints of base and aligned, rank, certify, seed,
        include, exclude, spectrum, tied, version.
    """

    def __init__(self, info: dict, *, factors: dict | None = None, file: Path | None = None):
        self.info = info
        self._factors = factors or {}
        self._file = file
        self._names = tuple(info["layers"])

    @classmethod
    def from_pair(
        cls,
        base: str | Path,
        aligned: str | Path,
        out: str | Path | None = None,
        *,
        rank: int | str = 64,
        spectrum: str = "top",
        include: str | None = None,
        exclude: str | None = None,
        certify: int = 16,
        seed: int = 0,
        device: str = "cpu",
        on_layer: OnLayer | None = None,
    ) -> SafetySubspace:
        """Factor every weight delta of a pair, one matrix in memory at a time.

        Parameters
        ----------
        base, aligned : path or sandbox name
            The checkpoints before and after alignment.
        out : path, optional
            Stream the factors to this safetensors file; a run that was cut off is taken up again.
            Without it they stay in memory.
        rank : int or "full"
            Directions kept per matrix; "full" keeps all of them, exactly.
        spectrum : "top" or "full"
            "full" stores all singular values as well.
        include, exclude : regular expression, optional
            Which 2-D tensors; default all of them, embeddings and lm_head too, as in the paper.
        certify : int
            Leading triplets that must converge; see `top_factors`.
        device : str
            Where the arithmetic is done: "cpu", "cuda", "mps".

        Raises
        ------
        ValueError
            If the pair does not fit (`check_pair`), a delta is not finite, or every one is zero.
        """
        if spectrum not in ("top", FULL):
            raise ValueError(f"spectrum={spectrum!r}: use 'top' or 'full'.")
        if rank != FULL and (not isinstance(rank, int) or rank < 1):
            raise ValueError(f"rank={rank!r}: use a positive number, or 'full'.")
        first, second = Checkpoint(base), Checkpoint(aligned)
        report = check_pair(first, second, include=include, exclude=exclude)
        info = {
            "layers": list(report.matrices),
            "shapes": [list(second.tensors[n].shape) for n in report.matrices],
            "base": first.name,
            "aligned": second.name,
            "base_fingerprint": first.fingerprint,
            "aligned_fingerprint": second.fingerprint,
            "rank": rank,
            "spectrum": spectrum,
            "include": include,
            "exclude": exclude,
            "certify": certify,
            "seed": seed,
            "tied": report.tied,
            "version": __version__,
        }
        deltas = _deltas(first, second, device)
        if out is None:
            factors, layers = {}, report.matrices
            for i, (name, dW) in enumerate(deltas(layers)):
                _tell(on_layer, i, layers)
                factors[name] = _factor(name, dW, info)
            _tell(on_layer, len(layers), layers)
            _refuse_zero([f.norm for f in factors.values()])
            return cls(info, factors=factors)
        return cls._stream(Path(out), info, deltas, on_layer)

    @classmethod
    def _stream(cls, out, info, deltas, on_layer) -> SafetySubspace:
        """Factor into a file, layer by layer, going on where a partial one ends."""
        layers = info["layers"]
        with _open_stream(out, info) as file:
            done = layers.index(file.missing[0].rpartition(".")[0]) if file.missing else len(layers)
            for i, (name, dW) in enumerate(deltas(layers[done:]), start=done):
                _tell(on_layer, i, layers)
                for part, tensor in _tensors(name, _factor(name, dW, info)).items():
                    file.write(part, tensor)
        _tell(on_layer, len(layers), layers)
        subspace = cls.load(out)
        try:
            _refuse_zero(subspace.norms)
        except ValueError:
            out.unlink()
            raise
        return subspace

    @classmethod
    def load(cls, file: str | Path) -> SafetySubspace:
        """Open a subspace file; its factors are read as they are asked for.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file, or it is not one that `from_pair` or `save` made.
        """
        file = Path(file)
        if not file.exists():
            raise FileNotFoundError(f"{file}: no such file. `lox factor BASE ALIGNED -o` makes it.")
        try:
            with safe_open(file, "pt") as f:
                info = json.loads((f.metadata() or {}).get("lox_kit", "null"))
        except SafetensorError as error:
            raise ValueError(f"{file}: not a whole safetensors file ({error}).") from error
        if not info:
            raise ValueError(f"{file}: not a subspace file; `lox factor` makes those.")
        return cls(info, file=file)

    def save(self, file: str | Path) -> Path:
        """Write all factors to one safetensors file and return its path."""
        with _open_stream(file, self.info) as stream:
            for name in dict.fromkeys(part.rpartition(".")[0] for part in stream.missing):
                for part, tensor in _tensors(name, self[name]).items():
                    stream.write(part, tensor)
        return Path(file)

    # --- a mapping of names to factors --------------------------------------------------------

    def __getitem__(self, name: str) -> Factors:
        if name in self._factors:
            return self._factors[name]
        if self._file is None or name not in self._names:
            raise KeyError(f"{name}: not in this subspace ({len(self)} matrices).")
        with safe_open(self._file, "pt") as f:
            norm, method = f.get_tensor(f"{name}.info").tolist()
            names = ["U", "S", "Vh", "residual"] + ["spectrum"] * self._has_spectrum
            parts = {part: f.get_tensor(f"{name}.{part}") for part in names}
        return Factors(**parts, norm=norm, method=METHODS[int(method)])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    # --- what follows from it -----------------------------------------------------------------

    def top(self, name: str, k: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return U (out, k), S (k,) and Vh (k, in) of one matrix, cut to the rank it has.

        Raises
        ------
        ValueError
            If `k` is negative, or larger than what is stored.
        """
        self.check_rank(k)
        factors = self[name]
        return factors.U[:, :k], factors.S[:k], factors.Vh[:k]

    def check_rank(self, k: int | None) -> None:
        """Raise if `k` directions are not stored; warn if they are but were not certified.

        A matrix whose smaller side is under `k` has all its directions in use.
        """
        if k is None and self.info["rank"] != FULL:
            raise ValueError(
                f"k=None keeps all directions and the subspace holds {self.info['rank']}: factor "
                'again with rank="full" (--rank full).'
            )
        if k is not None and k < 0:
            raise ValueError(f"k={k}: use 0 or more directions, or None for all.")
        if k is not None and self.info["rank"] != FULL and k > self.info["rank"]:
            raise ValueError(
                f"k={k} and the subspace holds {self.info['rank']} directions: factor again with "
                f"rank={k} (--rank {k})."
            )
        loose = [n for n, (_, residual, _) in self._values.items() if _is_loose(residual, k)]
        if loose:
            worst = max(float(self._values[n][1][:k].max()) for n in loose)
            warnings.warn(
                f"k={k} goes beyond the certified directions in {len(loose)} of {len(self)} "
                f"matrices (residual up to {worst:.0e} of the singular value; certified means "
                f"{TOLERANCE:.0e}). Factor again with certify={k} to make sure.",
                UncertifiedRank,
                stacklevel=3,
            )

    @property
    def _values(self) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
        """S, residual and |dW|_F of every matrix: the small part, read once."""
        if not hasattr(self, "_values_read"):
            self._values_read = dict(self._read_values())
        return self._values_read

    def _read_values(self):
        if self._file is None:
            for name in self:
                f = self[name]
                yield name, (f.S.cpu().numpy(), f.residual.cpu().numpy(), f.norm)
            return
        with safe_open(self._file, "pt") as f:
            for name in self:
                S, residual, (norm, _) = (
                    f.get_tensor(f"{name}.{p}").numpy() for p in ("S", "residual", "info")
                )
                yield name, (S, residual, float(norm))

    @property
    def norms(self) -> np.ndarray:
        """|dW|_F of every matrix, shape (n_layers,)."""
        return np.array([norm for _, _, norm in self._values.values()])

    def spectrum(self, name: str) -> np.ndarray:
        """Return the singular values of one matrix, descending: all of them if they were stored.

        Shape (rank,), or (min(out, in),) with `spectrum="full"` or `rank="full"`.
        """
        return self[name].spectrum.cpu().numpy() if self._has_spectrum else self._values[name][0]

    @property
    def _has_spectrum(self) -> bool:
        """Whether all singular values are stored beside the factors."""
        return self.info["spectrum"] == FULL and self.info["rank"] != FULL

    def energy(self, k: int | None) -> np.ndarray:
        """Return |Proj_k(dW)|_F^2 / |dW|_F^2 of every matrix: shape (n_layers,), in [0, 1].

        A matrix that alignment did not change has energy 0.
        """
        self.check_rank(k)
        kept = [
            float(np.square(S[:k], dtype=np.float64).sum()) for S, _, _ in self._values.values()
        ]
        whole = np.square(self.norms)
        share = np.divide(kept, whole, out=np.zeros(len(self)), where=whole > 0)
        return np.minimum(share, 1.0)  # rounding in float32 can pass 1 by 1e-7

    def r_align(self, k: int | None) -> np.ndarray:
        """Return R_align = |Proj_k(dW)|_F / |dW|_F of every matrix: (n_layers,), in [0, 1]."""
        return np.sqrt(self.energy(k))

    def r_ft(
        self,
        base: str | Path,
        finetuned: str | Path,
        k: int | None,
        *,
        device: str = "cpu",
        on_layer: OnLayer | None = None,
    ) -> SubspaceShare:
        """Return how much of `W_ft - W_base` lies in the top-k safety subspace, beside R_align.

        R_ft = |U_k U_k^T (dW_align + dW_ft)|_F / |dW_align + dW_ft|_F (paper, section 3.2). Both
        checkpoints are streamed.

        Raises
        ------
        ValueError
            If `k` is not stored, or a matrix is missing or has another shape.
        """
        self.check_rank(k)
        first, second = Checkpoint(base), Checkpoint(finetuned)
        for checkpoint in (first, second):
            self.check_shapes(checkpoint)
        shares = []
        for i, (name, M) in enumerate(_deltas(first, second, device)(self._names)):
            _tell(on_layer, i, self._names)
            U = self[name].U[:, :k].to(M.device)
            whole = frobenius(M)
            shares.append(min(frobenius(U.T @ M) / whole, 1.0) if whole else 0.0)
        source = {"base": first.name, "finetuned": second.name, "version": __version__}
        return SubspaceShare(self._names, self.r_align(k), np.array(shares), k, source)

    def check_shapes(self, checkpoint: Checkpoint) -> None:
        """Raise ValueError if a matrix is missing from a checkpoint or has another shape there."""
        for name, shape in zip(self._names, self.info["shapes"], strict=True):
            there = checkpoint.tensors.get(name)
            if there is None or list(there.shape) != shape:
                raise ValueError(
                    f"{name}: the subspace has shape {tuple(shape)}, {checkpoint.name} has "
                    f"{there.shape if there else 'no such tensor'}. It was made from "
                    f"{self.info['base']} and {self.info['aligned']}."
                )

    def to_frame(self):
        """Return one row per matrix: shape, norm, rank, certified, method, energy of the rank."""
        import pandas as pd

        rows = []
        for name, shape in zip(self._names, self.info["shapes"], strict=True):
            S, residual, norm = self._values[name]
            failed = np.flatnonzero(residual > TOLERANCE)
            rows.append(
                {
                    "layer": name,
                    "out": shape[0],
                    "in": shape[1],
                    "norm": norm,
                    "s_1": float(S[0]),
                    "rank": len(S),
                    "certified": int(failed[0]) if len(failed) else len(S),
                    "method": self[name].method,
                    "noise_edge": noise_edge(tuple(shape), norm**2),
                }
            )
        return pd.DataFrame(rows)


@dataclasses.dataclass(frozen=True, eq=False)
class SubspaceShare:
    """How much of a delta lies in the top-k safety subspace, matrix by matrix."""

    layers: tuple[str, ...]
    r_align: np.ndarray  # (n_layers,), in [0, 1]
    r_ft: np.ndarray  # (n_layers,), in [0, 1]; of dW_align + dW_ft, not of dW_ft alone
    k: int | None
    source: dict[str, str]

    def to_frame(self):
        """Return one row per matrix."""
        import pandas as pd

        return pd.DataFrame({"layer": self.layers, "r_align": self.r_align, "r_ft": self.r_ft})


def noise_edge(shape: tuple[int, int], energy: float) -> float:
    """Return the largest singular value that pure noise of this energy would have.

    For i.i.d. entries of standard deviation sigma the spectrum ends at sigma (sqrt(out) + sqrt(in))
    (Marchenko and Pastur 1967); `energy` = |noise|_F^2 = sigma^2 out in. A reference line: with
    all of |dW|_F^2 taken as noise it is an upper bound, and nothing says safety ends there.
    """
    out, into = shape
    return (energy / (out * into)) ** 0.5 * (out**0.5 + into**0.5)


# --- private ----------------------------------------------------------------------------------


def _deltas(base: Checkpoint, other: Checkpoint, device: str):
    """Return a function of names that yields each (name, W_other - W_base) in float32."""

    def stream(names):
        for name in names:
            dW = other.read(name).to(device, torch.float32)
            yield name, dW - base.read(name).to(device, torch.float32)

    return stream


def _factor(name: str, dW: Tensor, info: dict) -> Factors:
    """Factor one delta as `info` says, naming the matrix if it cannot be."""
    rank = None if info["rank"] == FULL else info["rank"]
    try:
        made = top_factors(dW, rank, certify=info["certify"], seed=info["seed"])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if info["spectrum"] == FULL and rank is not None:
        made = dataclasses.replace(made, spectrum=singular_values(dW))
    return made


def _tensors(name: str, factors: Factors) -> dict[str, Tensor]:
    """Return one matrix's tensors as they stand in the file."""
    facts = torch.tensor([factors.norm, METHODS.index(factors.method)], dtype=torch.float32)
    parts = {p: getattr(factors, p) for p in ("U", "S", "Vh", "residual")} | {"info": facts}
    if factors.spectrum is not None:
        parts["spectrum"] = factors.spectrum
    return {f"{name}.{part}": tensor for part, tensor in parts.items()}


def _open_stream(file: str | Path, info: dict) -> SafetensorsStream:
    """Open the stream of a subspace file; all its tensors are float32."""
    full_spectrum = info["spectrum"] == FULL and info["rank"] != FULL
    layout = {}
    for name, (out, into) in zip(info["layers"], info["shapes"], strict=True):
        smaller = min(out, into)
        r = smaller if info["rank"] == FULL else min(info["rank"], smaller)
        shapes = {"U": (out, r), "S": (r,), "Vh": (r, into), "residual": (r,), "info": (2,)}
        if full_spectrum:
            shapes["spectrum"] = (smaller,)
        layout |= {f"{name}.{part}": (torch.float32, shape) for part, shape in shapes.items()}
    metadata = {"lox_kit": json.dumps(info)}
    return SafetensorsStream(file, layout, metadata, group=6 if full_spectrum else 5)


def _is_loose(residual: np.ndarray, k: int | None) -> bool:
    return bool((residual[:k] > TOLERANCE).any())


def _refuse_zero(norms) -> None:
    """Raise if no matrix changed at all."""
    if not np.any(np.asarray(list(norms)) > 0):
        raise ValueError(
            "the delta is zero in every matrix: base and aligned hold the same values. Give the "
            "model from before the alignment as BASE."
        )


def _tell(on_layer: OnLayer | None, done: int, layers) -> None:
    if on_layer:
        on_layer(done, len(layers), layers[done] if done < len(layers) else "")
