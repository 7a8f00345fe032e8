"""What the figures of a subspace are drawn from: singular values and energy, as plain data."""

from __future__ import annotations

from lox_kit.text import plain_numbers

from .file import FULL
from .places import kinds_of, map_layout, module_of, place_of
from .ranks import spectra
from .subspace import SafetySubspace
from .svd import noise_edge

VIEWS = {  # which matrices are shown around the selected one
    "matrix": lambda name, selected: name == selected,
    "layer": lambda name, selected: place_of(name)[0] == place_of(selected)[0],
    "kind": lambda name, selected: place_of(name)[1] == place_of(selected)[1],
    "all": lambda name, selected: True,
}
MOST = 64  # directions shown and offered when a subspace holds all of them


def largest_k(subspace: SafetySubspace) -> int:
    """Return how many directions a panel offers: all that are not zero, or 64 of `rank="full"`."""
    longest = max(int((subspace.spectrum(name) > 0).sum()) for name in subspace)
    return min(MOST, longest) if subspace.info["rank"] == FULL else longest


def explorer_data(
    subspace: SafetySubspace,
    k: int,
    selected: str | None = None,
    view: str = "all",
    *,
    spectrum: dict | None = None,
) -> dict:
    """Return what `explorer` and `figure_explorer` are drawn from.

    The energy in the top `k` of every matrix, and the singular values of those in the view.

    Parameters
    ----------
    selected : str, optional
        A matrix by its full name; default the first cell of the map.
    view : "matrix", "layer", "kind" or "all"
        Itself; all of its layer (or all outside the layers); the same kind in every layer; all.
    spectrum : dict, optional
        The `spectrum_data` of the subspace, if they are at hand: they do not depend on k.

    Raises
    ------
    ValueError
        If `k` is not stored, or there is no such matrix or view.
    """
    spectrum = spectrum or spectrum_data(subspace)
    names = list(subspace)
    selected = selected or first_cell(names)
    if view not in VIEWS:
        raise ValueError(f"view={view!r}: use one of {', '.join(VIEWS)}.")
    if selected not in subspace:
        raise ValueError(f"{selected}: not in this subspace ({len(names)} matrices).")
    kinds = kinds_of(names)
    shown = {name for name in names if VIEWS[view](name, selected)}
    most = max(largest_k(subspace), k)
    layers = [x | {"S": x["S"][:most]} for x in spectrum["layers"] if x["name"] in shown]
    layers.sort(key=lambda x: kinds.index(module_of(x["name"])))  # the legend's order
    energy = energy_map_data(subspace, k)["energy"]
    return {
        "figure": "explorer",
        "pair": spectrum["pair"],
        "k": k,
        "view": view,
        "selected": selected,
        "modules": kinds,
        "energy": energy,
        "layers": layers,
    }


def first_cell(names: list[str]) -> str:
    """Return the matrix in the first cell of the map."""
    (row, *_), *_ = map_layout(names)[0]
    return next(name for name in row if name)


def spectrum_data(subspace: SafetySubspace) -> dict:
    """Return what the subspace figures are drawn from."""
    layers = []
    for name, S, shape, norm in spectra(subspace):
        numbers = {"S": S, "norm": norm, "noise_edge": noise_edge(shape, norm**2)}
        layers.append({"name": name} | {n: plain_numbers(v) for n, v in numbers.items()})
    pair = [subspace.info[n] for n in ("base", "aligned")]
    return {"figure": "spectrum", "pair": pair, "layers": layers}


def kind_summary(subspace: SafetySubspace, k: int):
    """Return what the matrices of one kind have in common, in the order a block applies them.

    Returns
    -------
    DataFrame
        One row per kind: kind; matrices, their number; share of the whole |dW|_F^2, in [0, 1]; and
        medians over them: energy, the share of |dW|_F^2 in the top k, above_noise, the stored
        directions above the noise edge, and rank, those that are not zero.

    Raises
    ------
    ValueError
        If `k` is not stored.
    """
    kinds = [module_of(name) for name in subspace]
    frame = subspace.to_frame().assign(kind=kinds, energy=subspace.energy(k))
    frame["share"] = frame["norm"] ** 2 / (frame["norm"] ** 2).sum()
    found = frame.groupby("kind").agg(
        matrices=("layer", "size"),
        share=("share", "sum"),
        **{name: (name, "median") for name in ("energy", "above_noise", "rank")},
    )
    return found.loc[kinds_of(subspace)].reset_index()


def energy_map_data(subspace: SafetySubspace, k: int) -> dict:
    """Return what `figure_energy_map` is drawn from."""
    energy = zip(subspace, subspace.energy(k), strict=True)
    return {"figure": "energy_map", "k": k, "energy": {n: plain_numbers(e) for n, e in energy}}
