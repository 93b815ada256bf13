"""Which branch a run is of, as git and the CI tell it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from perfsuite.history.revision import revision_of


def _commit(folder: Path, message: bytes = b"first") -> None:
    who = (b"-c", b"user.name=a", b"-c", b"user.email=a@b.c")
    for words in (
        (b"init", b"-q", b"-b", b"topic"),
        (b"commit", b"-q", b"--allow-empty", b"-m", message),
        (b"checkout", b"-q", b"--detach"),
    ):
        subprocess.run([b"git", *who, *words], cwd=folder, check=True, capture_output=True)


def test_a_pull_request_is_no_branch_of_ours(tmp_path: Path) -> None:
    """A fork's pull request from its own main is not our main."""
    _commit(tmp_path)
    told = {"GITHUB_HEAD_REF": "main", "GITHUB_REF_NAME": "123/merge"}

    found = revision_of(tmp_path, told)

    assert found.branch == "123/merge"
    assert found.time is not None


def test_a_push_is_of_its_branch(tmp_path: Path) -> None:
    """GitHub's and GitLab's names; without any, and without git, nothing is known."""
    _commit(tmp_path)

    assert revision_of(tmp_path, {"GITHUB_REF_NAME": "main"}).branch == "main"
    assert revision_of(tmp_path, {"CI_COMMIT_REF_NAME": "main"}).branch == "main"
    assert revision_of(tmp_path, {}).branch == ""


def test_a_branch_whose_name_is_no_utf8(tmp_path: Path) -> None:
    """It is named as far as it can be, and the run goes on."""
    _commit(tmp_path)
    words = [b"git", b"checkout", b"-q", b"-b", b"b\xff"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)

    assert revision_of(tmp_path, {}).branch == "b\ufffd"
