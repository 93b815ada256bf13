"""What `--perf-against` may name, how it is named in return, and every refusal."""

from __future__ import annotations

import os
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from perfsuite.errors import OptionError
from perfsuite.trees import base_side

OLD, NEW = {"product.py": "STATE = 'old'\n"}, {"product.py": "STATE = 'new'\n"}


@pytest.fixture
def project(two_states: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A repository with a branch `old`, the current folder of this process."""
    repository = two_states(OLD, NEW)
    monkeypatch.chdir(repository.path)
    return repository


def _refusal(text: str, head: Any) -> str:
    with pytest.raises(OptionError) as caught, base_side(text, head):
        pass
    assert str(caught.value).startswith(f"--perf-against={text}")
    return str(caught.value)


def test_head_is_named_by_its_state(project: Any, side_of: Any, tmp_path: Path) -> None:
    """The commit, whether there are changes, and nothing where there is no git."""
    sha = project.git("rev-parse", "HEAD")[:12]
    assert side_of(project.path).name == f"working tree ({sha})"
    project.write({"product.py": "STATE = 'newer'\n"})
    assert side_of(project.path).name == f"working tree ({sha}+changes)"
    assert side_of(tmp_path).name == "working tree"


def test_revisions(project: Any, side_of: Any) -> None:
    """A branch, a tag of its own object, an ancestor and a short name are all that commit."""
    sha = project.git("rev-parse", "old")
    project.git("tag", "-a", "-m", "a tag", "v1", "old")
    head = side_of(project.path)
    names = {"old": f"old ({sha[:12]})", "v1": f"v1 ({sha[:12]})", "HEAD~1": f"HEAD~1 ({sha[:12]})",
             sha: sha[:12], sha[:7]: sha[:12]}  # fmt: skip
    for text, name in names.items():
        with base_side(text, head) as side:
            assert side.name == name
            assert (side.tree / "product.py").read_text() == OLD["product.py"]
            assert side.subject.head == str(project.path)
            assert (side.interpreter, side.note) == (None, "")
        assert not side.tree.exists()


def test_changes_of_the_working_tree_are_heads_alone(project: Any, side_of: Any) -> None:
    """Against HEAD, what is not committed yet is the difference."""
    project.write({"product.py": "STATE = 'newer'\n"})
    with base_side("HEAD", side_of(project.path)) as side:
        assert (side.tree / "product.py").read_text() == NEW["product.py"]


def test_submodules_are_noted(project: Any, side_of: Any) -> None:
    """Their folders are empty in base."""
    project.commit({".gitmodules": ""})
    with base_side("HEAD", side_of(project.path)) as side:
        assert side.note == "submodules are not checked out in base"


def test_a_root_below_the_top_of_the_repository(two_states: Any, side_of: Any) -> None:
    """The whole checkout is exchanged, so that base need not have the folder of the tests yet."""
    repository = two_states({"src/product.py": ""}, {"src/product.py": "", "perf/pytest.ini": ""})
    head = side_of(repository.path / "perf", pythonpath=["../src"])
    assert head.tree == repository.path
    with base_side("old", head) as side:
        path = str(repository.path / "src/product.py")
        assert side.subject.here(path) == str(side.tree / "src/product.py")


def test_unknown_revisions(project: Any, side_of: Any) -> None:
    """The refusal says what was tried, and what git knows of the same name."""
    head = side_of(project.path)
    text = _refusal("mian", head)
    assert "unknown revision" in text
    assert f"as a file and a directory in {project.path}, and as a revision of" in text
    assert "unknown revision" in _refusal("--upload-pack=evil", head)
    assert "unknown revision" in _refusal("HEAD:product.py", head)
    project.git("update-ref", "refs/remotes/origin/release", "HEAD")
    assert "known is origin/release" in _refusal("release", head)


def test_a_shallow_clone(project: Any, side_of: Any, tmp_path: Path) -> None:
    """It does not have the history; how to get it is said."""
    project.git("clone", "-q", "--depth=1", f"file://{project.path}", str(tmp_path / "shallow"))
    assert "git fetch --unshallow" in _refusal("old", side_of(tmp_path / "shallow"))


def test_no_repository(side_of: Any, tmp_path: Path) -> None:
    """Without one there are directories and interpreters alone."""
    text = _refusal("main", side_of(tmp_path))
    assert f"no revision: {tmp_path} is in no git work tree (fatal: not a git repository" in text
    assert "no such file or directory" in text


def test_bare_and_broken_repositories(project: Any, side_of: Any, tmp_path: Path) -> None:
    """What git says of them is passed on."""
    project.git("clone", "-q", "--bare", str(project.path), str(tmp_path / "bare"))
    assert "must be run in a work tree" in _refusal("old", side_of(tmp_path / "bare"))
    (project.path / ".git/HEAD").write_text("")
    assert "is in no git work tree (fatal: " in _refusal("old", side_of(project.path))


def test_a_commit_whose_files_are_lost(project: Any, side_of: Any) -> None:
    """It has a name and can't be checked out."""
    tree = project.git("rev-parse", "old^{tree}")
    (project.path / ".git/objects" / tree[:2] / tree[2:]).unlink()
    assert "no worktree of" in _refusal("old", side_of(project.path))


def test_without_git(project: Any, side_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Head has a name, and a revision is refused."""
    monkeypatch.setenv("PATH", "/nowhere")
    head = side_of(project.path)
    assert head.name == "working tree"
    with pytest.raises(OptionError, match="git is not on the PATH"), base_side("old", head):
        pass


def test_another_project_at_that_revision(two_states: Any, side_of: Any) -> None:
    """Base has nothing where head has its modules: a layout that changed, or another branch."""
    repository = two_states({"product.py": ""}, {"product.py": None, "src/product.py": ""})
    text = _refusal("old", side_of(repository.path))
    assert "has none of the project's modules (product) where head has them" in text


def test_a_directory(project: Any, side_of: Any, tmp_path: Path) -> None:
    """With or without git; it stays."""
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "product.py").touch()
    with base_side(str(plain), side_of(project.path)) as side:
        assert (side.name, side.tree) == (str(plain), plain)
    clone = tmp_path / "clone"
    project.git("clone", "-q", str(project.path), str(clone))
    with base_side("../clone", side_of(project.path)) as side:
        assert side.tree == clone
        assert side.name == f"../clone ({project.git('rev-parse', 'HEAD')[:12]})"
    assert clone.is_dir()


@pytest.mark.parametrize("named", ["clone", "clone/sub"])
def test_a_directory_where_the_root_is_a_part(
    two_states: Any, side_of: Any, tmp_path: Path, named: str
) -> None:
    """The top of a checkout, or the same part of it: the whole checkout is base."""
    repository = two_states({"sub/product.py": ""}, {"sub/product.py": "", "sub/pytest.ini": ""})
    repository.git("clone", "-q", str(repository.path), str(tmp_path / "clone"))
    with base_side(str(tmp_path / named), side_of(repository.path / "sub")) as side:
        path = str(repository.path / "sub/product.py")
        assert side.subject.here(path) == str(tmp_path / "clone/sub/product.py")


def test_a_copy_of_the_part_alone(two_states: Any, side_of: Any, tmp_path: Path) -> None:
    """A folder without git is the root's counterpart."""
    repository = two_states({"sub/product.py": ""}, {"sub/product.py": "", "sub/pytest.ini": ""})
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "product.py").touch()
    with base_side(str(copy), side_of(repository.path / "sub")) as side:
        path = str(repository.path / "sub/product.py")
        assert side.subject.here(path) == str(copy / "product.py")


def test_directories_that_are_no_base(project: Any, side_of: Any, tmp_path: Path) -> None:
    """The working tree itself, and one that holds something else."""
    head = side_of(project.path)
    assert "is the working tree itself" in _refusal(".", head)
    assert "is the working tree itself" in _refusal(f"../{project.path.name}", head)
    (project.path / "docs").mkdir()
    text = _refusal("docs", head)
    assert "none of the project's modules (product)" in text
    assert "refs/heads/docs" in text


def _script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_files_that_are_no_interpreter(project: Any, side_of: Any, tmp_path: Path) -> None:
    """What answers something else, fails, or may not be run."""
    head = side_of(project.path)
    for text in ("echo hello", "exit 3", "echo '[1]'", "echo '{}'", ":"):
        script = _script(tmp_path / "script", text)
        assert "does not answer as a Python interpreter" in _refusal(script, head)
    (tmp_path / "plain").touch()
    assert "unknown revision" in _refusal(str(tmp_path / "plain"), head)


def test_interpreters_that_are_no_base(project: Any, side_of: Any, tmp_path: Path) -> None:
    """Too old, without pytest, and the one of this run."""
    head = side_of(project.path)
    answer = '{"version": [3, 9, 1], "prefix": "/", "missing": []}'
    old = _script(tmp_path / "python", f"echo '{answer}'")
    assert f"{old} is Python 3.9.1; perfsuite needs 3.11 or later" in _refusal(old, head)
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    bare = str(tmp_path / "bare/bin/python")
    text = _refusal(bare, head)
    assert "lacks pytest, " in text
    assert "psutil" in text
    assert "pandas" not in text  # of an extra
    assert "is the interpreter of this run" in _refusal(sys.executable, head)


def test_environments_inside_the_project_are_not_the_project(
    project: Any, side_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever lies in the environment of this interpreter; its own prefix may also hold all."""
    monkeypatch.setattr(sys, "prefix", str(project.path / "env"))
    monkeypatch.setattr(sys, "exec_prefix", os.path.dirname(project.path))
    subject = side_of(project.path).subject
    assert subject.foreign == (str(project.path / "env"),)
    assert subject.owner(str(project.path / "env/lib/library.py")) == ""
    assert subject.owner(str(project.path / "product.py")) == str(project.path)
