"""Names of a package that are found in its modules when they are first asked for (PEP 562)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


def attach(
    package: str, where: Mapping[str, str]
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """Return `__all__`, `__getattr__` and `__dir__` of a package, so that importing it is instant.

    Parameters
    ----------
    package : str
        `__name__` of the package.
    where : mapping of module to names
        The names that each module of the package gives away, in one string. A module without names
        is given away itself; the others are found as attributes as well.
    """
    home = {name: module for module, given in where.items() for name in given.split() or [module]}
    names = sorted(home)

    def find(name: str):
        if name not in home and name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f"{package}.{home.get(name, name)}")
        return module if name in where else getattr(module, name)

    return names, find, lambda: sorted({*names, *where})
