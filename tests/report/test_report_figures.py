"""Oracles: the document itself, the geometry of the SVG read back by an XML parser, and the header of the PNG."""

import json
import math
import re
import struct
from xml.etree import ElementTree

import pytest
import report_documents

from gengap.report import interactive, paper
from gengap.report.figures import figures

SVG = "{http://www.w3.org/2000/svg}"


def named(document, name):
    return next(figure for figure in figures(document) if figure.name == name)


def dots(figure, role):
    return next(s for s in figure.series if s.role == role and s.style == "dots")


def test_every_kind_of_comparison_can_be_drawn(document):
    for figure in figures(document):
        if figure.empty:
            assert figure.empty.endswith(".")
            continue
        ElementTree.fromstring(paper.inline(figure))
        json.dumps(interactive.interactive(figure), allow_nan=False)
        assert "n = " in figure.caption or "seed" in figure.caption
        assert "interval" in figure.caption or "no error bars" in figure.caption


@pytest.mark.parametrize("role", ["small", "large"])
def test_dots_are_the_finished_runs(typical, role):
    typical[role]["runs"][0]["outcome"] = "diverged"
    shown = dots(named(typical, "test_accuracy"), role)
    assert list(shown.y) == [run["test_accuracy"] for run in typical[role]["runs"][1:]]


@pytest.mark.parametrize("role", ["small", "large"])
def test_the_mean_of_the_accuracy_is_the_estimate_of_the_document(typical, role):
    mean = next(s for s in named(typical, "test_accuracy").series if s.role == role and s.style == "mean")
    assert mean.y == (typical[role]["test_accuracy"]["value"],)
    assert list(mean.intervals[0]) == typical[role]["test_accuracy"]["interval"]


def test_the_mean_of_the_sharpness_is_geometric(typical):
    percents = [run["sharpness"]["percent"] for run in typical["large"]["runs"]]
    mean = next(s for s in named(typical, "sharpness").series if s.role == "large" and s.style == "mean")
    assert mean.y[0] == pytest.approx(math.prod(percents) ** (1 / 5))
    low, high = mean.intervals[0]
    assert low * high == pytest.approx(mean.y[0] ** 2)  # symmetric on the logarithmic axis


def test_lines_join_runs_of_the_same_seed(typical):
    del typical["large"]["runs"][2]
    lines = [s for s in named(typical, "test_accuracy").series if s.faint]
    assert [s.label for s in lines] == ["seed 0", "seed 1", "seed 3", "seed 4"]
    by_seed = {run["seed"]: run["test_accuracy"] for run in typical["large"]["runs"]}
    assert [s.y[1] for s in lines] == [by_seed[s] for s in (0, 1, 3, 4)]


def test_zero_sharpness_is_said_where_it_cannot_be_drawn():
    figure = named(report_documents.flat(), "sharpness")
    assert "5 runs with a sharpness of 0 cannot be shown" in figure.caption
    assert [word.text for word in figure.words] == ["0 in every run"]


def test_without_accuracy_the_loss_is_drawn():
    names = [figure.name for figure in figures(report_documents.regression())]
    assert names == ["test_loss", "sharpness", "interpolation", "training_loss"]


def test_one_seed_has_no_mean_and_no_interval():
    figure = named(report_documents.one_seed(), "test_accuracy")
    assert not [s for s in figure.series if s.style == "mean"]
    assert "no interval" in figure.caption


def test_gaps_stay_gaps():
    line = next(s for s in named(report_documents.gaps(), "interpolation").series if s.label == "train loss, mean")
    assert line.y[0] is None
    assert all(y is not None for y in line.y[1:])


@pytest.mark.parametrize(("largest", "log"), [(0.05, False), (5.0, True)])
def test_the_path_has_a_logarithmic_axis_where_ratios_are_large(typical, largest, log):
    for line in typical["interpolation"]:
        line["train_loss"] = [0.01] * 24 + [largest]
        line["test_loss"] = [0.02] * 25
    figure = named(typical, "interpolation")
    assert figure.left.log is log
    assert ("Logarithmic" if log else "Linear") in figure.caption


def test_curves_average_the_epochs_all_seeds_have(typical):
    short = typical["small"]["runs"][0]["history"]
    for name in short:
        short[name] = short[name][:10]
    curve = next(s for s in named(typical, "training_loss").series if s.label == "batch 32, train, mean")
    assert curve.x == tuple(range(10))
    values = [run["history"]["train_loss"][4] for run in typical["small"]["runs"]]
    assert curve.y[4] == pytest.approx(sum(values) / 5)


def test_the_svg_shows_the_values_of_the_document(typical):
    """The vertical places of the dots are an affine map of the accuracies, the same for both arms."""
    figure = named(typical, "test_accuracy")
    tree = ElementTree.fromstring(paper.inline(figure))
    found = {}
    for group in tree.iter("g"):
        title, use = group.find("title"), group.find(".//use")
        if title is not None and use is not None and "seed" in title.text:
            found[title.text] = -float(use.get("y"))
    values = {
        f"{typical[role]['label']}, seed {run['seed']}": run["test_accuracy"]
        for role in ("small", "large")
        for run in typical[role]["runs"]
    }
    pairs = [(values[text.partition(":")[0]], y) for text, y in found.items()]
    assert len(pairs) == 10
    (x0, y0), (x1, y1) = min(pairs), max(pairs)
    for x, y in pairs:
        assert y == pytest.approx(y0 + (x - x0) * (y1 - y0) / (x1 - x0), abs=1e-3)


def test_an_inline_svg_takes_everything_from_the_page(typical):
    seen = set()
    for figure in figures(typical):
        text = paper.inline(figure)
        tree = ElementTree.fromstring(text)
        assert tree.get("role") == "img"
        assert figure.title in tree.get("aria-label")
        ids = {one.get("id") for one in tree.iter() if one.get("id")}
        assert not ids & seen
        assert set(re.findall(r'(?:url\(#|href="#)([\w-]+)', text)) <= ids
        seen |= ids
        assert not re.findall(r"#[0-9a-fA-F]{6}\b|DejaVu|https?:|<style", text)
        assert {float(size) for size in re.findall(r"font-size: ([\d.]+)px", text)} == {paper.TEXT}


def test_files_are_the_same_every_time_and_have_the_right_size(typical, tmp_path):
    figure = named(typical, "sharpness")
    png, svg = paper.save(figure, tmp_path / "a")
    again = paper.save(figure, tmp_path / "b")
    assert [png.read_bytes(), svg.read_bytes()] == [path.read_bytes() for path in again]
    width, height = struct.unpack(">II", png.read_bytes()[16:24])
    assert (width, height) == pytest.approx((380 / 72 * 200, 300 / 72 * 200), abs=1)
    root = ElementTree.parse(svg).getroot()
    assert any("batch 1,000" in (text.text or "") for text in root.iter(f"{SVG}text"))


def test_the_users_settings_of_matplotlib_stay_as_they_are(typical):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    paper.inline(named(typical, "sharpness"))
    assert dict(mpl.rcParams) == before


def test_plotly_gets_the_same_values_and_page_colours(typical):
    figure = named(typical, "interpolation")
    drawn = interactive.interactive(figure)
    for trace, series in zip(drawn["data"], figure.series, strict=True):
        assert trace["y"] == pytest.approx(list(series.y), rel=1e-6)
        assert trace["line"]["color"].startswith("var(--")
    assert drawn["config"]["displaylogo"] is False
    assert "sendDataToCloud" in drawn["config"]["modeBarButtonsToRemove"]
