"""Wall clock of the command line: `gengap --help` beside an empty Python, and a whole `gengap compare`."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from benchmarks.record import Wall, in_turns

HELP_SECONDS = 0.4
COMPARE_SECONDS = 90.0


def entries(*, quick: bool) -> Iterator[Wall]:
    contestants = {
        "ours": lambda: timed(["-m", "gengap", "--help"]),
        "peer": lambda: timed(["-c", "pass"]),
    }
    seconds = in_turns(contestants, 2 if quick else 10)
    yield Wall("gengap --help", seconds["ours"], HELP_SECONDS, "python -c pass", seconds["peer"])
    if not quick:
        with tempfile.TemporaryDirectory() as folder:
            before = os.times()
            wall = timed(["-m", "gengap", "compare", "--out", folder])
            after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        # On a busy machine the wall clock is longer than the CPU time of this one thread.
        yield Wall("gengap compare", [wall], COMPARE_SECONDS, notes={"cpu_seconds": round(cpu, 2)})


def timed(arguments: list[str]) -> float:
    clock = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - clock
