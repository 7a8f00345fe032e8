"""01: the answers to its exercises, and whether what it says to notice is there."""

import torch


def above(name):
    """Return how many singular values of a matrix stand above its noise edge."""
    matrix = subspace[name]
    return int((noise_edge(matrix.shape, matrix.norm**2) < subspace.spectrum(name)).sum())


counts = {name: above(name) for name in subspace}
answer(
    "Answer: matrices whose top six directions hold less than half",
    sum(subspace.energy(k=6) < 0.5),
    0,
)
answer("Notice: fewest directions above the edge", min(counts.values()), 3)
energy = dict(zip(subspace, subspace.energy(k=6), strict=True))
answer("Notice: the slower matrix", min(energy, key=energy.get), "model.embed_tokens.weight")
answer("1: above the edge, layer 0, v_proj", counts["model.layers.0.self_attn.v_proj.weight"], 6)
answer("2: above the edge, last layer", counts["model.layers.3.self_attn.v_proj.weight"], 5)
noise = torch.randn(128, 128, generator=torch.Generator().manual_seed(0))
edge = noise_edge(noise.shape, noise.norm().item() ** 2)
answer("3: above the edge, noise", int((edge < torch.linalg.svdvals(noise)).sum()), 0)
