"""Where the browser tests find Chromium or Chrome, and how `make test` comes by one.

    python tests/browser/chromium.py    # say where one is; install Chromium if there is none

LOX_KIT_BROWSER names the one to use. If it is set and empty, apt-get is not run.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator

VARIABLE = "LOX_KIT_BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLACES = {
    "darwin": (
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
    ),
    "win32": tuple(
        os.path.join(os.environ.get(top, ""), "Google", "Chrome", "Application", "chrome.exe")
        for top in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")
    ),
}
APT = (
    "apt-get update -qq",
    "env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium",
)
DOWNLOAD = shlex.join([sys.executable, "-m", "playwright", "install", "chromium"])
OWN = """
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
"""
MISSING = (
    "the browser tests need Chromium or Chrome, and there is none: install one (Debian: apt-get "
    "install --no-install-recommends chromium), or name one: make test BROWSER=/path/to/chrome"
)


def main() -> None:
    """Print where the browser is, after installing one if there is none."""
    try:
        check(path := find() or install())
    except FileNotFoundError as error:
        sys.exit(f"Error: {error}")
    print("browser:", path)


def check(path: str) -> None:
    """Raise FileNotFoundError if a browser does not start: it may lack what it needs."""
    done = subprocess.run([path, "--version"], capture_output=True, text=True)
    if done.returncode:
        raise FileNotFoundError(
            f"{path} does not start ({(done.stderr.split(chr(10)) or [''])[0]}): install what it "
            f"lacks ({DOWNLOAD.replace('install', 'install-deps')}), or name another one: make "
            "test BROWSER=/path/to/chrome"
        )


def executable() -> str:
    """Return where the browser is, and install nothing.

    Raises
    ------
    FileNotFoundError
        If there is none: browser tests never skip.
    """
    if found := find():
        return found
    raise FileNotFoundError(MISSING)


def find() -> str | None:
    """Return the browser that is named, or one that is installed, or Playwright's own, or None."""
    if named := os.environ.get(VARIABLE):
        if found := shutil.which(named):
            return found
        raise FileNotFoundError(
            f"BROWSER={named}: no such program; give the path of Chromium or Chrome, or leave "
            "BROWSER out"
        )
    for candidate in (*NAMES, *PLACES.get(sys.platform, ())):
        if found := shutil.which(candidate):
            return found
    return shutil.which(playwrights_own())


def playwrights_own() -> str:
    """Return where Playwright keeps the Chromium that it downloads, whether it is there or not."""
    asked = subprocess.run([sys.executable, "-c", OWN], capture_output=True, text=True)
    return asked.stdout.strip()  # "" if Playwright cannot say


def install() -> str:
    """Install Chromium in the first way that works, and return where it is."""
    for commands in ways():
        if all(succeeds(command) for command in commands) and (found := find()):
            return found
    raise FileNotFoundError(MISSING)


def ways() -> Iterator[tuple[str, ...]]:
    """Yield the commands of each way to install Chromium that is open here."""
    forbidden = VARIABLE in os.environ
    root = getattr(os, "geteuid", lambda: None)() == 0
    if root and not forbidden and shutil.which("apt-get"):
        yield APT
    yield (DOWNLOAD,)


def succeeds(command: str) -> bool:
    """Print a command and run it; if it fails, print the last line that names an error."""
    print("$", command, flush=True)
    done = subprocess.run(shlex.split(command), capture_output=True, text=True)
    if done.returncode:
        lines = done.stdout.splitlines() + done.stderr.splitlines() + ["no word of why"]
        named = [line for line in lines if line.startswith(("E:", "Error"))]
        print(f"failed ({done.returncode}): {(named or lines)[-1]}", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    main()
