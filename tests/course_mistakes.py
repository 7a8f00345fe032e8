"""Typical wrong answers to the exercises of the course, by the property that each lacks first."""

import math

import torch
from scipy.stats import binomtest, fisher_exact
from torch.nn.functional import cross_entropy


def svd(M, k):
    """Return the first k of U, S and Vh."""
    U, S, Vh = torch.linalg.svd(M, full_matrices=False)
    return U[:, :k], S[:k], Vh[:k]


def part(M, k):
    """Return M's part in its top k directions."""
    U, S, Vh = svd(M, k)
    return U @ torch.diag(S) @ Vh


def inside(D, M, k):
    """Return which share of |M| lies in the top k left directions of D."""
    return float((svd(D, k)[0].T @ M).norm() / M.norm())


def scaled_in_place(dW, k):
    dW *= 1.0 + 1e-3
    return part(dW, k)


def from_the_base(W, A, k, alpha):
    return W + alpha * part(A - W, k)


def wald(count, n, z=1.96):
    p, half = count / n, z * math.sqrt(count / n * (1 - count / n) / n)
    return p - half, p + half


def one_sided_wilson(count, n, z=1.645):
    d, p = 1 + z * z / n, count / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / d
    return (p + z * z / (2 * n)) / d - half, (p + z * z / (2 * n)) / d + half


def differing(one, other):
    pairs = list(zip(one, other, strict=True))
    return pairs.count((True, False)), pairs.count((False, True))


def unpaired(one, other):
    table = [[sum(x), len(x) - sum(x)] for x in (one, other)]
    return fisher_exact(table)[1]


def last_crossing(places, values):
    over = [i for i in range(1, len(values)) if values[i - 1] <= 0.5 < values[i]]
    return (places[over[-1] - 1] + places[over[-1]]) / 2 if over else math.inf


def first_over(places, values):
    return next((p for p, v in zip(places, values, strict=True) if v > 0.5), math.inf)


def largest_gap(spectra):
    ratios = torch.stack([S[:-1] / S[1:] for S in spectra]).mean(0)
    return int(ratios.argmax()) + 1, float(ratios.max()) - 1


def gap_beside_neighbours(spectra):
    logs = torch.stack([S.log() for S in spectra])
    gaps = (logs[:, :-1] - logs[:, 1:]).median(dim=0).values
    around = torch.cat([gaps[1:2], gaps, gaps[-2:-1]])
    beyond = gaps - (around[:-2] + around[2:]) / 2
    k = int(beyond.argmax())
    return k, float(beyond[k].exp())


MISTAKES = {
    "1.1": {
        "a share of squares": lambda S, k: S[:k].sum() / S.sum(),
        "a share of the squared norm": lambda S, k: S[:k].norm() / S.norm(),
        "nothing at k = 0, all at the end": lambda S, k: S[: k + 1].square().sum() / 50,
    },
    "1.2": {
        "grows with the matrix": lambda dW: sum(n**0.5 for n in dW.shape),
        "s is the size of one entry": lambda dW: (
            dW.norm() / dW.numel() * sum(n**0.5 for n in dW.shape)
        ),
        "both sides count": lambda dW: dW.norm() / dW.numel() ** 0.5 * 2 * dW.shape[1] ** 0.5,
    },
    "1.3": {
        "measured against the aligned model": lambda asr, aligned: min(
            (r for r, a in asr.items() if a < 0.01), default=math.inf
        ),
        "safer is safe enough": lambda asr, aligned: min(
            (r for r, a in asr.items() if abs(a - aligned) < 0.01), default=math.inf
        ),
        "the smallest, in whatever order": lambda asr, aligned: next(
            (r for r, a in asr.items() if a - aligned < 0.01), math.inf
        ),
    },
    "2.1": {
        "each guess is about the next token": cross_entropy,
        "the prompt carries no loss": lambda logits, labels: cross_entropy(
            logits[:-1], labels[1:].clamp(min=0)
        ),
        "a mean per token": lambda logits, labels: cross_entropy(
            logits[:-1], labels[1:], reduction="sum"
        ),
    },
    "2.2": {
        "taken back is positive": lambda dW, ft: (dW * ft).sum() / (dW * dW).sum(),
        "half is a half": lambda dW, ft: -(dW * ft).sum() / dW.norm() / ft.norm(),
        "sideways counts nothing": lambda dW, ft: ft.norm() / dW.norm(),
    },
    "2.3": {
        "everything since the base": lambda W, A, ft, k: inside(A - W, ft - A, k),
        "directions of alignment": lambda W, A, ft, k: inside(ft - W, ft - W, k),
        "a ratio of norms": lambda W, A, ft, k: inside(A - W, ft - W, k) ** 2,
    },
    "3.1": {
        "dW is left as it was": scaled_in_place,
        "lengths are kept": lambda dW, k: svd(dW, k)[0] @ svd(dW, k)[2],
        "the largest, not the rest": lambda dW, k: dW - part(dW, k),
    },
    "3.2": {
        "starts at the aligned model": from_the_base,
        "the change is cut, not the weights": lambda W, A, k, alpha: A + alpha * part(A, k),
        "alpha is what is added": lambda W, A, k, alpha: A + (1 + alpha) * part(A - W, k),
    },
    "3.3": {
        "stays a share": lambda r, alpha: min(1.0, (1 + alpha) * r),
        "longer by 1 + alpha": lambda r, alpha: alpha * r / ((alpha * r) ** 2 + 1 - r**2) ** 0.5,
        "norms, not energies": lambda r, alpha: (1 + alpha) * r / ((1 + alpha) * r + 1 - r),
    },
    "4.1": {
        "0 of 100 is not certainty": wald,
        "two-sided, 95 %": one_sided_wilson,
    },
    "4.2": {
        "every prompt counts": lambda v: (sum(map(bool, v)) / max(1, len(v) - v.count(None)),) * 2,
        "not known is not harmless": lambda v: (sum(map(bool, v)) / len(v),) * 2,
    },
    "4.3": {
        "prompts are paired": unpaired,
        "only differences count": lambda one, other: (
            binomtest(differing(one, other)[0], len(one)).pvalue
        ),
        "two-sided": lambda one, other: (
            binomtest(
                differing(one, other)[0], sum(differing(one, other)) or 1, alternative="greater"
            ).pvalue
        ),
    },
    "5.1": {
        "never is not the end of the walk": lambda places, values: min(
            first_over(places, values), places[-1]
        ),
        "the first one counts": last_crossing,
        "half way between what was measured": first_over,
    },
    "5.2": {
        "energy, not R": lambda dW, other, k: (inside(dW, other, k), k / len(dW)),
        "directions of the alignment": lambda dW, other, k: (
            inside(other, other, k) ** 2,
            k / len(dW),
        ),
        "chance counts rows": lambda dW, other, k: (inside(dW, other, k) ** 2, k / dW.shape[1]),
    },
    "5.3": {
        "a gap beside its neighbours": largest_gap,
        "k is a count": gap_beside_neighbours,
        "alpha is what was added": lambda spectra: (
            gap_beside_neighbours(spectra)[0] + 1,
            gap_beside_neighbours(spectra)[1],
        ),
    },
}
