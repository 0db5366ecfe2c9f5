"""Write docs/reference/cli.md from the command line itself; with --check, say whether it is up to date."""

import html
import os
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).parent / "reference" / "cli.md"


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
    text = manual()
    if "--check" not in sys.argv:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
        print(f"{TARGET} is not what the command line says; run: python docs/manual.py", file=sys.stderr)
        return 1
    print("the manual is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
