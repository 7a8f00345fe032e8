"""Which browser is used, and what is installed where there is none: with stubs on the PATH."""

import os
import shlex
import shutil
import sys

import chromium
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stubs are shell scripts")
STUB = '#!/bin/sh\necho "$(basename "$0")" "$@" >> {log}\n{then}\n'
UPDATE = "apt-get update -qq"
INSTALL = "apt-get install -y -qq --no-install-recommends chromium"
DOWNLOAD = "playwright install chromium"


class Machine:
    """A PATH of its own, on which there is only what a test puts there."""

    def __init__(self, folder):
        self.bin, self.log, self.own = folder / "bin", folder / "log", folder / "own" / "chrome"
        self.bin.mkdir()
        for tool in ("sh", "basename", "cp", "dirname", "env", "mkdir"):
            (self.bin / tool).symlink_to(shutil.which(tool))

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
    """A machine whose user is root, with an apt-get and a playwright that install a browser."""
    made = Machine(tmp_path)
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.delenv(chromium.VARIABLE, raising=False)
    monkeypatch.setattr(chromium, "PLACES", {})
    monkeypatch.setattr(chromium, "playwrights_own", lambda: str(made.own))
    monkeypatch.setattr(chromium, "DOWNLOAD", DOWNLOAD)
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    made.put("apt-get", f'test "$1" != install || cp {made.bin}/env {made.bin}/chromium')
    own = shlex.quote(str(made.own))
    made.put("playwright", f"mkdir -p $(dirname {own}) && cp {made.bin}/env {own}")
    return made


def test_what_is_installed_is_used_the_one_that_is_named_first(machine, tmp_path, monkeypatch):
    machine.own.parent.mkdir()
    machine.put("chrome", folder=machine.own.parent)
    assert chromium.executable() == str(machine.own)
    place = machine.put("Google Chrome", folder=tmp_path)
    monkeypatch.setattr(chromium, "PLACES", {sys.platform: (str(tmp_path / "none"), place)})
    assert chromium.executable() == place
    for name in reversed(chromium.NAMES):
        path = machine.put(name)
        assert chromium.executable() == path
    mine = machine.put("my chrome", folder=tmp_path)
    monkeypatch.setenv(chromium.VARIABLE, mine)
    assert chromium.executable() == mine
    assert machine.calls == []
    chromium.main()
    assert machine.calls == ["my chrome --version"]
    monkeypatch.setenv(chromium.VARIABLE, f"{mine}r")
    with pytest.raises(SystemExit, match=r"BROWSER=.*my chromer: no such program; give the path"):
        chromium.main()


def test_root_on_debian_installs_it_by_apt_get_and_says_so_first(machine, capsys):
    chromium.main()
    assert machine.calls == [UPDATE, INSTALL]
    *commands, where = capsys.readouterr().out.splitlines()
    assert commands == [f"$ {UPDATE}", f"$ env DEBIAN_FRONTEND=noninteractive {INSTALL}"]
    assert where == f"browser: {machine.bin / 'chromium'}"


@pytest.mark.parametrize("why", ["BROWSER= is empty", "not root", "no apt-get", "it fails"])
def test_else_playwright_downloads_its_own(machine, why, monkeypatch, capsys):
    if why == "BROWSER= is empty":
        monkeypatch.setenv(chromium.VARIABLE, "")
    elif why == "not root":
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
    elif why == "it fails":
        machine.put("apt-get", "exit 100")
    else:
        (machine.bin / "apt-get").unlink()
    chromium.main()
    assert machine.calls == [*([UPDATE] if why == "it fails" else []), DOWNLOAD]
    assert capsys.readouterr().out.endswith(f"$ {DOWNLOAD}\nbrowser: {machine.own}\n")


def test_where_nothing_works_one_line_says_what_to_do(machine, capsys):
    path = machine.put("chromium", "echo libnss3.so: cannot open >&2; exit 127")
    message = r"^Error: .* does not start \(libnss3.so: cannot open\): .* install-deps chromium.*$"
    with pytest.raises(SystemExit, match=message):
        chromium.main()
    os.remove(path)
    machine.put("apt-get", "echo E: cannot resolve >&2; exit 100")
    machine.put("playwright", 'echo "Error: no network\n    at line 1\n}" >&2; exit 1')
    with pytest.raises(SystemExit, match=r"^Error: .* apt-get install .* chromium.*$"):
        chromium.main()
    said = capsys.readouterr().out.splitlines()
    assert said[1::2] == ["failed (100): E: cannot resolve", "failed (1): Error: no network"]


def test_playwright_is_asked_where_its_own_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    assert chromium.playwrights_own().startswith(str(tmp_path))
