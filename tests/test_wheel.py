"""The wheel, installed into an environment of its own, outside of the repository."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request

import psutil
import pytest
from checkpoints import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The bin folder of an environment with the wheel, and what it needs taken from this one."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder, ROOT], check=True)
    (wheel,) = folder.glob("lox_kit-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run(
        [*pip, "--python", python, "install", "--no-deps", "--force-reinstall", wheel], check=True
    )
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "needs.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "venv" / "bin"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty working folder, cache and store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("LOX_KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOX_KIT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "jupyter"))
    return tmp_path


def test_the_demo_runs_from_the_wheel(installed, elsewhere):
    code = "import lox_kit; print(lox_kit.__file__)"
    where = subprocess.check_output([installed / "python", "-c", code], text=True)
    assert where.startswith(str(installed.parent))
    said = subprocess.check_output([installed / "lox", "demo", "-o", "out"], text=True)
    assert "figures and numbers: out" in said
    assert {f.suffix for f in (elsewhere / "out").iterdir()} >= {".pdf", ".png", ".svg", ".json"}


@pytest.fixture
def free_port():
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def ask(url):
    """Return what a server answers, waiting for it to start."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} did not answer")


def test_the_lab_opens_a_copy_and_a_signal_ends_server_and_kernels(installed, elsewhere, free_port):
    options = ["--no-browser", "--port", str(free_port), "--IdentityProvider.token="]
    options += ["--ServerApp.disable_check_xsrf=True"]
    lab = subprocess.Popen([installed / "lox", "lab", "--", *options])
    top = f"http://127.0.0.1:{free_port}/"
    try:
        names = [file["name"] for file in ask(f"{top}api/contents")["content"]]
        ours = [file.name for file in ROOT.glob("notebooks/*.ipynb")]
        assert sorted(names) == sorted([*ours, "course"])
        below = [file["path"] for file in ask(f"{top}api/contents/course")["content"]]
        assert "course/3_lox.ipynb" in below
        assert "course/TEACHING.md" in below
        solved = ask(f"{top}api/contents/course/solutions")["content"]
        assert len(solved) == len([*ROOT.glob("notebooks/course/solutions/*.ipynb")]) == 5
        found = ask(f"{top}lab/api/settings/@jupyterlab/apputils-extension:notification")
        defaults = {name: f["default"] for name, f in found["schema"]["properties"].items()}
        assert defaults["fetchNews"] == "false"  # "none" would ask whether news are wanted
        assert found["settings"] == {}
        assert not (elsewhere / "jupyter" / "labconfig").exists()
        post = urllib.request.Request(f"{top}api/kernels", b"{}", method="POST")
        urllib.request.urlopen(post, timeout=60).close()
        started = psutil.Process(lab.pid).children(recursive=True)
        assert started
        lab.send_signal(signal.SIGTERM)
        lab.wait(60)
        assert psutil.wait_procs(started, timeout=20)[1] == []
    finally:
        lab.kill()


def test_what_was_changed_in_the_copy_stays_until_it_is_asked_to_go(elsewhere):
    from lox_kit.cli.lab import copied_notebooks

    mine = copied_notebooks() / "02_lox.ipynb"
    delivered = mine.read_bytes()
    mine.write_text("{}")
    assert copied_notebooks() == elsewhere / "store" / "notebooks"
    assert mine.read_text() == "{}"
    copied_notebooks(fresh=True)
    assert mine.read_bytes() == delivered == (ROOT / "notebooks" / mine.name).read_bytes()


@pytest.mark.parametrize("module", ["transformers", "jupyterlab", "trl"])
def test_a_missing_extra_is_one_line_that_names_it(installed, elsewhere, module):
    verbs = {"transformers": "asr sandbox/aligned", "jupyterlab": "lab"}
    verb = verbs.get(module, "attack arithmetic sandbox/aligned -o out").split()
    (elsewhere / f"{module}.py").write_text(f"raise ModuleNotFoundError(name={module!r})")
    environment = os.environ | {"PYTHONPATH": str(elsewhere)}
    run = subprocess.run(
        [installed / "lox", *verb], env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 2
    extra = "lab" if module == "jupyterlab" else "train"
    assert re.search(rf'^lox: .*pip install "lox-kit\[{extra}\]"$', run.stderr, re.M), run.stderr
