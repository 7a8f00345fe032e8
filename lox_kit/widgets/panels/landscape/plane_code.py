"""The call that makes a plane again, as text, from what the plane knows of how it was made."""

from __future__ import annotations

from lox_kit.landscape import Flat
from lox_kit.weights import Checkpoint
from lox_kit.widgets.code import pair_call

PLANE_FILE = "plane.safetensors"


def plane_code(plane: Flat) -> tuple[dict[str, list[str]], str]:
    """Return what is imported, by module, and the lines that make a plane.

    They name its checkpoints where each can be named and still has the weights that the plane was
    made from. A plane of models in memory is read from a file, which has to be saved first.
    """
    try:
        call, used = _call(plane.made)
    except (LookupError, OSError, ValueError) as error:  # not known, not there, other weights
        why = " ".join(str(error).split())
        note = f"# no call makes this plane again ({why}): first, plane.save({PLANE_FILE!r})"
        return {}, f"{note}\nplane = Plane.load({PLANE_FILE!r})"
    functions = sorted(used - {"SafetySubspace"})
    imports = {"lox_kit.landscape": functions} if functions else {}
    if "SafetySubspace" in used:
        imports["lox_kit"] = ["SafetySubspace"]
    return imports, f"plane = {call}"


def _call(made) -> tuple[str, set[str]]:
    """Return the call of a method of `Plane`, and the names it uses; raise if it has none."""
    if made is None:
        raise LookupError("how it was made is not known")
    used: set[str] = set()
    options = {n: v for n, v in made.items() if n not in ("method", "of")}
    parts = [_source(source, used) for source in made["of"]]
    parts += [f"{name}={value!r}" for name, value in options.items()]
    lines = "".join(f"    {part},\n" for part in parts)
    return f"Plane.{made['method']}(\n{lines})", used


def _source(source, used: set[str]) -> str:
    """Return one of the things a plane was made of, and add the names it needs to `used`."""
    if source is None:
        raise LookupError("a direction that does not know how it was made")
    function = source.get("function")
    if function is None:
        return _checkpoint(source["name"], source["key"])
    used.add(function)
    if function == "between":
        return f"between({_source(source['start'], used)}, {_source(source['end'], used)})"
    if function == "random_direction":
        model = _source(source["model"], used)
        return f"random_direction({model}, {source['seed']}, {source['normalise']!r})"
    if function == "lox_direction":
        used.add("SafetySubspace")
        info = source["subspace"]
        for name in ("base", "aligned"):
            _checkpoint(info[name], info[f"{name}_fingerprint"])
        return f"lox_direction({pair_call(info)}, {source['k']}, {source['alpha']})"
    raise LookupError(function)


def _checkpoint(name: str, key: str) -> str:
    """Return a checkpoint's name as Python; raise if it is not there or has other weights."""
    if Checkpoint(name).fingerprint != key:
        raise LookupError(f"{name}: other weights")
    return repr(str(name))
