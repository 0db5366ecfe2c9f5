"""Write the reference of command line and recipes from themselves; with --check, say whether it is up to date."""

import html
import os
import subprocess
import sys
from pathlib import Path

from recipe_page import page

REFERENCE = Path(__file__).parent / "reference"


def manual() -> str:
    """Give the manual as typer writes it."""
    command = [
        sys.executable,
        "-m",
        "typer",
        "gengap.cli",
        "utils",
        "docs",
        "--name",
        "gengap",
        "--title",
        "The command line",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GENGAP_")}
    made = subprocess.run(command, check=True, capture_output=True, text=True, env=environment | {"COLUMNS": "120"})
    return html.unescape(made.stdout).rstrip() + "\n"


def main() -> int:
    """Write or check."""
    for name, make in (("cli.md", manual), ("recipe.md", page)):
        target, text = REFERENCE / name, make()
        if "--check" not in sys.argv:
            target.write_text(text, encoding="utf-8")
        elif not target.exists() or target.read_text(encoding="utf-8") != text:
            print(f"{target} is not what the program says; run: python docs/manual.py", file=sys.stderr)
            return 1
    print("the manual is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
