"""Oracles: Python's own HTML and CSV parsers, and the document."""

import csv
import json
from html.parser import HTMLParser

import pytest
import report_documents

from gengap.core.errors import BadInput
from gengap.report.page import write_report

VOID = {"meta", "link", "br", "img", "input", "hr"}
LOADING = {"src", "srcset", "poster", "action", "formaction", "background", "ping"}


class Reader(HTMLParser):
    """Collects text, links and everything that would load something; complains about tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.words, self.links, self.loads, self.tags = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attributes = dict(attrs)
        self.loads += [value for name, value in attrs if name in LOADING]
        if "href" in attributes:
            (self.links if tag == "a" else self.loads).append(attributes["href"])
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.stack):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module", params=sorted(report_documents.ALL))
def written(request, tmp_path_factory):
    document = json.loads(json.dumps(report_documents.ALL[request.param](), allow_nan=False))
    folder = tmp_path_factory.mktemp(request.param)
    assert write_report(document, folder / "out") == folder / "out" / "report.html"
    return document, folder / "out"


def test_the_page_is_whole_and_alone(written):
    document, folder = written
    page = Reader((folder / "report.html").read_text(encoding="utf-8"))
    assert document["sentence"] in page.text
    assert document["title"] in page.text
    assert all(claim["why"] in page.text for claim in document["claims"])
    assert all(sentence in page.text for sentence in document["unresolved"])
    assert document["command"] in page.text
    assert [one for one in page.loads if not one.startswith(("#", "data:"))] == []
    web = {one for one in page.links if ":" in one}
    assert web <= {one["link"] for one in document["definitions"] if one["link"].startswith("https://")}
    for link in set(page.links) - web:
        assert (folder / link).is_file(), link


def test_names_cannot_become_markup(tmp_path):
    path = write_report(report_documents.hostile(), tmp_path)
    text = path.read_text(encoding="utf-8")
    page = Reader(text)
    assert "<script>alert" not in text
    assert report_documents.HOSTILE in page.text
    assert not [one for one in page.links if one.startswith("javascript:")]
    assert page.tags.count("script") == 3  # figures, plotly.js, and our own


def test_pictures_are_in_the_page_and_beside_it(typical, tmp_path):
    text = write_report(typical, tmp_path).read_text(encoding="utf-8")
    names = {"test_accuracy", "sharpness", "interpolation", "training_accuracy", "training_loss"}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"{n}{e}" for n in names for e in (".png", ".svg")
    }
    assert text.count('<svg viewBox="0 0 380 300"') == len(names)
    assert text.count("plotly.js v") == 1


def test_the_order_is_answer_proof_numbers_claims_doubts(typical, tmp_path):
    text = write_report(typical, tmp_path).read_text(encoding="utf-8")
    landmarks = [
        typical["title"] + "</h1>",
        'class="answer"',
        'id="test_accuracy"',
        'id="sharpness"',
        'id="interpolation"',
    ]
    landmarks += ["<h2>The numbers", "<h2>The claims, tested here", "<h2>What could not be concluded", "<details>"]
    places = [text.index(one) for one in landmarks]
    assert places == sorted(places)


def test_the_same_document_gives_the_same_page(typical, tmp_path):
    assert write_report(typical, tmp_path / "a").read_bytes() == write_report(typical, tmp_path / "b").read_bytes()


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def value(text):
    return float(text) if text else None


def test_tables_for_spreadsheets_give_the_document_back(written):
    document, folder = written
    every = [(document[role], run) for role in ("small", "large") for run in document[role]["runs"]]
    runs, history, path = (rows(folder / "data" / f"{name}.csv") for name in ("runs", "history", "interpolation"))
    assert len(runs) == len(every)
    for row, (arm, run) in zip(runs, every, strict=True):
        assert (row["key"], int(row["seed"]), int(row["batch_size"])) == (run["key"], run["seed"], arm["batch_size"])
        for name in ("test_accuracy", "train_accuracy", "test_loss", "train_loss", "distance", "seconds"):
            assert value(row[name]) == run[name]
        assert value(row["sharpness"]) == (run["sharpness"]["percent"] if run["sharpness"] else None)
        own = [one for one in history if one["key"] == run["key"]]
        for name in run["history"]:
            assert [value(one[name]) for one in own] == run["history"][name]
    for line in document["interpolation"]:
        own = [one for one in path if int(one["seed"]) == line["seed"]]
        for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
            assert [value(one[name]) for one in own] == line[name]
        assert [value(one["alpha"]) for one in own] == line["alphas"]


def test_a_folder_that_cannot_be_written_is_said(typical, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BadInput, match="choose a folder"):
        write_report(typical, tmp_path / "file" / "report")
