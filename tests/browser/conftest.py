"""A headless Chromium, and pages made of planted results for it.

Where there is no browser every test is skipped, with the reason.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perfsuite.results import Result

ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
TIMEOUT_MS = 60_000  # a busy machine changes no outcome


class Opened:
    """A page in a tab, and what it complained of or asked for beside itself."""

    def __init__(self, tab: Any, file: Path) -> None:
        self.tab, self.file = tab, file
        self.complaints: list[str] = []
        self.requests: list[str] = []
        tab.set_default_timeout(TIMEOUT_MS)
        tab.on("console", self._take)
        tab.on("pageerror", lambda problem: self.complaints.append(str(problem)))
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.add_init_script("window.hit = 0; window.hits = () => { window.hit += 1; };")
        tab.goto(file.as_uri())

    def _take(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def ready(self) -> Opened:
        """Waits until the page answers."""
        self.tab.wait_for_selector("html[data-ready]")
        return self

    def check(self) -> None:
        """Nothing complained, nothing was asked for, nothing that was planted ran."""
        assert self.complaints == []
        assert self.requests == [self.file.as_uri()]
        assert self.tab.evaluate("window.hit") == 0


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    for library in ("jinja2", "plotly"):
        pytest.importorskip(library, reason="needs perfsuite[html]")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("no chromium is installed: apt-get install chromium, or set CHROMIUM")
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield started
        started.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Opens the page of results; further words are the browser context's."""
    from perfsuite.report import page
    from perfsuite.report.stored import Run

    contexts = []

    def open_page(*results: Result, text: str = "", init: str = "", **context: Any) -> Opened:
        file = tmp_path / "page.html"
        file.write_text(text or page.render([Run(results)]), encoding="utf-8")
        contexts.append(browser.new_context(**context))
        tab = contexts[-1].new_page()
        if init:
            tab.add_init_script(init)
        return Opened(tab, file)

    yield open_page
    for one in contexts:
        one.close()
