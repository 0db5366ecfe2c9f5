"""Oracle: Chromium, asked what it drew, what it complained about, and what it tried to fetch."""

import minimum_documents
import pytest
import report_browser
import report_documents
import sweep_documents

from gengap.report.minimum import page as minimum_page
from gengap.report.page import write_report
from gengap.report.sweep.page import write_page

pytestmark = pytest.mark.skipif(report_browser.BINARY is None, reason="no chromium or chromium-browser on PATH")

LIGHTNESS = """(() => {
  const parts = getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number);
  return (parts[0] + parts[1] + parts[2]) / 3;
})()"""
BOXES = """[...document.querySelectorAll('.front .picture svg')].map((one) => {
  const { width, height } = one.getBoundingClientRect();
  const text = Math.min(...[...one.querySelectorAll('text')].map((word) => word.getBoundingClientRect().height));
  return [width, height, one.querySelectorAll('path').length, text];
})"""
WIDE = """[...document.querySelectorAll('body *')].filter((one) => {
  const right = one.getBoundingClientRect().right;
  return right > innerWidth + 1 && !one.closest('.scroll, pre, svg, .unseen');
}).map((one) => one.outerHTML.slice(0, 80))"""
OPEN_ALL = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
PRESS = "document.querySelectorAll('.front .explore').forEach((one) => one.click())"
POINTS = "[...document.querySelectorAll('.live')].map((one) => one.querySelectorAll('path.point, path.js-line').length)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    one = report_browser.Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    names = ("typical", "long_names", "hostile", "nothing_finished", "twenty_seeds")
    folder = tmp_path_factory.mktemp("pages")
    return {name: write_report(report_documents.ALL[name](), folder / name) for name in names}


@pytest.fixture(scope="module")
def minima(tmp_path_factory):
    folder = tmp_path_factory.mktemp("minima")
    names = ("whole", "hostile", "failures")
    return {n: minimum_page.write_report(minimum_documents.ALL[n](), folder / n) for n in names}


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    return {n: write_page(sweep_documents.ALL[n](), folder / n) for n in ("some_diverged", "hostile")}


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (1280, "dark")])
def test_the_pictures_of_a_sweep_are_drawn_without_complaint(browser, sweeps, width, scheme):
    browser.show(sweeps["some_diverged"], width=width, scheme=scheme)
    boxes = browser.evaluate(BOXES)
    assert len(boxes) == 3
    for box_width, height, paths, text in boxes:
        assert min(box_width, height) > 200
        assert paths > 10
        assert text >= 11
    assert browser.complaints() == []
    assert browser.fetched() == []


@pytest.mark.parametrize("name", ["some_diverged", "hostile"])
def test_a_phone_never_scrolls_a_sweep_sideways(browser, sweeps, name):
    browser.show(sweeps[name], width=400, height=800)
    browser.evaluate(OPEN_ALL)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 400
    assert browser.evaluate(WIDE) == []
    assert not [e for e in browser.events if e.get("method") == "Page.javascriptDialogOpening"]
    assert browser.complaints() == []


def test_tiles_bands_and_bars_of_a_sweep_can_be_explored(browser, sweeps):
    browser.show(sweeps["some_diverged"])
    browser.evaluate(PRESS)
    browser.wait_for("document.querySelectorAll('.front .live .main-svg').length >= 3")
    assert browser.evaluate("document.querySelectorAll('#grid .live .hm image').length") == 1
    assert browser.evaluate("document.querySelectorAll('#grid .live path.point').length") > 10
    assert browser.evaluate("document.querySelectorAll('#test_accuracy_epochs .live .errorbar path').length") >= 5
    assert browser.evaluate("document.querySelectorAll('#test_accuracy_epochs .live .shapelayer path').length") == 2
    assert browser.complaints() == []
    assert browser.fetched() == []


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (800, "dark"), (1280, "light"), (1280, "dark")])
def test_the_pictures_of_a_minimum_are_drawn_without_complaint(browser, minima, width, scheme):
    browser.show(minima["whole"], width=width, scheme=scheme)
    boxes = browser.evaluate(BOXES)
    assert len(boxes) == 6
    for box_width, height, paths, _ in boxes:
        assert box_width > 280  # of 380 points: text of 12 is above 8 pixels
        assert height > 200
        assert paths > 5
    assert browser.complaints() == []
    assert browser.fetched() == []


@pytest.mark.parametrize("name", ["whole", "hostile", "failures"])
def test_a_phone_never_scrolls_a_minimum_sideways(browser, minima, name):
    browser.show(minima[name], width=400, height=800)
    browser.evaluate(OPEN_ALL)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 400
    assert browser.evaluate(WIDE) == []
    assert browser.complaints() == []


def test_contours_bands_and_lying_bars_can_be_explored(browser, minima):
    browser.show(minima["whole"])
    browser.evaluate(PRESS)
    browser.wait_for("document.querySelectorAll('.front .live .main-svg').length >= 6")
    assert browser.evaluate("document.querySelectorAll('#slice_2d .live .contour path').length") > 4
    assert browser.evaluate("document.querySelectorAll('#spectrum .live path.js-fill').length") >= 1
    assert browser.evaluate("document.querySelectorAll('#sharpness .live .errorbar path').length") >= 3
    assert browser.complaints() == []
    assert browser.fetched() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 800, 1280])
def test_three_pictures_are_drawn_without_complaint(browser, pages, width, scheme):
    browser.show(pages["typical"], width=width, scheme=scheme)
    boxes = browser.evaluate(BOXES)
    assert len(boxes) == 3
    for box_width, height, paths, text in boxes:
        assert min(box_width, height) > 200
        assert paths > 10
        assert text >= 11
    assert browser.complaints() == []
    assert browser.fetched() == []


def test_light_is_light_and_dark_is_dark(browser, pages):
    seen = {}
    for scheme in ("light", "dark"):
        browser.show(pages["typical"], scheme=scheme)
        seen[scheme] = browser.evaluate(LIGHTNESS)
    assert seen["light"] > 240
    assert seen["dark"] < 40


@pytest.mark.parametrize("name", ["typical", "long_names", "hostile", "nothing_finished", "twenty_seeds"])
def test_a_phone_never_scrolls_sideways(browser, pages, name):
    browser.show(pages[name], width=400, height=800)
    browser.evaluate(OPEN_ALL)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 400
    assert browser.evaluate(WIDE) == []
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_explore_swaps_in_a_figure_that_zooms_and_back(browser, pages, scheme):
    browser.show(pages["typical"], scheme=scheme)
    assert browser.evaluate("typeof Plotly") == "undefined"
    browser.evaluate(PRESS)
    browser.wait_for("document.querySelectorAll('.front .live .main-svg').length >= 3")
    assert min(browser.evaluate(POINTS)[:3]) > 0
    assert browser.evaluate("[...document.querySelectorAll('.front .picture')].every((one) => one.hidden)")
    fill = browser.evaluate("document.querySelector('.live .main-svg').style.background")
    assert fill == browser.evaluate("getComputedStyle(document.body).backgroundColor")
    browser.evaluate(PRESS)
    assert browser.evaluate("[...document.querySelectorAll('.front .live')].every((one) => one.hidden)")
    assert browser.evaluate(BOXES)[0][0] > 200
    assert browser.complaints() == []
    assert browser.fetched() == []


def test_hostile_names_run_nothing(browser, pages):
    browser.show(pages["hostile"])
    browser.evaluate(PRESS)
    browser.wait_for("document.querySelectorAll('.front .live .main-svg').length >= 3")
    assert not [e for e in browser.events if e.get("method") == "Page.javascriptDialogOpening"]
    assert browser.complaints() == []


def test_without_javascript_the_pictures_are_there_and_no_dead_button(browser, pages):
    browser.show(pages["typical"], javascript=False)
    boxes = browser.evaluate(BOXES)
    assert len(boxes) == 3
    assert min(min(box[:2]) for box in boxes) > 200
    assert browser.evaluate("[...document.querySelectorAll('.explore')].every((one) => one.offsetWidth === 0)")


def test_paper_shows_what_is_folded(browser, pages, tmp_path):
    browser.show(pages["typical"], width=680, scheme="dark")
    browser.ask("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.ask("Emulation.setEmulatedMedia", media="")
    browser.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().count(b"/Type /Page\n") >= 3
