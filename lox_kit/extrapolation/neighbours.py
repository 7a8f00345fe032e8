"""A neighbour of LoX: Safe LoRA, which projects what an adapter adds onto what alignment changed.

    C = V V^T / |V|_F,  V = W_aligned - W_base          (Hsu et al. 2024, arXiv:2405.16833)

An adapter's delta B A becomes C B A, in layers where that points elsewhere than B A.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .svd import Factors


def safe_lora(factors: Factors, dW: Tensor, k: int | None = None) -> tuple[Tensor, float]:
    """Project one delta as Safe LoRA does, from the factors of V = U S Vh: C = U S^2 U^T / |V|_F.

    C is the method's fast stand-in for the projector onto the columns of V. It is none: it scales
    the direction u_i by S_i^2 / |V|_F, so a short V leaves little of a delta, whatever its
    direction.

    Parameters
    ----------
    factors : Factors
        Of V, (out, in); with every direction (`rank="full"`) it is the method's own C.
    dW : Tensor, shape (out, in)
        What fine-tuning changed, such as an adapter's B A.
    k : int, optional
        Take the top k directions of V for V.

    Returns
    -------
    (Tensor, float)
        C dW, shape (out, in), in float32 or wider; and its cosine with dW, in [0, 1], by which
        layers are chosen: 0 if either is zero.
    """
    wide = dW.to(torch.promote_types(dW.dtype, torch.float32))
    U, S, _ = (x.to(wide) for x in factors.top(k))
    norm = torch.linalg.vector_norm(S)
    if not norm > 0:
        return torch.zeros_like(wide), 0.0
    made = (U * (S.square() / norm)) @ (U.T @ wide)
    lengths = torch.linalg.vector_norm(made) * torch.linalg.vector_norm(wide)
    return made, float((made * wide).sum() / lengths) if lengths > 0 else 0.0
