# Oracle: what the page says that its own examples print.
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "adapters.md"
BLOCK = re.compile(r"<!-- not run: needs (\w+).*? -->\n```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
EXAMPLES = BLOCK.findall(PAGE.read_text(encoding="utf-8"))


def test_every_example_of_the_page_is_here():
    assert [package for package, _, _ in EXAMPLES] == ["lightning", "transformers", "accelerate"]
    assert len(EXAMPLES) == PAGE.read_text(encoding="utf-8").count("```python")


@pytest.mark.parametrize(("package", "code", "printed"), EXAMPLES, ids=[package for package, _, _ in EXAMPLES])
def test_an_example_prints_what_the_page_says(package, code, printed, tmp_path):
    if find_spec(package) is None:
        pytest.skip(f'install it with: pip install "gengap[{package}]"')
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert made.returncode == 0, made.stderr
    said = made.stdout.splitlines()
    assert [line for line in printed.splitlines() if line not in said] == [], made.stdout
