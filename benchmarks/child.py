"""Run a program in a fresh process and say what it took: time, work, peak memory, bytes moved.

python child.py REPORT lox factor BASE ALIGNED -o S.safetensors
python child.py REPORT plain_lox.py BASE ALIGNED OUT 6 1.25 FACTORS
python child.py REPORT ENV/bin/program ARGUMENTS    # of another environment
"""

from __future__ import annotations

import atexit
import dataclasses
import json
import os
import resource
import runpy
import subprocess
import sys
import time
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Took:
    """What one process took."""

    seconds: float  # wall clock, from before the interpreter starts until it is gone
    peak_mb: float  # most memory resident at once, mapped files included
    written_mb: float  # handed to write(), by the kernel's count; nan where there is none
    work: float  # seconds of processor time, children's included


def run(program: str, *arguments: object, report: Path, cache: Path) -> Took:
    """Run `lox`, a Python script or a program with arguments, its hash cache in the folder `cache`.

    Raises
    ------
    RuntimeError
        If it fails; its last line is in the message.
    """
    command = [sys.executable, __file__, str(report), program, *map(str, arguments)]
    environment = os.environ | {"LOX_KIT_CACHE": str(cache)}
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{program} failed: {done.stderr.strip().splitlines()[-1:]}")
    return Took(seconds, **json.loads(report.read_text()))


def _write_report(path: str) -> None:
    """Write this process's peak memory, bytes written and work, as the kernel counts them."""
    own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    peak_kb, written = own.ru_maxrss, float("nan")
    if Path("/proc/self/io").exists():
        # not ru_maxrss: a child starts with its parent's
        peak_kb = int(_field("/proc/self/status", "VmHWM").split()[0])
        written = int(_field("/proc/self/io", "wchar"))
    peak_kb = max(peak_kb, children.ru_maxrss)
    if sys.platform == "darwin":
        peak_kb /= 1024
    work = sum(r.ru_utime + r.ru_stime for r in (own, children))
    found = {"peak_mb": peak_kb / 976.5625, "written_mb": written / 1e6, "work": work}
    Path(path).write_text(json.dumps(found))


def _field(file: str, name: str) -> str:
    """Return the value of the line `name: value`."""
    lines = Path(file).read_text().splitlines()
    return next(line.partition(":")[2] for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    report, program, *arguments = sys.argv[1:]
    atexit.register(_write_report, report)
    sys.argv = [program, *arguments]
    if program == "lox":
        from lox_kit.cli.main import main

        main()
    elif program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        sys.exit(subprocess.run([program, *arguments], check=False).returncode)
