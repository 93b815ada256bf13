"""The site builds strictly, and what is built asks no network for anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("material", reason="the site is built by mkdocs-material")

ROOT = Path(__file__).parents[2]
# What a browser fetches by itself, other than from where the page lies.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)[^>]+src=["']?(?:https?:)?//"""
    r"""|<link[^>]+rel=["']?(?:stylesheet|preload|preconnect|icon)[^>]+href=["']?(?:https?:)?//"""
    r"""|(?:@import|url\()\s*["']?(?:https?:)?//"""
)


def build(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """`mkdocs build --strict` of the configuration in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=project, capture_output=True, text=True, timeout=120,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The site's sources, to plant something in them."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    return tmp_path


def test_the_site_builds_and_fetches_nothing(tmp_path: Path) -> None:
    """No warning; no script, style, font or picture of another place."""
    done = build(ROOT, tmp_path / "site")
    assert done.returncode == 0, done.stderr

    pages = [*tmp_path.rglob("*.html"), *tmp_path.rglob("*.css")]
    assert len(pages) > len(list((ROOT / "docs").glob("*.md")))
    assert {p.name: found[0] for p in pages if (found := _FETCHED.search(p.read_text()))} == {}


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ("[gone](gone.md)", "gone.md"),
        ("[gone](verdicts.md#gone)", "#gone"),
        ("[outside](../CONTRIBUTING.md)", "CONTRIBUTING.md"),
    ],
)
def test_a_link_that_leads_nowhere_is_an_error(copy: Path, planted: str, said: str) -> None:
    """Planted: a page, an anchor and a file outside of the site."""
    with (copy / "docs" / "start.md").open("a") as page:
        page.write(f"\n{planted}\n")

    done = build(copy, copy / "site")

    assert done.returncode != 0
    assert said in done.stderr


def test_a_page_that_the_menu_lacks_is_an_error(copy: Path) -> None:
    """Planted: somebody writes a page and forgets mkdocs.yml."""
    (copy / "docs" / "new.md").write_text("# New\n")

    done = build(copy, copy / "site")

    assert done.returncode != 0
    assert "new.md" in done.stderr
