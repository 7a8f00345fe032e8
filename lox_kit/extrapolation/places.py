"""Which matrix a parameter is, and where it stands in the model: kind, layer, place in a map."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

ORDER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_PLACE = re.compile(r"\.(\d+)\.(.+)$")  # the depth, and the path within a layer


def module_of(name: str) -> str:
    """Return the kind of matrix a parameter is: q_proj, down_proj, embed_tokens, ..."""
    return name.removesuffix(".weight").rpartition(".")[2]


def _in_order(modules: Iterable[str]) -> list[str]:
    """Return each kind of matrix once, in the order in which a block applies them."""
    place = {module: i for i, module in enumerate(ORDER)}
    return sorted(dict.fromkeys(modules), key=lambda module: place.get(module, len(ORDER)))


def kinds_of(names: Iterable[str]) -> list[str]:
    """Return the kinds of these matrices, each once, in the order in which a block applies them."""
    return _in_order(map(module_of, names))


def place_of(name: str) -> tuple[int | None, str]:
    """Return a matrix's depth (None outside the layers) and its path within the layer."""
    path = name.removesuffix(".weight")
    place = _PLACE.search(path)
    return (int(place.group(1)), place.group(2)) if place else (None, path)


def map_layout(names: Iterable[str]) -> list[tuple[list[list[str | None]], list[str], list[str]]]:
    """Return where matrices stand in a map: one map of the layers, one of what is outside them.

    Returns
    -------
    list of (names, columns, rows)
        Names as a list of rows, None where a layer lacks a kind of matrix. Layers go down and kinds
        of matrix across; those outside the layers are one column.
    """
    places = {place_of(name): name for name in names}
    cells = {(d, path): name for (d, path), name in places.items() if d is not None}
    outside = {path: name for (d, path), name in places.items() if d is None}
    maps = []
    if cells:
        depths = sorted({d for d, _ in cells})
        short = _short(m for _, m in cells)
        by_module = {(d, short[m]): name for (d, m), name in cells.items()}
        modules = _in_order(short.values())
        rows = [[by_module.get((d, m)) for m in modules] for d in depths]
        maps.append((rows, modules, [str(d) for d in depths]))
    if outside:
        maps.append(([[n] for n in outside.values()], ["outside"], list(_short(outside).values())))
    return maps


def _short(paths: Iterable[str]) -> dict[str, str]:
    """Return the last word of each path, or the whole path where two end alike."""
    last = {path: path.rpartition(".")[2] for path in paths}
    times = Counter(last.values())
    return {path: word if times[word] == 1 else path for path, word in last.items()}
