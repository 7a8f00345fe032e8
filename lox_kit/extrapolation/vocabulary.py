"""What a direction says: the tokens that a singular direction of the delta reads or writes.

What a layer adds to the residual stream is turned into tokens by the final norm and the
unembedding; what it reads there begins as the embedding of tokens, through the layer's own norm.
The left singular vectors of a matrix that writes and the right ones of a matrix that reads are
vectors of that stream, so each gives every token a score. Nothing in between is taken into account.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from lox_kit.weights import Checkpoint, is_embedding, is_head

from .checkpoint import open_aligned
from .places import module_of
from .subspace import SafetySubspace

READS = {  # kinds of matrix that read the residual stream, and the norm before each
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "input_layernorm"),
    **dict.fromkeys(("gate_proj", "up_proj"), "post_attention_layernorm"),
}
WRITES = ("o_proj", "down_proj")
RANDOM, CHANCE = 100, 0.95  # random directions, and which of their peaks is shown
ROWS = 4096  # of the embedding, widened at a time


def direction_tokens(
    subspace: SafetySubspace,
    name: str,
    tokenizer,
    *,
    aligned: str | Path | None = None,
    directions: int = 3,
    top: int = 8,
):
    """Return the tokens at both ends of a matrix's leading singular directions.

    Scores are `E (g * d)`: of a matrix that writes, d = u_i, g the final norm's weight and E the
    unembedding; of one that reads, d = v_i, g its layer's norm's weight and E the embedding. Of the
    embedding or the head itself they are u_i, an entry for each token. A sign of d is arbitrary. A
    norm also divides by the size of what comes in, which changes no order and is left out.

    Parameters
    ----------
    name : str
        The matrix; as it is called in the subspace.
    tokenizer : transformers tokenizer
        Of the aligned model, such as `load_model(...).tokenizer`.
    aligned : path or name, optional
        Where the aligned checkpoint is; default where it was. Its vectors and embeddings are read.
    directions, top : int
        How many directions, and tokens at each end. Directions that are zero are left out.

    Returns
    -------
    DataFrame
        Two rows for each direction: direction (from 1), s (singular value), end ("+" or "-"), peak
        (the end's largest score, in standard deviations over the vocabulary from its mean), chance
        (what that is along one in twenty random directions of the same size), tokens (list of str,
        the strongest first, as `repr` writes their text).

    Raises
    ------
    KeyError, ValueError
        If there is no such matrix, what it reads or writes is not known, or `aligned` is not the
        subspace's.
    """
    import pandas as pd

    factors = subspace[name]
    U, S, Vh = (x.cpu() for x in factors.top(min(directions, factors.nonzero)))
    checkpoint = open_aligned(subspace, aligned or subspace.info["aligned"])
    D = Vh if module_of(name) in READS else U.T  # (r, size)
    generator = torch.Generator().manual_seed(0)
    D = torch.cat([D, torch.randn(RANDOM, D.shape[1], generator=generator)])
    if not (is_embedding(name) or is_head(name)):
        gain, embedding = _gain_and_embedding(checkpoint, name)
        weighted = D * gain.to(D.dtype)  # (r + RANDOM, hidden)
        D = torch.cat([weighted @ rows.to(D.dtype).T for rows in embedding.split(ROWS)], dim=1)
    z = (D - D.mean(1, keepdim=True)) / D.std(1, keepdim=True)  # (r + RANDOM, vocabulary)
    by_chance = torch.cat([z[len(S) :].amax(1), -z[len(S) :].amin(1)]).quantile(CHANCE)
    rows = []
    for i, s in enumerate(S.tolist()):
        for end, sign in (("+", 1), ("-", -1)):
            scores, tokens = (sign * z[i]).topk(min(top, z.shape[1]))
            row = {"direction": i + 1, "s": s, "end": end, "peak": float(scores[0])}
            texts = [_shown(tokenizer, token) for token in tokens.tolist()]
            rows.append(row | {"chance": float(by_chance), "tokens": texts})
    return pd.DataFrame(rows)


def _gain_and_embedding(checkpoint: Checkpoint, name: str) -> tuple[Tensor, Tensor]:
    """Return the weight of the norm and the embedding through which a matrix meets tokens."""
    kind, layer = module_of(name), re.match(r"(.*?\.\d+)\.", name)
    if layer is None or kind not in (*READS, *WRITES):
        raise ValueError(
            f"{name}: which tokens it reads or writes is known of the embedding, the head and "
            f"{', '.join((*READS, *WRITES))} of a layer."
        )
    norm = rf"^{re.escape(layer[1])}\.{READS[kind]}" if kind in READS else r"(^|\.)norm"
    norms = [n for n in checkpoint.tensors if re.search(rf"{norm}\.weight$", n)]
    others = [n for n in checkpoint.tensors if "feedforward_layernorm" in n]
    if len(norms) != 1 or others or "gemma" in checkpoint.config.get("model_type", ""):
        raise ValueError(f"{name}: the norms of {checkpoint.name} are not where Llama has them.")
    embedding = [n for n in checkpoint.tensors if is_embedding(n)]
    head = [n for n in checkpoint.tensors if is_head(n) and n != checkpoint.tied_copy]
    (table, *_) = embedding if kind in READS else [*head, *embedding]
    return checkpoint.read(norms[0]), checkpoint.read(table)


def _shown(tokenizer, token: int) -> str:
    """Return a token's text as `repr` writes it; its number where it has none."""
    text = tokenizer.decode([token])
    return repr(text) if text else f"#{token}"
