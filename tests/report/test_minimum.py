"""Oracles: the records themselves, Python's own HTML, XML and CSV parsers, and words a person would write."""

import copy
import csv
import html
import json
import subprocess
import sys
from xml.etree import ElementTree

import minimum_documents
import pytest
from rich.console import Console
from test_report_page import Reader

from gengap.report import interactive, paper
from gengap.report.minimum import tables
from gengap.report.minimum.figures import figures, levels
from gengap.report.minimum.page import page, write_report
from gengap.report.minimum.sentence import context
from gengap.report.minimum.shown import can_be_shown
from gengap.report.minimum.terminal import print_minimum, print_plan


@pytest.fixture(params=sorted(minimum_documents.ALL))
def document(request):
    """Every kind of measurement, as it comes back from JSON."""
    return json.loads(json.dumps(minimum_documents.ALL[request.param](), allow_nan=False))


@pytest.fixture
def whole():
    return minimum_documents.document()


def number(document, key):
    return next(one for one in document["numbers"] if one["key"] == key)


def named(document, name):
    return next(figure for figure in figures(document) if figure.name == name)


def printed(document, width=200):
    console = Console(width=width, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    with console.file:
        print_minimum(document, console)
        return console.export_text()


SENTENCES = {
    "whole": "This minimum's loss climbs by 49 % within the box of radius 10⁻³, its top curvature is 0.79 (stable up to "
    "lr 2.5), its noise scale is 1,200 samples, and its barrier to the second checkpoint is 0.31 nats.",
    "gaps": "This minimum's loss climbs by 0 % within the box of radius 10⁻³, its top curvature is 0.79, its noise "
    "scale is at least 900 samples, and its barrier to the second checkpoint is 0.31 nats.",
    "only_slices": "This minimum's training loss rises by 2.3 nats on a random plane through it.",
    "some_weights": "Along 39 of 1,462,794 weights, this minimum's test loss is 0.081 with 98.10 % right.",
    "no_density": "This minimum's top curvature is 0.79 (stable up to lr 2.5).",
    "hessian_and_loss": "This minimum's top curvature is 0.79 (stable up to lr 2.5), its distance from the start is "
    "12.3, and its test loss is 0.081 with 98.10 % right.",
    "only_loss": "This minimum's test loss is 0.081 with 98.10 % right.",
    "only_distance": "This minimum's distance from the start is 12.3.",
    "nothing": "Nothing could be measured of this checkpoint; the reasons are below.",
}


@pytest.mark.parametrize("name", SENTENCES)
def test_the_answer_in_one_sentence(name):
    assert minimum_documents.ALL[name]()["sentence"] == SENTENCES[name]


def test_numbers_are_those_of_the_records(whole):
    records = minimum_documents.RECORDS
    assert number(whole, "sharpness_0.001")["estimate"]["value"] == 49.3
    assert number(whole, "sharpness_0.001")["kind"] == "lower bound"
    assert number(whole, "trace")["estimate"]["stderr"] == records["trace"]["stderr"]
    assert number(whole, "train_loss")["estimate"]["stderr"] == pytest.approx(0.05 / 1000**0.5)
    assert number(whole, "top_eigenvalue_3")["estimate"]["interval"] == [0.2 - 3e-4, 0.2 + 3e-4]
    assert number(whole, "average_sharpness")["estimate"]["value"] == pytest.approx(100 * 0.011 / 1.0021)
    assert number(whole, "average_sharpness")["estimate"]["stderr"] == pytest.approx(100 * 0.002 / 4 / 1.0021)
    assert number(whole, "near_zero")["estimate"]["value"] == pytest.approx(97.0)
    assert number(whole, "log_slope")["estimate"]["interval"] == [0.8, 1.0]
    assert number(whole, "log_evidence_10")["estimate"]["stderr"] == 2.5
    assert number(whole, "rescaled_top_eigenvalue")["estimate"]["value"] == 15.0
    assert number(whole, "barrier_test")["estimate"]["value"] == 0.29
    assert [one["measure"] for one in whole["numbers"]][:2] == ["train", "train"]


def test_every_number_is_an_estimate_with_its_conditions(document):
    for one in document["numbers"]:
        assert set(one["estimate"]) == {"value", "stdev", "stderr", "n", "interval", "method"}
        assert (one["batch_norm"], one["dtype"], one["samples"]) == ("running", "float32", 1000)
        kinds = {"exact", "lower bound", "upper bound", "sampled", "within its residual", "invariant", "moves"}
        assert one["kind"] in kinds


def test_the_header_says_which_weights_were_measured():
    made = minimum_documents.ALL["some_weights"]()
    assert "39 of 1,462,794 weights (0.*, fc.bias), float32" in context(made)
    assert "1,462,794 weights, float32" in context(minimum_documents.document())


def test_a_trace_of_a_covariance_is_not_below_zero():
    found = number(minimum_documents.gaps(), "trace_covariance")["estimate"]
    assert found["interval"] is None
    record = minimum_documents.RECORDS["noise_scale"] | {"trace_covariance": minimum_documents.estimate(3.0, 80.0, 500)}
    found = number(minimum_documents.document({"noise_scale": record}), "trace_covariance")["estimate"]
    assert found["interval"] == [0.0, pytest.approx(3 + 160 / 500**0.5)]
    assert found["method"].endswith("not below 0")


def test_a_distance_names_no_samples(whole):
    block = next(block for block in tables.blocks(whole) if block.title == "Distance")
    assert block.conditions == "float32"


def test_what_has_the_same_reason_stands_together():
    left = [("Path", "it needs --second"), ("Slice", "no time is left")]
    made = minimum_documents.document({}, failed=[("trace", "no time is left")], left_out=left)
    assert tables.left_out(made) == ["Trace, Slice: no time is left.", "Path: it needs --second."]


def test_a_measurement_that_was_interrupted_is_marked():
    made = minimum_documents.ALL["interrupted"]()
    said = "Not finished: interrupted in 'Trace'; 1 of 2 are there."
    assert said in " ".join(printed(made).split())
    assert said in html.unescape(page(made, figures(made), []))
    assert "Not finished" not in page(minimum_documents.document(), [], [])


def test_rises_are_those_of_the_highest_point(whole):
    """By hand: 2 x^2 + 0.3 y^2 on [-1, 1]^2, and min(a^2, 3 (a - 1)^2) at a = 1.5."""
    assert number(whole, "plane_rise")["estimate"]["value"] == pytest.approx(2.3)
    assert number(whole, "line_rise")["estimate"]["value"] == pytest.approx(0.75)
    gaps = minimum_documents.gaps()
    assert number(gaps, "plane_rise")["note"] == "highest of 81 points, 9 of them not finite"


def test_the_interval_of_a_share_stays_a_share():
    records = {"spectral_density": minimum_documents.RECORDS["spectral_density"]}
    density = records["spectral_density"] | {"steep": minimum_documents.estimate(0.06, interval=[-0.02, 0.14])}
    found = number(minimum_documents.document({"spectral_density": density}), "steep_share")["estimate"]
    assert found["interval"] == pytest.approx([0.0, 14.0])
    assert found["method"].endswith("within 0 and 100 %")
    near = number(minimum_documents.document(records), "near_zero")["estimate"]
    assert (near["interval"], near["method"]) == (pytest.approx([96.0, 98.0]), "Student t, 95 %")


def test_a_plane_that_is_nowhere_finite_has_words_in_place_of_a_picture(tmp_path):
    records = copy.deepcopy({"slice_2d": minimum_documents.RECORDS["slice_2d"]})
    records["slice_2d"]["grid"]["losses"][0] = [[None] * 9] * 9
    made = minimum_documents.document(records)
    assert "nowhere finite" in write_report(made, tmp_path).read_text(encoding="utf-8")
    assert not (tmp_path / "figures").exists()


def test_what_can_be_shown():
    settings, facts = minimum_documents.SETTINGS, minimum_documents.FACTS
    for name, record in minimum_documents.RECORDS.items():
        taken = minimum_documents.taken(name, record)
        assert can_be_shown(taken, facts=facts, settings=settings)
        for key in record:
            other = taken | {"record": {k: v for k, v in record.items() if k != key}}
            assert can_be_shown(other, facts=facts, settings=settings) in {True, False}
    train = minimum_documents.RECORDS["train"]
    for record in ({}, [], train | {"loss": 0.1}, {k: v for k, v in train.items() if k != "accuracy"}):
        assert not can_be_shown(minimum_documents.taken("train", record), facts=facts, settings=settings)


def test_doubts_are_said():
    said = " ".join(minimum_documents.saddle()["unresolved"])
    for words in ("training accuracy is 71.0 %", "curves downwards", "less than half", "the gradient is 2.00 long"):
        assert words in said
    assert "other statistics of batch norm" in said
    assert minimum_documents.ALL["only_loss"]()["unresolved"] == []
    said = minimum_documents.gaps()["unresolved"]
    assert "How large the noise scale is: the squared gradient norm is not told from zero." in said


@pytest.mark.parametrize(
    ("key", "value", "interval"),
    [
        ("top_eigenvalue_1", "0.7900 ± 10⁻⁷", "within its residual"),
        ("sharpness_0.001", "≥ 49.30", "lower bound"),
        ("max_stable_lr", "≤ 2.530", "upper bound"),
        ("trace", "8.90 ± 0.17", "8.5 to 9.3"),
        ("distance", "12.30", "exact"),
        ("noise_scale", "1,200 ± 28", "900 to 1,700"),
    ],
)
def test_a_number_is_written_with_its_error(key, value, interval, whole):
    name = number(whole, key)["name"]
    line = next(line for block in tables.blocks(whole) for line in block.lines if line.name == name)
    assert (line.value, line.interval) == (value, interval)


def test_the_terminal_says_the_same_in_the_same_order(document):
    text = " ".join(printed(document).split())
    assert text.startswith(" ".join(document["sentence"].split()))
    lines = [line.name for block in tables.blocks(document) for line in block.lines]
    places = [text.index(" ".join(words.split())) for words in [*lines[:1], *document["unresolved"]]]
    assert places == sorted(places)
    assert all(" ".join(words.split()) in text for words in tables.left_out(document))


@pytest.mark.parametrize("width", [40, 80, 120])
def test_nothing_is_cut_off(width, whole):
    text = printed(whole, width)
    assert "…" not in text
    assert all(len(row.rstrip()) <= width for row in text.splitlines())


def test_a_plan_is_printed():
    console = Console(width=100, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    row = {"name": "trace", "title": "Trace", "seconds": 75.0, "detail": "about 40 Hessian products"}
    left = {"title": "Path", "why": "it needs another checkpoint"}
    plan = {"samples": 1000, "seconds": 75.0, "measures": [row], "left_out": [left], "remark": "half are used"}
    with console.file:
        print_plan(plan, console)
    text = console.export_text()
    for words in ("Trace", "75.0 s", "40 Hessian", "Path: it needs", "75.0 s in all on 1,000 samples. half are used"):
        assert words in text


@pytest.mark.parametrize("name", ["gaps", "no_density", "no_batch_norm"])
def test_every_picture_can_be_drawn(name):
    for figure in figures(minimum_documents.ALL[name]()):
        if not figure.empty:
            ElementTree.fromstring(paper.inline(figure))
            json.dumps(interactive.interactive(figure), allow_nan=False)
            assert figure.caption.endswith(".")


def test_the_order_of_the_pictures(whole):
    names = ["sharpness", "spectrum", "slice_2d", "noise", "path", "distance_curve", "trajectory", "slice_1d"]
    assert [figure.name for figure in figures(whole)] == names


def test_every_kind_of_sharpness_has_its_line(whole):
    figure = named(whole, "sharpness")
    assert sorted(series.x[0] for series in figure.series) == pytest.approx(
        sorted(
            number(whole, key)["estimate"]["value"]
            for key in (
                *("sharpness_0.0005", "sharpness_0.001", "average_sharpness", "ball_sharpness"),
                *("adaptive_sharpness", "random_rise", "subspace_sharpness"),
            )
        )
    )
    assert len({series.y for series in figure.series}) == len(figure.left.names) == 7


def test_a_sharpness_of_zero_is_in_the_table_only():
    figure = named(minimum_documents.gaps(), "sharpness")
    assert all(series.x[0] > 0 for series in figure.series)
    assert len(figure.series) == 6


def test_the_band_of_the_spectrum_is_that_of_the_record(whole):
    series = named(whole, "spectrum").series[0]
    record = minimum_documents.RECORDS["spectral_density"]
    place = max(range(len(record["grid"])), key=lambda i: record["density"][i])
    assert series.intervals[place] == (record["low"][place], record["high"][place])
    strokes = named(whole, "spectrum").series[1]
    assert strokes.x == (-0.012, -0.01, 0.2, 0.41, 0.79)


def test_contours_cover_the_plane_and_nothing_else(whole):
    surface = named(whole, "slice_2d").surface
    heights = [z for row in surface.z for z in row]
    assert surface.levels[0] <= min(heights)
    assert surface.levels[-1] >= max(heights)
    assert list(surface.levels) == sorted(set(surface.levels))
    drawn = interactive.interactive(named(whole, "slice_2d"))["data"][0]
    assert drawn["z"][4][4] == pytest.approx(min(min(row) for row in drawn["z"]))


@pytest.mark.parametrize(("low", "high"), [(0.01, 0.02), (0.0, 3.0), (1e-6, 10.0), (0.5, 0.5), (-1.0, 1.0), (2.3, 2.4)])
def test_levels_are_round_and_cover(low, high):
    found = levels(low, high)
    assert len(found) >= 2
    assert list(found) == sorted(set(found))
    assert found[0] <= low
    assert found[-1] >= high
    assert len(found) <= 24


@pytest.fixture(scope="module", params=["whole", "gaps", "failures", "hostile", "nothing", "no_density"])
def written(request, tmp_path_factory):
    document = json.loads(json.dumps(minimum_documents.ALL[request.param](), allow_nan=False))
    folder = tmp_path_factory.mktemp(request.param)
    assert write_report(document, folder / "out") == folder / "out" / "report.html"
    return document, folder / "out"


def test_the_page_is_whole_and_alone(written):
    document, folder = written
    text = (folder / "report.html").read_text(encoding="utf-8")
    found = Reader(text)
    assert document["sentence"] in found.text
    assert " ".join(document["title"].split()) in found.text
    assert all(" ".join(words.split()) in found.text for words in tables.left_out(document))
    assert all(sentence in found.text for sentence in document["unresolved"])
    assert [one for one in found.loads if not one.startswith(("#", "data:"))] == []
    web = {one for one in found.links if ":" in one}
    assert web == {one["link"] for one in document["definitions"] if one["link"]}
    for link in set(found.links) - web:
        assert (folder / link).is_file(), link
    assert "<script>alert" not in text


def test_the_order_is_answer_pictures_numbers_doubts(whole):
    text = html.unescape(page(whole, figures(whole), ["numbers.csv"]))
    landmarks = ["</h1>", 'class="answer"', 'id="sharpness"', 'id="spectrum"', 'id="slice_2d"', 'id="noise"']
    landmarks += ["<h2>The numbers", "<h2>What should not be concluded", "<details>", "What the words mean"]
    places = [text.index(one) for one in landmarks]
    assert places == sorted(places)


def test_tables_for_spreadsheets_give_the_numbers_back(written):
    document, folder = written
    with (folder / "data" / "numbers.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == [one["key"] for one in document["numbers"]]
    for row, one in zip(rows, document["numbers"], strict=True):
        assert (float(row["value"]) if row["value"] else None) == one["estimate"]["value"]
        ends = one["estimate"]["interval"] or [None, None]
        assert [float(row[end]) if row[end] else None for end in ("low", "high")] == list(ends)
    curves = {"spectral_density", "path", "slice_1d", "slice_2d", "distance_curve", "trajectory"}
    taken = {m["name"] for m in document["measures"] if m["record"] is not None}
    assert {path.stem for path in (folder / "data").iterdir()} == {"numbers"} | (curves & taken)


def test_nothing_heavy_is_loaded():
    heavy = "{'torch', 'matplotlib', 'plotly', 'jinja2', 'numpy'}"
    code = f"import sys; import gengap.report.minimum.terminal; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
