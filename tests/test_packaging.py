"""The files that install the package agree with each other and with what they talk about."""

import itertools
import re
import tomllib
from importlib import metadata

import pytest
import yaml
from checkpoints import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lox_kit
from lox_kit.cli import main as cli

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
FOLDERS = ("lox_kit", "tests", "notebooks", "benchmarks", ".ci")


def pins():
    """Return the version of every package in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().split()
    parts = [line.split("==") for line in lines]
    assert all(len(p) == 2 for p in parts), "constraints.txt holds exact versions only"
    return {canonicalize_name(name): version for name, version in parts}


PINS = pins()


def requirements():
    """Return every requirement of the package and its extras."""
    texts = [*PROJECT["project"]["dependencies"], *(t for e in EXTRAS.values() for t in e)]
    return [Requirement(text) for text in texts]


# --- versions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", requirements(), ids=str)
def test_every_requirement_is_pinned_to_a_version_that_satisfies_it(wanted):
    if wanted.name == "lox-kit":
        assert wanted.extras <= set(EXTRAS)
    else:
        assert wanted.specifier.contains(PINS[canonicalize_name(wanted.name)])


def test_whatever_comes_along_is_pinned_too():
    """All but what torch brings with it, which differs from build to build and it pins itself."""
    seen, todo = set(), [r for r in requirements() if r.name != "lox-kit"]
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        if name in seen:
            continue
        seen.add(name)
        assert name in PINS, f"{name} is not in constraints.txt"
        if name != "torch":
            for text in metadata.requires(name) or []:
                need = Requirement(text)
                extras = wanted.extras or {""}
                if not need.marker or any(need.marker.evaluate({"extra": e}) for e in extras):
                    todo.append(need)
    assert len(seen) > 50


def test_the_conda_route_installs_the_same():
    conda = yaml.safe_load((ROOT / "environment.yaml").read_text())
    (python,) = [d for d in conda["dependencies"] if str(d).startswith("python=")]
    (from_pip,) = [d["pip"] for d in conda["dependencies"] if isinstance(d, dict)]
    floor = Requirement(f"python{PROJECT['project']['requires-python']}").specifier
    assert floor.contains(python.removeprefix("python="))
    assert "pip" in conda["dependencies"]
    assert "-c constraints.txt" in from_pip
    (package,) = [line for line in from_pip if line.startswith("-e .")]
    assert re.fullmatch(r"-e \.\[(\w+)\]", package).group(1) in EXTRAS
    assert conda["name"] == PROJECT["project"]["name"]


def test_binder_installs_the_same_and_ends_its_build_with_a_check():
    conda = yaml.safe_load((ROOT / "environment.yaml").read_text())
    python = (ROOT / "binder" / "runtime.txt").read_text().strip().removeprefix("python-")
    assert f"python={python}" in conda["dependencies"]
    wanted = (ROOT / "binder" / "requirements.txt").read_text().splitlines()
    assert {"-c ../constraints.txt", "-e .[lab]"} <= set(wanted)
    check = ROOT / "binder" / "postBuild"
    assert check.stat().st_mode & 0o111
    for command in (line for line in check.read_text().splitlines() if line.startswith("lox ")):
        assert command.split()[1] in cli.lox.commands


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert lox_kit.__version__ == citation["version"]
    assert PROJECT["project"]["dynamic"] == ["version"]
    setup = PROJECT["tool"]["setuptools"]
    assert setup["dynamic"]["version"] == {"attr": "lox_kit.__version__"}


# --- files --------------------------------------------------------------------------------------


def test_every_package_and_data_file_is_installed():
    setup = PROJECT["tool"]["setuptools"]
    ours = [
        f for f in (ROOT / "lox_kit").rglob("*") if f.is_file() and "__pycache__" not in f.parts
    ]
    assert setup["packages"] == {"find": {"include": ["lox_kit*"], "namespaces": False}}
    for file in ours:  # a folder of code without an __init__ is not found
        assert file.suffix != ".py" or (file.parent / "__init__.py").exists(), file
    installed = {
        file
        for package, patterns in setup["package-data"].items()
        for pattern in patterns
        for file in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    assert installed == {f for f in ours if f.suffix != ".py"}
    names = {str(f.relative_to(ROOT / "lox_kit")) for f in installed}
    assert {f"sandbox/seed0/{m}/model.safetensors" for m in ("base", "aligned")} <= names
    assert "figures/paper.mplstyle" in names


def text_files():
    """Yield every text file of the repository with its content."""
    files = [f for f in ROOT.iterdir() if f.is_file()]
    for folder in FOLDERS:
        files += [f for f in (ROOT / folder).rglob("*") if f.is_file()]
    for file in files:
        if file.suffix not in (".safetensors", ".sqlite", ".pyc", ".png", ".pdf", ".npz"):
            yield file, file.read_text(encoding="utf-8")


def test_no_file_holds_a_path_of_somebody_s_machine():
    places = re.compile("|".join(f"/{top}/" for top in ("home", "root", "Users", "work", "mnt")))
    found = {str(f.relative_to(ROOT)): places.findall(text) for f, text in text_files()}
    assert len(found) > 50
    assert {name: hits for name, hits in found.items() if hits} == {}


# --- what the README tells to type --------------------------------------------------------------


def typed(text):
    """Return the commands in a text's code: fenced, indented or quoted."""
    fenced = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S))
    lines = [*fenced.splitlines(), *re.findall(r"`([^`\n]+)`", text)]
    lines += [line[4:] for line in text.splitlines() if line.startswith("    ")]
    parts = [part.strip() for line in lines for part in re.split(r"&&|#|;|\||\s{3,}", line)]
    return [part.removeprefix("$ ") for part in parts]


def test_the_readme_s_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", MAKEFILE, re.M))
    named = {c.split()[1] for c in typed(README) if re.match(r"make \w", c)}
    assert {"lab", "test", "test-slow", "demo"} <= named <= targets
    assert set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M).group(1).split()) <= targets


def test_the_make_targets_run_every_test_between_them():
    """Each once, but for the browser tests of `make test`, which those after them build on.

    The unit tests on the oldest versions are another matter.
    """
    newest = re.sub(r"^test-oldest:.*?\n\n", "", MAKEFILE, flags=re.S | re.M)
    asked = [
        a or b
        for a, b in re.findall(r'-m (?:"([^"]+)"|(\w+))', newest)
        if b not in ("pip", "build")
    ]
    for slow, browser in itertools.product((True, False), repeat=2):
        names = {"slow": slow, "browser": browser, "venv": False, "pytest": False}
        chosen = [words for words in asked if eval(words, names)]
        assert len(chosen) == (2 if browser and not slow else 1), chosen


def options(command):
    """Return every option a click command takes."""
    return {o for p in command.params for o in p.opts} | {"--help", "-h"}


@pytest.mark.parametrize("text", [README, cli.EPILOG], ids=["README", "lox --help"])
def test_every_lox_command_that_is_shown_exists(text):
    source = text if text is README else "```\n" + text.replace("\n  ", "\n") + "```\n"
    ours = (c.partition(" -- ")[0] for c in typed(source))  # the rest is Jupyter's
    shown = [c.split() for c in ours if re.match(r"lox [a-z-]", c)]
    assert len(shown) >= 5
    for words in shown:
        command, words = cli.lox, words[1:]
        while words and hasattr(command, "commands") and not words[0].startswith("-"):
            command, words = command.commands[words[0]], words[1:]
        flags = {w for w in words if re.match(r"--?[a-z]", w)}
        assert flags <= options(command) | options(cli.lox), words


def test_the_paths_the_readme_links_to_exist():
    links = re.findall(r"\]\(([^)#\s]+)", README)
    here = [link for link in links if "://" not in link]
    for link in here:
        assert (ROOT / link).exists(), link
    assert "2506.15606" in README
