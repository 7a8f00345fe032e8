"""The safety subspace: the top singular triplets of what alignment changed, matrix by matrix.

`SafetySubspace.from_pair` streams two checkpoints and factors each delta once. Rank-k pieces nest,
so every k up to the stored rank, every alpha, the spectrum, R_align and R_ft follow from the one
file it makes (Perin et al. 2025, arXiv:2506.15606).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from lox_kit.store import content_key
from lox_kit.threads import OnStage
from lox_kit.weights import Checkpoint, both, matching

from .factoring import check_shapes, check_stored, factor_all, pair_info, shares_curve
from .file import read_factors, read_info, read_values, write_factors
from .svd import TOLERANCE, Factors, Values, noise_edge


class UncertifiedRank(UserWarning):
    """More directions are used than the factorization could certify."""


class SafetySubspace(Mapping[str, Factors]):
    """Top singular triplets of `W_aligned - W_base` for every matrix, by parameter name.

    Made by `from_pair` or `load`. Factors of a file are read when they are asked for.

    Attributes
    ----------
    info : dict
        Where it comes from: names and fingerprints of base and aligned, rank, certify, seed,
        include, exclude, tied, version; cut, the k of each matrix, if it was cut.
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
        include: str | None = None,
        exclude: str | None = None,
        certify: int = 16,
        seed: int = 0,
        device: str = "cpu",
        on_stage: OnStage | None = None,
    ) -> SafetySubspace:
        """Factor every weight delta of a pair, one matrix in memory at a time.

        Parameters
        ----------
        base, aligned : path or name
            The checkpoints before and after alignment: whatever `Checkpoint` takes. The delta of a
            LoRA adapter of `base` is factored from the adapter's own factors, exactly.
        out : path, optional
            Stream the factors to this safetensors file, or read them from it if it is there and of
            this pair and these options. Without it they stay in memory.
        rank : int or "full"
            Directions kept per matrix; "full" keeps all of them, exactly.
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
        FileExistsError
            If `out` is another subspace; BusyError if another process writes it.
        """
        first, second = Checkpoint(base), Checkpoint(aligned)
        options = {"rank": rank, "include": include, "exclude": exclude}
        info = pair_info(first, second, {**options, "certify": certify, "seed": seed})
        factors = factor_all(first, second, info, device, on_stage)
        if out is None:
            return cls(info, factors=dict(zip(info["layers"], factors, strict=True)))
        if not Path(out).exists():
            write_factors(out, info, factors)
        elif read_info(Path(out)) != info:
            raise FileExistsError(f"{out} exists and is another subspace; choose another name.")
        return cls.load(out)

    @classmethod
    def load(cls, file: str | Path) -> SafetySubspace:
        """Open a subspace file; its factors are read as they are asked for.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such file, or it is not one that `from_pair` or `save` made.
        """
        return cls(read_info(Path(file)), file=Path(file))

    def save(self, file: str | Path) -> Path:
        """Write all factors to one safetensors file and return its path.

        Raises
        ------
        FileExistsError
            If it exists; BusyError if another process writes it.
        ValueError
            If it is a control.
        """
        if control := self.info.get("control"):
            raise ValueError(f"this is the control {control!r}: make it again from the subspace.")
        write_factors(file, self.info, self.values())
        return Path(file)

    # --- parts of it --------------------------------------------------------------------------

    def select(self, include: str | None = None, exclude: str | None = None) -> SafetySubspace:
        """Return the same factors of fewer matrices: what factoring with these patterns gives.

        Parameters
        ----------
        include, exclude : regular expression, optional
            Which of this subspace's matrices.

        Raises
        ------
        ValueError
            If no matrix is left, or a pattern is not a regular expression.
        """
        names = matching(self._names, include, exclude, of="the subspace")
        include = both(self.info["include"], include, "(?=.*(?:{}))(?=.*(?:{}))")
        exclude = both(self.info["exclude"], exclude, "(?:{})|(?:{})")
        return self._part(names, include=include, exclude=exclude)

    def cut(self, ks: Mapping[str, int]) -> SafetySubspace:
        """Return the top `ks[name]` directions of each matrix, to be used with `k=None`.

        Energies stay shares of the whole |dW|_F^2. A k given beside it is the most of any matrix.

        Parameters
        ----------
        ks : mapping of name to int
            Of every matrix, such as `k_of_energy` gives; one with 0 is left out.

        Raises
        ------
        ValueError
            If a matrix has no k, or one that is not stored; a name is unknown; or all are 0.
        """
        if wrong := sorted(set(ks).symmetric_difference(self._names)):
            there = "has no k" if wrong[0] in self else "is not in this subspace"
            raise ValueError(f"{wrong[0]}: {there}; give one k to each of {len(self)} matrices.")
        for name, shape in zip(self._names, self.info["shapes"], strict=True):
            k, held = ks[name], self._values[name].rank
            if k < 0 or k > held < min(shape):
                raise ValueError(f"{name}: k={k}, and {held} directions are stored.")
        cut = {n: min(int(ks[n]), self._values[n].rank) for n in self._names if ks[n]}
        if not cut:
            raise ValueError("every k is 0, which keeps no direction of any matrix.")
        return self._part(list(cut), cut=cut)

    def _part(self, names: list[str], **said) -> SafetySubspace:
        """Return these matrices of this subspace, which its info says."""
        shapes = dict(zip(self._names, self.info["shapes"], strict=True))
        info = {**self.info, **said, "layers": names, "shapes": [shapes[n] for n in names]}
        if "cut" in info:
            info["cut"] = {name: info["cut"][name] for name in names}
        factors = {n: self._factors[n] for n in names if n in self._factors}
        return SafetySubspace(info, factors=factors, file=self._file)

    # --- a mapping of names to factors --------------------------------------------------------

    def __getitem__(self, name: str) -> Factors:
        held = self._factors.get(name)
        if held is None:
            if self._file is None or name not in self._names:
                raise KeyError(f"{name}: not in this subspace ({len(self)} matrices).")
            held = read_factors(self._file, name)
        return held.cut(self.info["cut"][name]) if "cut" in self.info else held

    def __contains__(self, name: object) -> bool:
        return name in self._names  # without reading its factors, as a mapping does by default

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    # --- what follows from it -----------------------------------------------------------------

    @property
    def key(self) -> str:
        """Hash of what decides the factors: both checkpoints' content and the options."""
        named = ("layers", "shapes", "base", "aligned")  # names for people, and what follows
        return content_key(**{n: v for n, v in self.info.items() if n not in named})

    def check_rank(self, k: int | None) -> None:
        """Raise ValueError if `k` directions are not stored; warn if they were not all certified.

        Of a matrix whose smaller side, or own k, is under `k`, all directions are meant. What was
        decomposed exactly needs no certificate.
        """
        if k is None and "cut" in self.info:
            k = max(v.rank for v in self._values.values())
        check_stored(k, self.info["rank"])
        if k is None:
            return  # all triplets together are the delta itself, however close some of them are
        short = [v for v in self._values.values() if v.certified < min(k, v.rank)]
        loose = [float(v.residual[:k].max()) for v in short]
        if not loose:
            return
        known = self.info["certify"] >= k
        advice = "float32 comes no nearer" if known else f"factor again with certify={k}"
        warnings.warn(
            f"k={k} goes beyond the certified directions in {len(loose)} of {len(self)} matrices "
            f"(residual up to {max(loose):.0e} of the singular value; certified means "
            f"{TOLERANCE:.0e}): {advice}.",
            UncertifiedRank,
            stacklevel=3,
        )

    @cached_property
    def _values(self) -> Mapping[str, Values]:
        """S, residual, |dW|_F and method of every matrix: the small part, read once."""
        found = self._factors if self._file is None else read_values(self._file, self.info)
        cut = self.info.get("cut")
        return {name: found[name].cut(k) for name, k in cut.items()} if cut else found

    @property
    def norms(self) -> np.ndarray:
        """|dW|_F of every matrix, shape (n_layers,)."""
        return np.array([v.norm for v in self._values.values()])

    def spectrum(self, name: str) -> np.ndarray:
        """Return the singular values of one matrix that are stored, descending: shape (rank,)."""
        return self._values[name].S.cpu().numpy()

    def energy(self, k: int | None) -> np.ndarray:
        """Return |Proj_k(dW)|_F^2 / |dW|_F^2 of every matrix: shape (n_layers,), in [0, 1].

        A matrix that alignment did not change has energy 0.
        """
        self.check_rank(k)
        kept = [float(v.S[:k].cpu().double().square().sum()) for v in self._values.values()]
        whole = np.square(self.norms)
        share = np.divide(kept, whole, out=np.zeros(len(self)), where=whole > 0)
        return np.minimum(share, 1.0)  # rounding in float32 can pass 1 by 1e-7

    def r_align(self, k: int | None) -> np.ndarray:
        """Return R_align = |Proj_k(dW)|_F / |dW|_F of every matrix: (n_layers,), in [0, 1]."""
        return np.sqrt(self.energy(k))

    def r_ft(self, base: str | Path, finetuned: str | Path, k: int | None):
        """Return how much of `W_ft - W_base` lies in the top-k safety subspace, beside R_align.

        R_ft = |U_k U_k^T (dW_align + dW_ft)|_F / |dW_align + dW_ft|_F (the paper). Both
        checkpoints are streamed.

        Returns
        -------
        DataFrame
            One row per matrix: layer, r_align, r_ft; both in [0, 1].

        Raises
        ------
        ValueError
            If `k` is not stored, `base` is not the subspace's, or `finetuned` does not fit it.
        """
        import pandas as pd

        r_align = self.r_align(k)
        r_ft = self.r_ft_curve(base, finetuned, k)[:, -1]
        return pd.DataFrame({"layer": self._names, "r_align": r_align, "r_ft": r_ft})

    def r_ft_curve(
        self,
        base: str | Path,
        finetuned: str | Path,
        most: int | None = None,
        *,
        on_stage: OnStage | None = None,
    ) -> np.ndarray:
        """Return R_ft of every matrix at every k: column k is `r_ft(base, finetuned, k).r_ft`.

        One pass over both checkpoints: with P = U^T (dW_align + dW_ft), R_ft(k)^2 is the sum of
        |P_i|^2 over the first k rows, divided by |dW_align + dW_ft|_F^2.

        Parameters
        ----------
        most : int, optional
            The largest k wanted; default all directions that are stored.

        Returns
        -------
        array, shape (n_layers, most + 1), in [0, 1]
            Beyond the directions that a matrix has it stays what it is with all of them.

        Raises
        ------
        ValueError
            As `r_ft`. Warnings about uncertified directions come only from methods that take one k.
        """
        return shares_curve(self, base, finetuned, most, on_stage)

    def check_shapes(self, checkpoint: Checkpoint) -> None:
        """Raise ValueError if a matrix is missing from a checkpoint or has another shape there."""
        check_shapes(self.info, checkpoint)

    def to_frame(self):
        """Return one row per matrix: shape, norm, noise edge, directions and how they were made.

        Of the directions stored those count (`rank`) that are not zero, which of a LoRA adapter's
        delta may be few; `above_noise` is how many of them pass the noise edge.
        """
        import pandas as pd

        values, shapes = self._values.values(), [tuple(shape) for shape in self.info["shapes"]]
        edges = [noise_edge(s, n**2) for s, n in zip(shapes, self.norms, strict=True)]
        columns = {
            "layer": self._names,
            "out": [out for out, _ in shapes],
            "in": [into for _, into in shapes],
            "norm": self.norms,
            "s_1": [float(v.S[0]) for v in values],
            "noise_edge": edges,
            "above_noise": [int((e < v.S).sum()) for v, e in zip(values, edges, strict=True)],
            "rank": [v.nonzero for v in values],
            "certified": [min(v.certified, v.nonzero) for v in values],
            "method": [v.method for v in values],
        }
        return pd.DataFrame(columns)
