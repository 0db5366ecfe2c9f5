"""Run every Python block and every console command of the README and the docs, and compare what they print.

A ```python block is run in a fresh process; if a ```text block follows it, that is what it must print. In a ```console
block every line that begins with "$ gengap" is run and must end with exit code 0. Words must agree exactly and numbers to
within a quarter, because processors round differently. A block under the comment "not run: REASON" is left out.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(
    r"(?P<skip><!-- not run: [^>]+ -->\n+)?```(?P<kind>python|console)\n(?P<code>.*?)```\n(?:\n+```text\n(?P<text>.*?)```)?",
    re.DOTALL,
)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
TOLERANCE = 0.25


@dataclass(frozen=True)
class Block:
    """One block of a page."""

    page: Path
    line: int
    kind: str
    code: str
    expected: str | None


def blocks(page: Path) -> list[Block]:
    """Find the blocks of a page that are to be run."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text[: found.start()].count("\n") + 1, found["kind"], found["code"], found["text"])
        for found in BLOCK.finditer(text)
        if not found["skip"]
    ]


def run(block: Block, folder: Path) -> str | None:
    """Run a block; return what is wrong with it."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
    }
    environment.setdefault("OMP_NUM_THREADS", "1")  # more threads than idle cores wait for each other
    if block.kind == "console":
        commands = [shlex.split(line[2:]) for line in block.code.splitlines() if line.startswith("$ gengap")]
    else:
        commands = [[sys.executable, "-c", block.code]]
    for command in commands:
        made = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=600)
        if made.returncode:
            return f"{command[:3]} ended with {made.returncode}:\n{made.stderr[-2000:]}"
        if block.expected is not None and not alike(made.stdout, block.expected):
            return f"it printed\n{made.stdout}\nand not\n{block.expected}"
    return None


def alike(ours: str, expected: str) -> bool:
    """Tell whether two texts have the same words and nearly the same numbers."""
    if NUMBER.sub("#", " ".join(ours.split())) != NUMBER.sub("#", " ".join(expected.split())):
        return False
    pairs = zip(NUMBER.findall(ours), NUMBER.findall(expected), strict=True)
    values = [(float(a.replace(",", "")), float(b.replace(",", ""))) for a, b in pairs]
    return all(abs(a - b) <= TOLERANCE * max(abs(a), abs(b)) for a, b in values)


def pages_named(names: list[str]) -> list[Path]:
    """Find the pages named on the command line, by default all; end with a sentence where one is not there."""
    if not names:
        return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = [Path(name).resolve() for name in names]
    for page in found:
        if not page.is_file() or not page.is_relative_to(ROOT):
            sys.exit(f"there is no page {page} of this project; name files of docs, or none for all")
    return found


def check(page: Path) -> list[tuple[Block, str | None]]:
    """Run the blocks of a page, one after the other in a folder of their own; give what is wrong with each."""
    with tempfile.TemporaryDirectory() as folder:
        return [(block, run(block, Path(folder))) for block in blocks(page)]


def main() -> int:
    """Run all blocks of the pages, two pages at a time."""
    pages = [page for page in pages_named(sys.argv[1:]) if page.name != "cli.md"]
    count = failed = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        for checked in pool.map(check, pages):
            for block, wrong in checked:
                print(f"{'FAILED' if wrong else 'ok':<7}{block.page.relative_to(ROOT)}:{block.line}", flush=True)
                count += 1
                if wrong:
                    failed += 1
                    print(wrong, file=sys.stderr)
    print(f"{count} blocks, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
