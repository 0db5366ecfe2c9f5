"""Oracle: the document's own words, in the order that a reader needs them."""

import subprocess
import sys

import pytest
import report_documents
from rich.console import Console

from gengap.report.terminal import print_comparison


def printed(document, width=200):
    console = Console(width=width, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    with console.file:
        print_comparison(document, console)
        return console.export_text()


def test_the_sentence_comes_first_then_numbers_then_doubts(document):
    text = printed(document)
    assert text.startswith(document["sentence"])
    words = ["Runs finished", *(claim["text"] for claim in document["claims"]), *document["unresolved"]]
    places = [text.index(word) for word in words]
    assert places == sorted(places)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_nothing_is_cut_off(width):
    text = printed(report_documents.typical(), width)
    assert "…" not in text
    assert all(len(line.rstrip()) <= width for line in text.splitlines())


def test_names_are_not_read_as_markup(typical):
    typical["large"]["label"] = "[red]batch[/red] [link=x]"
    assert "[red]batch[/red]" in printed(typical)


def test_nothing_heavy_is_loaded():
    heavy = "{'torch', 'matplotlib', 'plotly', 'jinja2', 'numpy'}"
    code = f"import sys; import gengap.report.terminal; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_report_loads_no_torch():
    code = "import sys; import gengap.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
