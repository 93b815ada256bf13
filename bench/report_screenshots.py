"""The screenshots of docs/report.md, of the page of stored results.

    python bench/report_screenshots.py RESULTS.json... [--test NAME] [--output docs/images]

They are reduced to 200 colours, so that a checkout stays small. Needs Chromium, playwright and
Pillow.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

from perfsuite.report import page
from perfsuite.report.stored import read

CHROMIUM = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
WIDE = {"viewport": {"width": 1280, "height": 1250}}
PHONE = {"viewport": {"width": 390, "height": 1180}, "is_mobile": True, "has_touch": True,
         "device_scale_factor": 1.5}  # fmt: skip


def main() -> None:
    """Write every picture and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--test", default="", help="the workload that is opened")
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    file = asked.output / "page.html"
    page.write_page(file, [read(results) for results in asked.results])
    try:
        _take(file, asked)
    finally:
        file.unlink()


def _take(file: Path, asked: argparse.Namespace) -> None:
    from playwright.sync_api import sync_playwright

    opened = f"open(Math.max(0, data.tests.findIndex((one) => one.name === {asked.test!r})))"
    pictures: dict[str, tuple[dict[str, Any], str]] = {
        "light": ({**WIDE, "color_scheme": "light"}, ""),
        "dark": ({**WIDE, "color_scheme": "dark"}, "scrollTo(0, 640)"),
        "phone": ({**PHONE, "color_scheme": "light"}, ""),
        "failure": ({**WIDE, "color_scheme": "light"}, "open(0)"),
        "test": ({**WIDE, "color_scheme": "dark"}, opened),
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=asked.chromium, args=list(CHROMIUM))
        for name, (context, script) in pictures.items():
            tab = browser.new_context(**context).new_page()
            tab.goto(file.resolve().as_uri())
            tab.wait_for_selector("html[data-ready]")
            if script:
                tab.evaluate(script)
            tab.wait_for_timeout(2000)  # until plots stand and their transitions are over
            target = asked.output / f"report-{name}.png"
            _save(tab.screenshot(), target)
            print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")
        browser.close()


def _save(picture: bytes, target: Path) -> None:
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(200).save(target, optimize=True)


if __name__ == "__main__":
    main()
