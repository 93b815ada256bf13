"""Facts that are kept between runs: found again by what decides them, bounded, never in the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perfsuite.static import kept_facts


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kept_facts, "lock_folder", lambda: tmp_path)
    return tmp_path / "compiled"


def test_what_is_written_is_read_under_its_key_alone(folder: Path) -> None:
    """Each part of a key counts, and where it ends."""
    name = kept_facts.key(["text", "v5e-8"])
    kept_facts.write(name, {"figures": {"a": 1.5}, "words": {}})
    assert kept_facts.read(name) == {"figures": {"a": 1.5}, "words": {}}
    assert kept_facts.read(kept_facts.key(["textv5e-8", ""])) is None
    assert [file.name for file in folder.iterdir()] == [f"{name}.json"]


def test_a_change_of_the_accounting_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts belong to the modules that made them."""
    before = kept_facts.key(["text"])
    monkeypatch.setattr(kept_facts, "_accounting", lambda: "another")
    assert kept_facts.key(["text"]) != before


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_what_can_not_be_read_is_as_nothing(folder: Path, text: str) -> None:
    """A program is then compiled again."""
    kept_facts.write("name", {})
    (folder / "name.json").write_text(text)
    assert kept_facts.read("name") is None


def test_the_oldest_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more files are kept than a bound."""
    monkeypatch.setattr(kept_facts, "_MOST", 2)
    for age, name in enumerate(("new", "old", "older")):
        kept_facts.write(name, {})
        os.utime(folder / f"{name}.json", (1e9 - age, 1e9 - age))
    kept_facts.write("newest", {})
    assert sorted(file.stem for file in folder.iterdir()) == ["new", "newest"]


def test_a_folder_that_takes_nothing_fails_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has the facts does not need the file."""

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    kept_facts.write("name", {})
    assert kept_facts.read("name") is None
    assert list(folder.iterdir()) == []
