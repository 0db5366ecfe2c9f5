"""Oracles: the formulas that the sweeps were made from, the document's own numbers, Python's CSV and HTML parsers, and words
that a person would write.
"""

import copy
import csv
import json
import math
import subprocess
import sys
from xml.etree import ElementTree

import pytest
import sweep_documents
from rich.console import Console
from test_report_page import Reader

from gengap.core.errors import BadInput
from gengap.report import interactive, paper
from gengap.report.sweep import fits, heat, parts, sentence, tables
from gengap.report.sweep.export import export
from gengap.report.sweep.figures import figures
from gengap.report.sweep.page import page, write_page
from gengap.report.sweep.terminal import print_sweep
from gengap.report.sweep.view import Way, named, read

THIRTY = Way("30 epochs", 1000, "sgd", 0.0)


@pytest.fixture(scope="module")
def documents():
    """Every kind of sweep, made when it is asked for, as it comes back from JSON."""

    class Made(dict):
        def __missing__(self, name):
            self[name] = json.loads(json.dumps(sweep_documents.ALL[name](), allow_nan=False))
            return self[name]

    return Made()


def drawn(document):
    return {figure.name: figure for figure in figures(read(document))}


def points(figure, label, style):
    return {
        x: y
        for one in figure.series
        if (one.label, one.style) == (label, style)
        for x, y in zip(one.x, one.y, strict=True)
    }


def printed(document, width=200):
    console = Console(width=width, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    with console.file:
        print_sweep(document, console)
        return console.export_text()


EXPECTED = {
    "typical": {
        *("test_accuracy_epochs", "best_lr_epochs", "train_loss_epochs", "test_accuracy_against_lr"),
        *("test_accuracy_steps", "best_lr_steps", "train_loss_steps"),
        *("test_accuracy_by_lr", "best_batch_by_lr", "test_accuracy_by_momentum", "best_batch_by_momentum"),
        *("grid_sgd_0", "grid_sgd_0.9", "steps_to_target", "samples_to_target", "time_to_target"),
    },
    "one_batch": {"test_accuracy_against_lr"},
    "one_lr": {"test_accuracy_epochs", "best_lr_epochs", "train_loss_epochs"},
    "one_run": set(),
    "budgets": {
        *("test_accuracy_epochs", "best_lr_epochs", "train_loss_epochs", "test_accuracy_against_lr"),
        *("grid", "best_lr_by_epochs", "steps_to_target", "samples_to_target"),
    },
    "all_diverged": set(),
    "empty": set(),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_only_pictures_whose_data_exist_are_drawn(documents, name):
    found = set(drawn(documents[name]))
    if name == "one_lr":  # which batch sizes reach the target with every seed is left to the noise
        found -= {"steps_to_target", "samples_to_target", "time_to_target"}
    assert found == EXPECTED[name]


@pytest.mark.parametrize("name", ["some_diverged", "budgets"])
def test_every_picture_is_drawn_on_paper(documents, name):
    for figure in list(drawn(documents[name]).values())[1::2]:
        ElementTree.fromstring(paper.inline(figure))


@pytest.mark.parametrize("name", sweep_documents.ALL)
def test_every_picture_says_what_its_axes_are_and_is_drawn_on_screen(documents, name):
    for figure in drawn(documents[name]).values():
        live = interactive.interactive(figure)
        json.dumps(live, allow_nan=False)
        assert len(live["data"]) >= len(figure.series)
        assert figure.title
        assert figure.x.label
        assert figure.left.label
        assert figure.caption.endswith((".", "%)."))
        assert any(y is not None for one in figure.series for y in one.y)


def test_points_are_the_cells_and_bars_their_intervals(documents):
    document = documents["typical"]
    figure = drawn(document)["test_accuracy_epochs"]
    cells = [c for c in document["cells"] if c["budget"] == "30 epochs" and c["momentum"] == 0.9]
    assert points(figure, "momentum 0.9", "dots") == {c["batch_size"]: c["test_accuracy"]["value"] for c in cells}
    dots = next(one for one in figure.series if (one.label, one.style) == ("momentum 0.9", "dots"))
    assert [list(bar) for bar in dots.intervals] == [c["test_accuracy"]["interval"] for c in cells]
    assert "n = 3 seeds" in figure.caption


def test_the_turn_is_marked_with_its_interval_where_the_formula_turns(documents):
    """The best rate 20 B / N meets the limit 0.5 at batch 25."""
    guides = drawn(documents["typical"])["test_accuracy_epochs"].guides
    low, high = guides[0].interval
    assert low <= 32
    assert high >= 24
    assert low < guides[0].x < high or math.isclose(low, guides[0].x)


def test_best_rates_follow_the_linear_rule_and_those_at_the_edge_are_open(documents):
    figure = drawn(documents["typical"])["best_lr_epochs"]
    momentum = points(figure, "momentum 0.9", "solid")
    assert momentum[256] == 16 * momentum[16]
    assert set(points(figure, "momentum 0.9", "open")) == {4, 8, 16}
    rule = next(one for one in figure.series if one.label == "linear rule")
    assert rule.y[1] / rule.y[0] == pytest.approx(rule.x[1] / rule.x[0])


def test_peaks_stand_where_the_formula_has_them(documents):
    """Best batch = N lr / (20 (1 - m)): with N = 4,000, 200 lr."""
    figures_ = drawn(documents["peaks"])
    best = points(figures_["best_batch_by_lr"], "best batch size", "dots")
    assert set(best) == {2.0**-k for k in range(1, 6)}
    for lr, batch in best.items():
        assert batch == pytest.approx(200 * lr, rel=0.2)
    fit = next(one for one in figures_["best_batch_by_lr"].series if one.label == "fit")
    for x, y, (low, high) in zip(fit.x, fit.y, fit.intervals, strict=True):
        assert low < y < high
        assert y == pytest.approx(200 * x, rel=0.2)
    rings = [one for one in figures_["test_accuracy_by_lr"].series if one.style == "open"]
    for ring, lr in zip(rings, sorted(best), strict=True):
        assert ring.x[0] == pytest.approx(200 * lr, rel=0.6)


def test_momentum_moves_the_peak_as_one_over_one_minus_m(documents):
    best = points(drawn(documents["momenta"])["best_batch_by_momentum"], "best batch size", "dots")
    for x, batch in best.items():
        assert batch == pytest.approx(200 * 2**-5 * x, rel=0.25)
    assert sorted(best) == pytest.approx([1, 2, 5, 10])


def test_the_cost_of_the_target_is_drawn_with_its_law(documents):
    """McCandlish's curve by hand, from the two numbers in the document."""
    found, group = drawn(documents["some_diverged"]), documents["some_diverged"]["fits"]["groups"][0]
    curve = next(one for one in found["samples_to_target"].series if one.label == "law: McCandlish")
    for x, y, (low, high) in zip(curve.x, curve.y, curve.intervals, strict=True):
        assert y == pytest.approx(group["e_min"]["value"] * (1 + x / group["b_crit"]["value"]))
        assert low < y < high
    steps = next(one for one in found["steps_to_target"].series if one.label.startswith("law"))
    for x, y, samples in zip(steps.x, steps.y, curve.y, strict=True):
        assert y * x == pytest.approx(samples)
    assert found["steps_to_target"].guides[0].label.startswith("critical batch")


def test_the_grid_shows_every_mean_and_marks_what_diverged(documents):
    document = documents["some_diverged"]
    figure = drawn(document)["grid"]
    rates = sorted({run["lr"] for run in document["runs"]})
    for i, rate in enumerate(rates):
        for j, batch in enumerate(sweep_documents.BATCHES):
            own = [r["test_accuracy"] for r in document["runs"] if (r["batch_size"], r["lr"]) == (batch, rate)]
            known = [value for value in own if value is not None]
            expected = sum(known) / len(known) if known else None
            assert figure.tiles.z[i][j] == (None if expected is None else pytest.approx(expected))
    crosses = {(x, y) for one in figure.series if one.style == "cross" for x, y in zip(one.x, one.y, strict=True)}
    assert crosses == {(b, r) for b in sweep_documents.BATCHES for r in rates if r > 0.5}
    ridge = points(figure, "best learning rate", "dots")
    assert ridge == {cell["batch_size"]: cell["best_lr"] for cell in document["cells"]}


@pytest.mark.parametrize(("rises", "levels"), [(True, (90.0, 94.0, 95.0)), (False, (0.1, 0.2, 0.4))])
def test_better_tiles_are_denser(rises, levels):
    from gengap.report.shapes import Tiles

    tiles = Tiles((), (), (), levels, "", "accuracy", rises, ())
    strengths = [tiles.strength(value) for value in (levels[0] - 0.05, *levels)]
    assert strengths == sorted(strengths, reverse=not rises)
    assert len(set(strengths)) == 4
    assert 0 < min(strengths) < max(strengths) <= 1


def test_edges_of_tiles_are_halfway_in_logarithms():
    assert heat.edges([4, 16, 64]) == pytest.approx((2, 8, 32, 128))


def test_loss_falls_with_the_budget_faster_than_accuracy(documents):
    figure = drawn(documents["budgets"])["best_lr_by_epochs"]
    loss, accuracy = (points(figure, label, "solid") for label in ("training loss", "test accuracy"))
    assert loss[120] * 4 <= loss[15]
    assert accuracy[120] == accuracy[7]


SENTENCES = {
    "one_run": "Learning rate 0.25 does best on validation at batch 32, with 93.44 % (one seed) on test.",
    "all_diverged": "None of the 9 runs can be compared: 8 diverged and 1 failed.",
    "empty": "The sweep holds no run yet.",
}


@pytest.mark.parametrize("name", SENTENCES)
def test_the_answer_where_there_is_little_to_say(documents, name):
    assert sentence.answer(read(documents[name])) == SENTENCES[name]


def test_the_answer_names_the_best_cell_by_validation_and_its_test_result(documents):
    document = documents["peaks"]
    said = sentence.answer(read(document))
    means = {}
    for cell in document["cells"]:
        runs = [r for r in document["runs"] if (r["batch_size"], r["lr"]) == (cell["batch_size"], cell["best_lr"])]
        means[cell["batch_size"]] = sum(r["validation_accuracy"] for r in runs) / len(runs)
    best = max(means, key=means.__getitem__)
    cell = next(c for c in document["cells"] if c["batch_size"] == best)
    assert said.startswith(f"Batch {best} at learning rate {cell['best_lr']:g} does best on validation, with ")
    assert f"{cell['test_accuracy']['value']:.2f} %" in said
    turn = document["fits"]["regimes"]
    assert turn["verdict"] == "transition"
    assert "test accuracy is flat up to batch 100 (" in said.replace(f"{turn['value']:.0f} (", "100 (")


def test_an_accuracy_is_said_within_0_and_100_and_stays_whole_in_the_files(documents, tmp_path):
    """Two seeds at 61 and 67 %: Student t reaches from 26 to 102 %."""
    document = copy.deepcopy(documents["one_run"])
    (cell,) = document["cells"]
    cell["test_accuracy"] |= {"value": 64.0, "n": 2, "interval": [25.9, 102.1]}
    said = sentence.answer(read(document))
    assert said.startswith("Learning rate 0.25 does best on validation at batch 32, with 64 % (26 to 100)")
    assert ",102.1" in export(document, tmp_path)[1].read_text(encoding="utf-8")


def test_a_target_that_took_no_update_has_no_picture(documents):
    document = copy.deepcopy(documents["budgets"])
    nothing = {"value": 0.0, "stdev": 0.0, "n": 3, "interval": [0.0, 0.0], "method": ""}
    for cell in document["cells"]:
        cell |= {"steps_to_target": nothing, "samples_to_target": nothing}
    document["fits"] = {}
    assert set(drawn(document)) == EXPECTED["budgets"] - {"steps_to_target", "samples_to_target"}


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ((10, 20, 40, 80, 160, 180), ["10", "20", "40", "80", "160"]),
        ((100, 110, 120, 2048), ["100", "2,048"]),
        ((128, 256, 512, 1024, 2048, 4096, 8192), ["128", "256", "512", "1,024", "2,048", "4,096", "8,192"]),
        ((7,), ["7"]),
    ],
)
def test_batch_sizes_that_are_close_do_not_write_over_each_other(sizes, named):
    """By eye: on an axis of 44 characters from 10 to 180, 160 and 180 lie two characters apart."""
    assert [name for _, name in parts.at_values("Batch size", sizes).names] == named


def test_what_was_chosen_on_the_test_set_tests_best(documents):
    assert " tests best, with " in sentence.answer(read(documents["no_validation"]))
    assert "validation" not in sentence.answer(read(documents["no_validation"]))


def test_losses_are_said_as_losses(documents):
    assert "with a loss of 0.1" in sentence.answer(read(documents["test_loss"]))
    assert "%" not in sentence.answer(read(documents["test_loss"])).partition(";")[0]


def test_what_cannot_be_concluded_is_said(documents):
    one = sentence.unresolved(read(documents["one_seed"]))
    assert any(said.startswith("There is one seed for each setting") for said in one)
    assert any(said.startswith("Nothing can be said of momentum, training-set size and budget") for said in one)
    none = sentence.unresolved(read(documents["no_validation"]))
    assert sum("selected on the test set" in said for said in none) == 1
    assert any("of 10 best learning rates are at the edge" in s for s in sentence.unresolved(read(documents["peaks"])))
    lost = sentence.unresolved(read(documents["all_diverged"]))
    assert "Every run of batch 4, 8 and 16 diverged or failed; try lower learning rates." in lost


def test_uneven_tuning_is_said(documents):
    document = copy.deepcopy(documents["peaks"])
    document["runs"] = [run for run in document["runs"] if (run["batch_size"], run["lr"]) != (64, 0.5)]
    assert "batch 64 with 4 learning rates, batch 2 with 5" in tables.uneven(read(document))
    assert tables.uneven(read(documents["peaks"])) == ""


def test_batches_that_cannot_be_told_from_the_best_are_named(documents):
    """A batch that is worse by more than its noise by construction is told apart, one that is equal is not."""
    document = documents["typical"]
    sweep = read(document)
    line = next(line for line in sweep.lines if line.way == THIRTY)
    by_size = {cell["batch_size"]: cell for cell in line.cells}
    assert not sentence.cannot_be_told(sweep, line.way, by_size[16], by_size[256])
    assert sentence.cannot_be_told(sweep, line.way, by_size[16], by_size[16])


def test_ways_are_named_by_what_differs():
    ways = [Way("30 epochs", 1000, "sgd", m) for m in (0.0, 0.9)] + [Way("30 epochs", 1000, "adam", 0.0)]
    assert list(named(ways).values()) == ["SGD", "momentum 0.9", "adam"]
    assert list(named([Way("30 epochs", n, "sgd", 0.0) for n in (500, 1000)]).values()) == ["N = 500", "N = 1,000"]
    assert tables.way_said(Way("30 epochs", 1000, "sgd, weight_decay 0.1", 0.9)) == (
        "momentum 0.9, weight_decay 0.1, N = 1,000, 30 epochs"
    )


def test_the_table_holds_the_numbers_of_the_document(documents):
    document = documents["peaks"]
    front, more = tables.blocks(read(document))
    assert not more
    for row, cell in zip(front[0].rows, document["cells"], strict=True):
        assert row.batch == f"{cell['batch_size']:,}"
        assert row.lr == f"{cell['best_lr']:g}" + (" *" if cell["at_edge"] else "")
        assert float(row.result.split(" ± ")[0]) == pytest.approx(cell["test_accuracy"]["value"], abs=0.06)
        assert row.lost == f"0 of {cell['runs']}"
        assert row.updates == "4,000"


def test_every_fit_is_in_the_table(documents):
    rows = {row.name: row for row in fits.table(read(documents["peaks"]))}
    slope = documents["peaks"]["fits"]["optimal_batch"]["lr"]
    assert float(rows["Power of the best batch in learning rate"].value) == pytest.approx(slope["value"], rel=0.01)
    turn = rows["Transition batch (SGD, N = 4,000, 4,000 steps)"]
    assert turn.reason.startswith("transition: flat up to batch")
    assert len(rows) == 7 + 1


@pytest.mark.parametrize("name", ["typical", "one_batch", "one_run", "all_diverged", "empty", "test_loss"])
def test_the_terminal_says_what_the_page_says(documents, name):
    sweep = read(documents[name])
    text = " ".join(printed(documents[name]).split())
    assert text.startswith(sentence.answer(sweep))
    for said in sentence.unresolved(sweep):
        assert " ".join(said.split()) in text
    assert printed(documents[name], 80)


@pytest.mark.parametrize("name", ["one_batch", "all_diverged", "hostile"])
def test_the_page_holds_everything_and_needs_nothing_else(documents, name, tmp_path):
    document = documents[name]
    target = write_page(document, tmp_path / "out")
    assert target == tmp_path / "out" / "report.html"
    reader = Reader(target.read_text(encoding="utf-8"))
    assert not [one for one in reader.loads if one and not one.startswith(("data:", "#"))]
    assert document["title"] in reader.text
    assert " ".join(sentence.answer(read(document)).split()) in reader.text
    for link in reader.links:
        assert link.startswith("https://") or (tmp_path / "out" / link).exists()
    order = ["What could not be concluded", "Every run", "How learning rates were chosen", "What the words mean"]
    places = [reader.text.index(one) for one in order]
    assert places == sorted(places)
    assert "<img src=x" not in target.read_text(encoding="utf-8")


def test_lines_of_the_page_do_not_break_between_a_number_and_its_unit(documents):
    assert "with 93.44\N{NO-BREAK SPACE}% (one seed)" in page(read(documents["one_run"]), [])


def test_the_page_says_how_it_was_selected(documents):
    assert "Selected on validation, reported on test" in page(read(documents["one_run"]), [])
    assert "selected on the test set itself" in page(read(documents["no_validation"]), [])


def test_a_report_loads_neither_torch_nor_training():
    code = (
        "import sys, gengap.report.sweep.page, gengap.report.sweep.terminal, gengap.report.mirrors;"
        "bad = [m for m in sys.modules if m == 'torch' or m.startswith('gengap.training')]; sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_parquet_gives_the_same_table_or_says_what_is_missing(documents, tmp_path):
    document = documents["some_diverged"]
    try:
        from pyarrow import parquet
    except ImportError:
        with pytest.raises(BadInput, match="need pyarrow, which is not installed"):
            export(document, tmp_path, format="parquet")
        return
    runs, cells = (parquet.read_table(path).to_pylist() for path in export(document, tmp_path, format="parquet"))
    assert runs == document["runs"]
    for row, cell in zip(cells, document["cells"], strict=True):
        assert row["test_accuracy"] == cell["test_accuracy"]["value"]
        assert row["loss_lr_low"] == cell["loss_lr"]["lr_low"]


def test_an_unknown_format_is_refused(documents, tmp_path):
    with pytest.raises(BadInput, match="format is 'xlsx'; choose one of csv, parquet"):
        export(documents["one_run"], tmp_path, format="xlsx")


def test_spreadsheets_give_the_document_back(documents, tmp_path):
    document = documents["some_diverged"]
    paths = export(document, tmp_path)
    assert [path.name for path in paths] == ["runs.csv", "cells.csv"]
    runs, cells = (list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) for path in paths)
    assert len(runs) == len(document["runs"])
    for row, run in zip(runs, document["runs"], strict=True):
        assert row["key"] == run["key"]
        assert float(row["lr"]) == run["lr"]
        assert row["test_accuracy"] == ("" if run["test_accuracy"] is None else repr(run["test_accuracy"]))
    for row, cell in zip(cells, document["cells"], strict=True):
        assert int(row["batch_size"]) == cell["batch_size"]
        assert float(row["test_accuracy"]) == cell["test_accuracy"]["value"]
        assert float(row["test_accuracy_low"]) == cell["test_accuracy"]["interval"][0]
        assert float(row["loss_lr"]) == cell["loss_lr"]["best_lr"]
        assert int(row["diverged"]) == cell["diverged"]
