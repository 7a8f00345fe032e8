"""Rooms, which way imports point between them, and what stays out of the way of an import."""

import ast
import functools
import graphlib
import importlib
import json
import re

import nbformat
import pytest
from checkpoints import ROOT, factor, run_python, weights

import lox_kit

PACKAGE = ROOT / "lox_kit"
ROOMS = """sandbox smol weights extrapolation models judges measures attacks landscape studies
    figures reports widgets course cli""".split()  # a room imports from those before it
BESIDE = {"folders", "network", "store", "text", "threads"}  # every room may import these


def module_name(file):
    """Return a file's module, such as lox_kit.weights.pair."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(f): f for f in PACKAGE.rglob("*.py")}
PACKAGES = {name for name, file in FILES.items() if file.name == "__init__.py"}


def given_away():
    """Return where each name is found that a package gives away: by package, name to module."""
    found = {}
    for package in sorted(PACKAGES):
        for node in ast.walk(ast.parse(FILES[package].read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "attach":
                where = ast.literal_eval(node.args[1])
                found[package] = {
                    name: f"{package}.{module}"
                    for module, names in where.items()
                    for name in names.split() or [module]
                }
    return found


GIVEN = given_away()


def room_of(module):
    """Return the room of a module, or its own name beside the rooms ("" for the package itself)."""
    return module.partition(".")[2].partition(".")[0]


def home_of(module, name):
    """Return the module in which an imported name is defined, as far as packages give it away."""
    while (there := f"{module}.{name}") not in FILES and name in GIVEN.get(module, {}):
        module = GIVEN[module][name]
    return there if there in FILES else module


def imports(text, package=""):
    """Yield module and name of everything that a text imports of lox_kit, inside functions too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((a.name, None) for a in node.names if re.match(r"lox_kit\b", a.name))
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*up, node.module or ""]).strip(".") if node.level else node.module
            if module.partition(".")[0] == "lox_kit":
                yield from ((module, alias.name) for alias in node.names)


def uses(text, package=""):
    """Yield module and name of everything of lox_kit that a text imports or takes from a room."""
    rooms = {}
    for module, name in imports(text, package):
        yield module, name
        if f"{module}.{name}" in PACKAGES:
            rooms[name] = f"{module}.{name}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) in rooms:
            yield rooms[node.value.id], node.attr


@functools.cache
def imported(module):
    """Return what a module of the package takes from where: module and name, as it is written."""
    package = module if module in PACKAGES else module.rpartition(".")[0]
    return list(uses(FILES[module].read_text(), package))


def test_the_package_is_rooms_and_few_files_beside_them():
    assert {f.stem for f in PACKAGE.glob("*.py")} == {"__init__", *BESIDE}
    rooms = {f.parent.name for f in PACKAGE.glob("*/__init__.py")}
    assert rooms <= set(ROOMS)
    assert {"weights", "extrapolation", "attacks", "landscape"} <= rooms
    for room in rooms:
        assert ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text())), room


@pytest.mark.parametrize("module", sorted(FILES))
def test_a_room_imports_only_from_rooms_below_it_and_only_what_they_give_away(module):
    room = room_of(module)
    for source, name in imported(module):
        whole_room = f"{source}.{name}" in PACKAGES
        own = name in ("__version__", "attach")  # what the package has besides its rooms
        assert source != "lox_kit" or whole_room or own, f"{module}: say from which room"
        other = room_of(home_of(source, name))
        if other == room or not other or other in BESIDE:
            continue
        assert room in ROOMS, f"{module} stands beside the rooms and imports {source}"
        assert ROOMS.index(other) < ROOMS.index(room), f"{module} imports {source}, which is above"
        given = whole_room or name in GIVEN.get(source, ())
        assert given, f"{source} does not give away {name} ({module})"


def test_imports_run_in_no_circle():
    graph = {m: {home_of(*found) for found in imported(m)} - {m, "lox_kit"} for m in FILES}
    graphlib.TopologicalSorter(graph).prepare()  # raises if there is one


def test_the_arrows_are_seen():
    assert home_of("lox_kit", "SafetySubspace") == "lox_kit.extrapolation.subspace"
    assert ("lox_kit.weights", "Checkpoint") in imported("lox_kit.extrapolation.subspace")
    assert ("lox_kit.weights.hub", "fetch") in imported("lox_kit.weights.names")
    assert ("lox_kit.store", "content_key") in imported("lox_kit.studies.families")
    assert ("lox_kit.models", "load_model") in imported("lox_kit.cli.attacks")


@pytest.mark.parametrize("package", sorted(GIVEN))
def test_every_name_that_is_given_away_is_found_and_is_no_module_of_its_own(package):
    there = importlib.import_module(package)
    assert set(GIVEN[package]) | {"__version__"} == {*there.__all__, "__version__"}
    for name, module in GIVEN[package].items():
        assert getattr(there, name) is not None
        assert name in dir(there)
        # else it would be the function at first, and the module once something imports that
        assert f"{package}.{name}" not in FILES or module == f"{package}.{name}"


def shown_to_users():
    """Return every text that shows a user what to import, by its name: notebooks and README."""
    texts = {}
    for file in sorted(ROOT.glob("notebooks/**/*.ipynb")):
        cells = nbformat.read(file, as_version=4).cells
        code = [c.source for c in cells if c.cell_type == "code" and "%pip" not in c.source]
        texts[file.relative_to(ROOT / "notebooks").as_posix()] = "\n".join(code)
    readme = (ROOT / "README.md").read_text()
    fenced = re.findall(r"^```python\n(.*?)^```", readme, re.M | re.S)
    return texts | {"README.md": "\n".join(fenced)}


SHOWN = shown_to_users()
SCRIPTS = {f.name: f.read_text() for f in sorted(ROOT.glob("benchmarks/*.py"))}


@pytest.mark.parametrize("source", [*SHOWN, *SCRIPTS])
def test_what_users_are_shown_is_public(source):
    for module, name in uses({**SHOWN, **SCRIPTS}[source]):
        public = f"{module}.{name}" in PACKAGES or name in GIVEN.get(module, ())
        beside = source in SCRIPTS and (room_of(module) in BESIDE or module == "lox_kit.cli.main")
        assert public or beside, f"{source}: {name} is not public in {module}"


def test_a_name_in_a_text_is_public():
    """`lox_kit.room.name` in the README, and `room.name` in the package's own docstrings."""
    texts = {"README.md": (ROOT / "README.md").read_text()}
    texts |= {name: file.read_text() for name, file in FILES.items()}
    rooms = "|".join(sorted(p.removeprefix("lox_kit.") for p in GIVEN if p != "lox_kit"))
    for where, text in texts.items():
        for package, name in re.findall(rf"`(?:lox_kit\.)?({rooms})\.(?!md\b)(\w+)", text):
            public = {*GIVEN[f"lox_kit.{package}"], *map(room_of, PACKAGES)}
            module = f"lox_kit.{package}.{name}" in FILES
            assert name in public or module, f"{where}: `{package}.{name}`"


ATTRIBUTES = """
import lox_kit
for room in sys_argv:
    assert getattr(lox_kit, room).__doc__, room
    assert room in dir(lox_kit)
assert "__version__" in dir(lox_kit)
"""


def test_rooms_are_attributes_of_the_package_before_anything_imports_them():
    rooms = sorted(room_of(p) for p in PACKAGES if p.count(".") == 1)
    done = run_python(ATTRIBUTES.replace("sys_argv", repr(rooms)))
    assert done.returncode == 0, done.stderr


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'lox_kit' has no attribute 'extrapolated'"):
        _ = lox_kit.extrapolated


OPEN = """
import sys
from lox_kit.weights import Checkpoint
assert Checkpoint("sandbox/aligned").tensors
print(*sys.modules)
"""


def test_opening_a_checkpoint_imports_neither_training_nor_the_sandbox_s_recipe():
    modules = run_python(OPEN).stdout.split()
    ours = {room_of(name) for name in modules if name.startswith("lox_kit.")}
    assert ours == {"weights", "folders"}
    slow = {"transformers", "peft", "trl", "datasets", "accelerate", "pandas", "matplotlib"}
    assert not slow & set(modules)


IMPORT = """
import sys, time
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
print(*{{name.partition(".")[0] for name in sys.modules}})
"""


@pytest.mark.parametrize("module", ["lox_kit", "lox_kit.cli.main"])
def test_importing_is_instant(module):
    seconds, modules = run_python(IMPORT.format(module=module)).stdout.splitlines()
    assert float(seconds) < 1.0  # a tenth of that on an idle machine
    slow = {"torch", "numpy", "pandas", "matplotlib", "transformers", "trl", "peft", "safetensors"}
    assert not slow & set(modules.split())


CLI = """
import json, sys
from lox_kit.cli.main import main
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as end:
        assert not end.code, arguments
print(*{name.partition(".")[0] for name in sys.modules})
"""


def modules_after(*calls):
    """Return the modules that `lox` has imported after these calls in one process."""
    done = run_python(CLI, json.dumps([[str(a) for a in call] for call in calls]))
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_the_weights_only_verbs_never_import_transformers_or_trl(pair, tmp_path):
    S, edit = tmp_path / "S.safetensors", ["-k", 3, "--alpha", 1]
    lox_kit.save_adapter(factor(pair, rank=4), pair.aligned, tmp_path / "adapter", 3)
    modules = modules_after(
        ["check", pair.base, pair.aligned],
        ["factor", pair.base, pair.aligned, "-o", S, "--rank", 4, "--device", "cpu"],
        ["spectrum", S, "-k", 3, "--json"],
        ["apply", S, pair.aligned, "-o", tmp_path / "lox", *edit],
        ["check", pair.aligned, tmp_path / "adapter"],
        ["extrapolate", pair.aligned, tmp_path / "adapter", "-o", tmp_path / "one", *edit],
    )
    assert "torch" in modules
    assert not modules & {"transformers", "trl", "peft", "datasets", "accelerate"}
    assert weights(tmp_path / "lox").keys() == weights(pair.aligned).keys()


def test_help_imports_no_torch():
    assert "torch" not in modules_after(["--help"], ["apply", "--help"])
