"""The report page in a browser: it answers, nothing planted runs, everybody can read it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from perfsuite.report.stored import Run
from perfsuite.results import Row
from perfsuite.verdict import Verdict
from tests.browser.planted import result

PAYLOADS = (
    '"><img src=x onerror=hits()>',
    "</script><script>hits()</script>",
    "<svg onload=hits()>",
    "javascript:hits()",
    '<a href="javascript:hits()">x</a>',
    "<b>bold</b><br>%{y}{{7*7}}${7*7}",
    "' onmouseover='hits()",
    "line\nbreak\r\ttab\u2028separator",
    "\u202eright to left\u202c שלום مرحبا",
    "\x00\ufffe😀" + "x" * 300,
)


def test_open_sort_filter_search_and_a_test(show: Callable[..., Any]) -> None:
    """What a reader does, one after the other, without a complaint or a request."""
    page = show(*(result(f"test_{n}", ratio=1.2 if n == 7 else 1.0 - n / 100) for n in range(30)))
    page.ready()
    tab = page.tab
    assert tab.inner_text("h1") == "1 test of 30 failed"
    assert tab.locator("#ratios .points path").count() == 90

    tab.click("#tests thead button:text('workload')")
    assert _names(tab)[:3] == ["test_0", "test_1", "test_2"]
    tab.click("#tests thead button:text('workload')")
    assert _names(tab)[:3] == ["test_29", "test_28", "test_27"]
    for _ in range(2):
        tab.click("#tests thead button:text('ratio')")
    assert _names(tab)[0] == "test_7"

    tab.select_option("#verdict", "WORSE")
    assert _names(tab) == ["test_7"]
    assert tab.inner_text("#found") == "1 of 30"
    tab.select_option("#verdict", "")
    tab.fill("#search", "TEST_1 llama")
    assert set(_names(tab)) == {"test_1", *(f"test_{n}" for n in range(10, 20))}
    tab.fill("#search", "nothing like it")
    tab.click("#reset")
    assert len(_names(tab)) == 30
    tab.select_option("#engine", "torch_llama")
    tab.select_option("#suite", "llm")
    assert len(_names(tab)) == 30

    tab.click(".count.WORSE")
    assert _names(tab) == ["test_7"]
    tab.click("#tests button.open >> visible=true")
    tab.wait_for_selector("dialog[open] .plot .points path")
    text = tab.inner_text("dialog")
    for part in ("test_7", "TTFT", "2.12.0", "differs", "40 %", "decode 14 ktok/s"):
        assert part in text
    tab.click("dialog button:has-text('TPOT')")
    assert "a wait for each step" in tab.inner_text("dialog")
    assert tab.screenshot()[:4] == b"\x89PNG"
    page.check()


def _names(tab: Any) -> list[str]:
    names = tab.locator("#tests tbody tr:not([hidden]) button.open").all_text_contents()
    return [name.strip() for name in names]


def test_a_click_on_a_point_opens_its_test(show: Callable[..., Any]) -> None:
    """The worst stands to the left."""
    page = show(result("test_good"), result("test_bad", ratio=1.3)).ready()

    page.tab.locator("#ratios .points path").first.scroll_into_view_if_needed()
    page.tab.evaluate("""document.getElementById('ratios').emit('plotly_click', {points: [
        {customdata: document.getElementById('ratios').data.find((t) => t.customdata).customdata[0]}
    ]})""")

    assert page.tab.inner_text("#test-title") == "test_bad"
    page.check()


def test_nothing_planted_runs(show: Callable[..., Any]) -> None:
    """Every text of a result holds every payload; every test is opened and every figure shown."""
    planted = [result(f"t{n}", ratio=1.2, words=words) for n, words in enumerate(PAYLOADS)]
    page = show(*planted).ready()
    tab = page.tab

    for number in range(len(planted)):
        tab.evaluate(f"open({number})")
        for button in tab.locator("dialog tbody button").all():
            button.click()
        tab.keyboard.press("Escape")
    tab.locator("#ratios").hover()
    tab.evaluate("Plotly.Fx.hover('ratios', [{curveNumber: 1, pointNumber: 0}])")

    assert tab.locator("#ratios a").count() == 0
    assert tab.locator("[onerror], [onload], [onmouseover], img, a[href^=javascript]").count() == 0
    page.check()


def test_without_escaping_the_check_is_red(
    show: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted bug: without autoescape there are complaints, without the policy it runs."""
    pytest.importorskip("jinja2", reason="needs perfsuite[html]")
    from perfsuite.report import page as made

    environment = made.environment()
    environment.autoescape = False
    monkeypatch.setattr(made, "environment", lambda: environment)
    text = made.render([Run([result("t", words=PAYLOADS[0])])])

    held = show(text=text)
    held.tab.wait_for_timeout(500)
    assert held.complaints
    assert held.tab.evaluate("window.hit") == 0
    broken = show(text=re.sub(r"<meta http-equiv=[^>]*>", "", text, count=1))
    broken.tab.wait_for_function("window.hit > 0")
    with pytest.raises(AssertionError):
        broken.check()


def test_with_the_keyboard_alone(show: Callable[..., Any]) -> None:
    """Sorting and opening by Enter; Escape closes and the focus is where it was."""
    page = show(result("test_b"), result("test_a", ratio=1.2)).ready()
    tab = page.tab

    tab.focus("#search")
    for _ in range(4):  # verdict, engine, suite, the table itself
        tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "workload"
    tab.keyboard.press("Enter")
    header = tab.locator("#tests th:has(button:text('workload'))")
    assert header.get_attribute("aria-sort") == "ascending"
    tab.focus("#tests tbody button")
    tab.keyboard.press("Enter")
    assert tab.locator("dialog[open]").count() == 1
    assert tab.evaluate("document.activeElement.closest('dialog') !== null")
    tab.keyboard.press("Escape")
    assert tab.locator("dialog[open]").count() == 0
    assert tab.evaluate("document.activeElement.textContent") == "test_a"
    page.check()


def test_controls_have_names(show: Callable[..., Any]) -> None:
    """Every button, field and picture says what it is; headers say how they are sorted."""
    page = show(result("test_a", ratio=1.2)).ready()
    page.tab.evaluate("open(0)")

    assert page.tab.evaluate(_NAMELESS) == 0
    assert page.tab.locator(".plot:not([role=img][aria-label])").count() == 0
    assert page.tab.locator("#tests th[scope=col]:not([aria-sort])").count() == 0
    assert page.tab.locator(".scroll:not([tabindex='0'][aria-label])").count() == 0


_NAMELESS = """[...document.querySelectorAll('button, input, select')].filter((one) =>
    !one.textContent.trim() && !one.labels?.length && !one.getAttribute('aria-label')).length"""


def test_a_phone_scrolls_down_only(show: Callable[..., Any]) -> None:
    """At 390 pixels nothing but tables is wider than the screen, the longest names included."""
    page = show(
        result("test_" + "long_" * 40, ratio=1.2), result("test", words="w" * 200),
        viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True,
    ).ready()  # fmt: skip

    assert page.tab.evaluate("document.documentElement.scrollWidth") <= 390
    page.tab.evaluate("open(0)")
    assert page.tab.evaluate("document.querySelector('dialog').scrollWidth") <= 390
    page.check()


def test_dark_light_and_print(show: Callable[..., Any]) -> None:
    """Colours follow the reader's scheme while the page is open; paper is always white."""
    page = show(result("test_a", ratio=1.2), color_scheme="dark").ready()
    tab = page.tab
    dark = _colours(tab)

    tab.emulate_media(color_scheme="light")
    light = _colours_unlike(dark, tab)
    assert light[0] == "rgb(251, 251, 250)"

    tab.emulate_media(color_scheme="dark", media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert _colours(tab)[0] == "rgb(255, 255, 255)"
    assert _colours(tab)[1] == "#444"
    assert not tab.locator(".filters").is_visible()
    assert tab.pdf()[:4] == b"%PDF"
    page.check()


_COLOURS = """() => [getComputedStyle(document.body).backgroundColor,
    document.getElementById('ratios').layout.font.color]"""


def _colours(tab: Any) -> list[str]:
    return tab.evaluate(_COLOURS)


def _colours_unlike(before: list[str], tab: Any) -> list[str]:
    for _ in range(600):  # the page hears of the new scheme when the browser gets to it
        now = _colours(tab)
        if now[0] != before[0] and now[1] != before[1]:
            return now
        tab.wait_for_timeout(100)
    raise AssertionError(f"the colours stayed {before}")


def test_pages_without_baselines_or_results(show: Callable[..., Any]) -> None:
    """Nothing to plot is no error."""
    new = Row("call_time/per_call", Verdict.NEW, value=0.1, low=0.1, high=0.1, processes=(0.1,))
    void = Row("contract", Verdict.VOID, note="the tokens differ")
    samples = {"call_time/per_call": [[0.1]]}
    page = show(
        result("test_new", rows=(new,), samples=samples, baseline={}, config={}),
        result("test_void", rows=(void,), samples={}),
        result("test_none", rows=(), samples={}),
    ).ready()  # fmt: skip
    for number in range(3):
        page.tab.evaluate(f"open({number})")
    page.check()

    show().ready().check()


def test_an_old_browser_keeps_the_table(show: Callable[..., Any]) -> None:
    """One that can not unpack the details says so; the table sorts and filters."""
    page = show(result("test_a"), init="delete window.DecompressionStream")

    page.tab.wait_for_selector("#too-old:not([hidden])")
    page.tab.fill("#search", "nothing")
    assert page.tab.inner_text("#found") == "0 of 1"
    page.check()
