"""The page in a real browser: no complaint, no request, no barrier, on a desk, on a phone, in the dark and on paper."""

from pathlib import Path

import pytest
from browser import LOADED, Browser

from unifocal.lab.report.page import render
from unifocal.lab.report.reading import read_study
from unifocal.lab.report.writing import build, title

AXE = Path(pytest.importorskip("axe_playwright_python").__file__).with_name("axe.min.js").read_text(encoding="utf-8")
OPEN_ALL = "document.querySelectorAll('details').forEach(part => part.open = true)"
CLOCK = """(() => {
    const timers = new Map();
    window.setTimeout = (action, wait) => { timers.set(timers.size + 1, [action, wait]); return timers.size; };
    window.clearTimeout = (timer) => timers.delete(timer);
    window.waits = () => [...timers.values()].map(([_, wait]) => wait);
    window.ring = () => timers.forEach(([action], timer) => { timers.delete(timer); action(); });
})()"""  # a clock that stands still until it is told to ring


@pytest.fixture(scope="module")
def browser():
    with Browser() as found:
        yield found


@pytest.fixture
def live(tmp_path, folder_of, monkeypatch):
    """A page of a comparison under way; its own clock would ring after the test is over."""
    monkeypatch.setattr("unifocal.lab.report.page.REFRESH", 600)
    study = read_study(folder_of("missing"))
    path = tmp_path / "live.html"
    path.write_text(render(title(study), build(study, quick=True), live=True))
    return path


@pytest.mark.parametrize(
    ("kind", "width", "dark"),
    [
        ("plain", 1280, False),
        ("names", 390, False),
        *(pytest.param("plain", *look, marks=pytest.mark.slow) for look in ((1280, True), (390, False), (390, True))),
        *(pytest.param(kind, 390, False, marks=pytest.mark.slow) for kind in ("missing", "not begun")),
    ],
)
def test_nothing_is_wrong_with_the_page(folder_of, browser, kind, width, dark):
    page = browser.open(folder_of(kind) / "report.html", width=width, dark=dark)
    page.evaluate(OPEN_ALL)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page itself must not scroll sideways"
    assert page.axe(AXE) == []
    assert page.problems == [] and page.requests == []
    assert page.evaluate("document.querySelectorAll('main, header, nav, footer').length") == 4


def test_every_text_can_be_read(folder_of, browser):
    """No text of a figure is smaller than about 9 px on a phone, none of the page than 11; figures are seen whole."""
    page = browser.open(folder_of("plain") / "report.html", width=390)
    page.evaluate(OPEN_ALL)
    figures = "[...document.querySelectorAll('.scroll:has(.canvas)')]"
    assert page.evaluate(f"{figures}.length") > 6
    assert page.evaluate(f"{figures}.filter(it => it.scrollWidth > it.clientWidth).length") == 0
    sizes = """(kind) => Math.min(...[...document.querySelectorAll(kind)].map(e =>
        e.ownerSVGElement ? e.getBoundingClientRect().height : parseFloat(getComputedStyle(e).fontSize)))"""
    assert page.evaluate(f"({sizes})('p, td, th, figcaption, li, summary')") >= 11
    assert page.evaluate(f"({sizes})('.canvas text')") > 8.8  # boxes of text are a little lower in some fonts


def test_the_table_of_results_is_seen_whole_on_a_desk(folder_of, browser):
    page = browser.open(folder_of("plain") / "report.html", width=1280)
    table = "document.querySelector('[id^=table-main] .scroll')"
    assert page.evaluate(f"{table}.scrollWidth <= {table}.clientWidth")
    lines = "[...document.querySelectorAll('p, figcaption')].map(it => it.clientWidth)"
    assert page.evaluate(f"Math.max(...{lines})") < 750  # text is no wider than can be read


def test_colours_follow_the_scheme(folder_of, browser):
    colours = """[getComputedStyle(document.documentElement).backgroundColor,
        getComputedStyle(document.querySelector('.canvas svg')).color]"""
    light, dark = (
        browser.open(folder_of("plain") / "report.html", dark=dark).evaluate(colours) for dark in (False, True)
    )
    assert light[0] == "rgb(255, 255, 255)" and dark[0] != light[0] and dark[1] != light[1]


def test_by_keyboard(folder_of, browser):
    page = browser.open(folder_of("plain") / "report.html")
    focused = "document.activeElement.textContent.trim()"
    page.press("Tab", 9)
    assert page.evaluate(focused) == "Skip to the report"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.press("Enter", 13)
    assert page.evaluate("location.hash") == "#main"
    seen = set()
    for _ in range(12):
        page.press("Tab", 9)
        seen.add(page.evaluate("document.activeElement.tagName + document.activeElement.className"))
    assert {"DIVscroll", "SUMMARY"} <= seen  # tables can be scrolled and what is folded opened without a mouse


def test_on_paper_everything_is_unfolded(folder_of, browser):
    page = browser.open(folder_of("plain") / "report.html", width=718)
    page.emulate(media="print")
    tables = "[...document.querySelectorAll('main details table')]"
    assert page.evaluate(f"{tables}.length") > 3
    assert page.evaluate(f"{tables}.filter(t => t.getBoundingClientRect().height < 10).length") == 0
    assert page.evaluate(f"{tables}.filter(t => !t.checkVisibility({{contentVisibilityAuto: true}})).length") == 0
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.evaluate("document.documentElement.scrollWidth") <= 718 + 90  # a wide table may stand out a little


def test_a_live_page_is_as_good(live, browser):
    page = browser.open(live, width=390)
    assert page.axe(AXE) == []
    assert page.problems == [] and page.requests == []


def test_a_live_page_loads_itself_anew_until_it_is_told_to_pause(live, browser):
    page = browser.open(live, first=CLOCK)
    live.write_text(live.read_text().replace("<h1>", "<h1>News: "))
    assert page.evaluate("waits()") == [600_000]
    page.evaluate_and_leave("ring()")
    page.wait_until(f"{LOADED} && document.querySelector('h1').textContent.startsWith('News')")
    page.evaluate("window.mark = 1; document.getElementById('pause').click()")
    assert page.evaluate("waits()") == []
    assert page.evaluate("document.getElementById('pause').textContent") == "Go on"
    page.evaluate_and_leave("document.getElementById('pause').click()")
    page.wait_until(f"{LOADED} && !window.mark")
    assert page.evaluate("waits()") == [600_000]
    assert page.problems == []
