"""Which browser is used, and what is installed where there is none: with stubs on the PATH."""

import os
import shlex
import shutil
import sys

import chromium
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stubs are shell scripts")
STUB = '#!/bin/sh\necho "$(basename $0) $@" >> {log}\n{then}\n'


class Machine:
    """A PATH of its own, on which there is only what a test puts there."""

    def __init__(self, folder):
        self.bin, self.log = folder / "bin", folder / "log"
        self.bin.mkdir()

    def put(self, name, then="exit 0", folder=None):
        """Put a program there that writes down how it was called; return its path."""
        file = (folder or self.bin) / name
        file.write_text(STUB.format(log=self.log, then=then))
        file.chmod(0o755)
        return str(file)

    @property
    def calls(self):
        """What was called, in order."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A bare machine whose user is root; Playwright's download is a stub that fails."""
    made = Machine(tmp_path)
    for tool in ("sh", "basename", "cp", "dirname", "env", "mkdir"):
        (made.bin / tool).symlink_to(shutil.which(tool))
    made.own = tmp_path / "downloaded" / "chrome"
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.delenv(chromium.VARIABLE, raising=False)
    monkeypatch.setattr(chromium, "PLACES", {})
    monkeypatch.setattr(chromium, "playwrights_own", lambda: str(made.own))
    monkeypatch.setattr(chromium, "DOWNLOAD", "playwright install chromium")
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    made.put("playwright", 'echo "Error: no network\n    at line 1\n}" >&2; exit 1')
    return made


@pytest.fixture
def browsers(machine):
    """The machine, with an apt-get and a playwright that install what they are told to."""
    machine.put("apt-get", f'test "$1" != install || cp {machine.bin}/env {machine.bin}/chromium')
    own = shlex.quote(str(machine.own))
    machine.put("playwright", f"mkdir -p $(dirname {own}) && cp {machine.bin}/env {own}")
    return machine


UPDATE = "apt-get update -qq"
INSTALL = "apt-get install -y -qq --no-install-recommends chromium"
DOWNLOAD = "playwright install chromium"


@pytest.mark.parametrize("name", chromium.NAMES)
def test_what_is_installed_is_used_and_nothing_is_run(browsers, name, capsys):
    path = browsers.put(name)
    chromium.main()
    assert capsys.readouterr().out == f"browser: {path}\n"
    assert chromium.executable() == path
    assert browsers.calls == [f"{name} --version"]


def test_a_usual_place_and_playwright_s_own_are_used_where_the_path_has_none(
    browsers, tmp_path, monkeypatch
):
    browsers.own.parent.mkdir()
    browsers.put("chrome", folder=browsers.own.parent)
    assert chromium.executable() == str(browsers.own)
    place = browsers.put("Google Chrome", folder=tmp_path)
    monkeypatch.setattr(chromium, "PLACES", {sys.platform: (str(tmp_path / "none"), place)})
    assert chromium.executable() == place
    first = browsers.put("chromium")
    assert chromium.executable() == first
    assert browsers.calls == []


def test_the_one_that_is_named_is_used_whatever_else_there_is(browsers, tmp_path, monkeypatch):
    browsers.put("chromium")
    mine = browsers.put("my chrome", folder=tmp_path)
    monkeypatch.setenv(chromium.VARIABLE, mine)
    assert chromium.executable() == mine
    monkeypatch.setenv(chromium.VARIABLE, f"{mine}r")
    with pytest.raises(SystemExit, match=r"BROWSER=.*my chromer: no such program; give the path"):
        chromium.main()
    assert browsers.calls == []


def test_root_on_debian_installs_it_by_apt_get_and_says_so_first(browsers, capsys):
    chromium.main()
    assert browsers.calls == [UPDATE, INSTALL]
    *commands, where = capsys.readouterr().out.splitlines()
    assert commands == [f"$ {UPDATE}", f"$ env DEBIAN_FRONTEND=noninteractive {INSTALL}"]
    assert where == f"browser: {browsers.bin / 'chromium'}"


@pytest.mark.parametrize("why", ["BROWSER= is empty", "not root", "no apt-get", "it fails"])
def test_else_playwright_downloads_its_own(browsers, why, monkeypatch, capsys):
    if why == "BROWSER= is empty":
        monkeypatch.setenv(chromium.VARIABLE, "")
    elif why == "not root":
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
    elif why == "it fails":
        browsers.put("apt-get", "exit 100")
    else:
        (browsers.bin / "apt-get").unlink()
    chromium.main()
    assert browsers.calls == [*([UPDATE] if why == "it fails" else []), DOWNLOAD]
    assert capsys.readouterr().out.endswith(f"$ {DOWNLOAD}\nbrowser: {browsers.own}\n")


def test_a_browser_that_does_not_start_is_one_line(browsers):
    path = browsers.put("chromium", "echo libnss3.so: cannot open >&2; exit 127")
    with pytest.raises(SystemExit) as end:
        chromium.main()
    assert end.value.code.startswith(f"Error: {path} does not start (libnss3.so: cannot open): ")
    assert "playwright install-deps chromium" in end.value.code
    assert "\n" not in end.value.code


def test_where_nothing_works_one_line_says_what_to_install(machine, capsys):
    machine.put("apt-get", "echo E: cannot resolve >&2; exit 100")
    with pytest.raises(SystemExit) as end:
        chromium.main()
    assert end.value.code == f"Error: {chromium.MISSING}"
    assert "\n" not in chromium.MISSING
    said = capsys.readouterr().out.splitlines()
    assert said[1::2] == ["failed (100): E: cannot resolve", "failed (1): Error: no network"]
    with pytest.raises(FileNotFoundError, match=r"apt-get install .* chromium"):
        chromium.executable()


def test_playwright_is_asked_where_its_own_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    assert chromium.playwrights_own().startswith(str(tmp_path))
