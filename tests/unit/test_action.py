"""The composite action: its scripts run here as a runner runs them, with a server for GitHub's API.

pytest is replaced by a script that notes how it was called and leaves a run's files; all else is
what users get: action.yml's own scripts, `python -m perfsuite comment`, and HTTP.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from perfsuite.errors import PerfError
from perfsuite.pull_request import PullRequest, put
from perfsuite.report import json_file
from perfsuite.report.comment import marker
from perfsuite.results import Result

yaml = pytest.importorskip("yaml", reason="reads action.yml")
pytest.importorskip("httpx2", reason="writes the comment")

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "action.yml"
EXAMPLE = ROOT / "examples/pull-request.yml"
BOT = {"user": {"type": "Bot"}, "author_association": "NONE"}
if not ACTION.exists():
    pytest.skip("action.yml is in the repository alone", allow_module_level=True)

# Stands for the interpreter: notes the call of pytest, leaves files of a run, ends as it is told.
_PYTHON = f"""#!/bin/bash
if [[ "$2" != pytest ]]; then exec {shlex.quote(sys.executable)} "$@"; fi
printf '%s\\n' "${{@:3}}" "ADDOPTS=$PYTEST_ADDOPTS" > "$CALLED"
for word in "$@"; do
  case "$word" in
    --perf-json=*) [[ -z "$LEAVES" ]] || cp "$LEAVES" "${{word#*=}}" ;;
    --perf-html=*) [[ -z "$LEAVES" ]] || echo page > "${{word#*=}}" ;;
  esac
done
exit "$ENDS_WITH"
"""


@dataclass
class GitHub:
    """The comments of a pull request, behind a server on this machine."""

    url: str = ""
    comments: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)  # method and path
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)  # by method
    silent_s: float = 0.0
    token: str = "t0ken"


def _handler(github: GitHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else {}
            github.asked.append((self.command, self.path.partition("?")[0]))
            time.sleep(github.silent_s)
            status, answer = self._done(body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _done(self, body: dict[str, Any]) -> tuple[int, Any]:
            if self.headers["Authorization"] != f"Bearer {github.token}":
                return 401, {"message": "Bad credentials"}
            if self.command in github.refuse:
                status, message = github.refuse[self.command]
                return status, {"message": message}
            if self.command == "GET":
                page = int(re.search(r"[?&]page=(\d+)", self.path)[1])
                return 200, github.comments[100 * (page - 1) : 100 * page]
            if self.command == "POST":
                github.comments.append({"id": 1000 + len(github.comments), **BOT, **body})
                return 201, {"html_url": "https://github.com/owner/project/pull/5#1"}
            (one,) = (c for c in github.comments if self.path.endswith(f"/comments/{c['id']}"))
            one.update(body)
            return 200, {"html_url": "https://github.com/owner/project/pull/5#1"}

        do_GET = do_POST = do_PATCH = _answer  # noqa: N815

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    return Handler


@pytest.fixture
def github() -> Iterator[GitHub]:
    found = GitHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(found))
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


class Job:
    """A job of GitHub Actions: its environment, and what its steps left behind."""

    def __init__(self, folder: Path, github: GitHub, leaves: Path) -> None:
        self.folder = folder
        self._python = self._write("python", _PYTHON)
        self._python.chmod(0o755)
        self.summary, self.called = self._write("summary.md"), folder / "called"
        self._output, self.event = self._write("output"), self._write("event.json")
        self.head("owner/project")
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(folder),
            "GITHUB_OUTPUT": str(self._output), "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_EVENT_PATH": str(self.event), "GITHUB_EVENT_NAME": "pull_request",
            "GITHUB_API_URL": github.url, "GITHUB_REPOSITORY": "owner/project",
            "GITHUB_SERVER_URL": "https://github.com", "GITHUB_RUN_ID": "7",
            "RUNNER_TEMP": str(folder), "CALLED": str(self.called), "LEAVES": str(leaves),
            "ENDS_WITH": "1", "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        self.log = ""

    def _write(self, name: str, text: str = "") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def head(self, repository: str) -> None:
        """The repository that the pull request comes from."""
        head = {"repo": {"full_name": repository}}
        self.event.write_text(json.dumps({"pull_request": {"number": 5, "head": head}}))

    def run(self, **inputs: str) -> int:
        """All scripts in their order with these inputs; the job's exit status."""
        declared = yaml.safe_load(ACTION.read_text())
        values = {name: str(of.get("default", "")) for name, of in declared["inputs"].items()}
        values |= {"python": str(self._python), "base": "main", "token": "t0ken", **inputs}
        self._output.write_text("")
        self.log = ""
        for step in (step for step in declared["runs"]["steps"] if "run" in step):
            if step["name"] == "Comment" and values["comment"] != "yes":
                continue
            status = self._step(step, values)
            if status:
                return status
        return 0

    def _step(self, step: dict[str, Any], inputs: dict[str, str]) -> int:
        script = self.folder / "step.sh"
        script.write_text(step["run"])
        told = {name: self._evaluated(str(text), inputs) for name, text in step["env"].items()}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", script],
            env=self.environment | told, cwd=self.folder, text=True, timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        self.log += done.stdout
        return done.returncode

    def _evaluated(self, text: str, inputs: dict[str, str]) -> str:
        """What the runner puts in place of the few kinds of expressions that action.yml has."""
        found = re.fullmatch(r"\$\{\{ (.*) \}\}", text)
        assert found, text
        expression = found[1]
        if expression.startswith("inputs.base =="):
            return "" if inputs["base"] else "main"
        if expression.startswith("inputs."):
            return inputs[expression.removeprefix("inputs.")]
        if expression == "steps.page.outputs.artifact-url":
            return "https://github.com/owner/project/actions/runs/7/artifacts/9"
        return self.outputs[expression.removeprefix("steps.compare.outputs.")]

    @property
    def outputs(self) -> dict[str, str]:
        lines = self._output.read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def arguments(self) -> list[str]:
        return self.called.read_text().splitlines()


@pytest.fixture
def results(make_result: Callable[..., Result], tmp_path: Path) -> Path:
    """The file of a run with one loss."""
    path = tmp_path / "a_run.json"
    json_file.write(path, [make_result(facts={"against": "main (7f3a1c9d2e4b)"})], [], tmp_path)
    return path


@pytest.fixture
def job(github: GitHub, results: Path, tmp_path: Path) -> Job:
    folder = tmp_path / "job"
    folder.mkdir()
    return Job(folder, github, results)


def test_a_comment_is_written_once_and_then_updated(job: Job, github: GitHub) -> None:
    """Among many others it is found again, and the job ends as the comparison did."""
    github.comments += [{"id": n, **BOT, "body": f"other {n}"} for n in range(150)]
    assert job.run() == 1
    assert len(github.comments) == 151
    first = github.comments[-1]["body"]
    assert first.startswith("<!-- perfsuite: perf -->\n### \N{CROSS MARK} perf: 1 test is worse")
    assert "actions/runs/7/artifacts/9" in first

    job.environment["ENDS_WITH"] = "4"
    job.environment["LEAVES"] = ""
    assert job.run() == 4
    assert len(github.comments) == 151
    second = github.comments[-1]["body"]
    assert "the run ended with exit status 4" in second
    assert [method for method, _ in github.asked] == ["GET", "GET", "POST", "GET", "GET", "PATCH"]
    assert not job.summary.read_text()


def test_jobs_of_other_names_have_comments_of_their_own(job: Job, github: GitHub) -> None:
    """A matrix does not fight over one comment."""
    for name in ("cpu", "cuda", "cpu"):
        assert job.run(name=name) == 1
    assert [c["body"].splitlines()[0] for c in github.comments] == [marker("cpu"), marker("cuda")]


def test_the_comparison_is_asked_for_as_the_inputs_say(job: Job) -> None:
    """Every limit, the device, the base, the history; further arguments as a shell splits them."""
    job.environment["ENDS_WITH"] = "0"
    more = """tests/perf -k "smoke and llm" """
    status = job.run(
        device="cuda:1", limit="time:1%\n\nmemory:2%+1MB\n", history="s3://bucket/perf",
        arguments=more, name="gpu",
    )  # fmt: skip
    assert status == 0
    folder = job.outputs["folder"]
    assert job.arguments == [
        "--perf", "--perf-against=main", "--perf-device=cuda:1", "--perf-limit=time:1%",
        "--perf-limit=memory:2%+1MB", "--perf-history=s3://bucket/perf",
        f"--perf-json={folder}/results.json", f"--perf-html={folder}/gpu.html",
        f"--perf-markdown={job.summary}", f"ADDOPTS= {more}",
    ]  # fmt: skip
    assert (Path(folder) / "gpu.html").exists()


def test_a_failed_comparison_keeps_its_files_for_the_upload(job: Job) -> None:
    """The scripts before the uploads end well whatever pytest's exit status; the last one fails."""
    declared = yaml.safe_load(ACTION.read_text())
    steps = {step["name"]: step for step in declared["runs"]["steps"]}
    assert list(steps) == ["Compare", "Upload the page", "Upload the results", "Comment", "Verdict"]
    assert job.run() == 1
    assert job.outputs["status"] == "1"  # the script itself ended well, or the uploads were skipped
    assert (Path(job.outputs["folder"]) / "perf.html").exists()
    for name in ("Upload the page", "Upload the results"):
        assert "!cancelled()" in steps[name]["if"]
        assert steps[name]["continue-on-error"] is True


def test_a_run_that_measured_nothing_is_red(job: Job, github: GitHub) -> None:
    """As with --collect-only among the arguments: pytest ends well and leaves no results."""
    job.environment |= {"ENDS_WITH": "0", "LEAVES": ""}
    assert job.run() == 2
    assert "pytest ended well and measured nothing" in job.log
    (comment,) = github.comments
    assert "nothing was measured" in comment["body"]


HOSTILE = ["$(touch planted)", "`touch planted`", "a b", "'", '"', "; touch planted", "a\nb=c",
           "${{ github.token }}", "../x", "-x", "$HOME"]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_an_input_is_a_value_and_nothing_else(job: Job, text: str) -> None:
    """It reaches pytest as it is; nothing is run, expanded or split."""
    job.environment["ENDS_WITH"] = "0"
    assert job.run(base=text, device=text, history=text, arguments=text, comment="no") == 0
    called = job.called.read_text()
    for option in ("against", "device", "history"):
        assert f"--perf-{option}={text}\n" in called
    assert f"ADDOPTS= {text}\n" in called
    assert not list(job.folder.glob("planted*"))


@pytest.mark.parametrize("text", [t for t in HOSTILE if t != "$HOME"])
@pytest.mark.parametrize("name", ["name", "comment"])
def test_a_name_that_is_none_is_refused_before_anything_runs(
    job: Job, name: str, text: str
) -> None:
    """They become file names, an artifact's name and a comment's first line."""
    assert job.run(**{name: text}) == 2
    assert f"::error title=perfsuite action::{name}: expected" in job.log
    assert not job.called.exists()
    assert not list(job.folder.glob("planted*"))


@pytest.mark.parametrize(
    ("status", "said"),
    [(403, "Resource not accessible"), (404, "Not Found"), (422, "Body is too long"),
     (401, "Bad credentials"), (500, "oops"), (301, "Moved")],
)  # fmt: skip
def test_a_refusal_is_told_in_the_summary_and_changes_no_status(
    job: Job, github: GitHub, status: int, said: str
) -> None:
    """The comment itself stands there too."""
    github.refuse["POST"] = (status, said)
    assert job.run() == 1
    summary = job.summary.read_text()
    assert "1 test is worse" in summary
    assert f"No comment was written: <code>GitHub answered {status} to POST&#58; {said}" in summary
    assert "::warning title=perfsuite action::no comment" in job.log
    assert ("pull-requests&#58; write" in summary) is (status in (401, 403, 404))
    job.environment["ENDS_WITH"] = "0"
    assert job.run() == 0


def test_a_fork_is_told_why(job: Job, github: GitHub) -> None:
    """Its token may only read, so no permission of the workflow would help."""
    job.head("stranger/project")
    github.refuse["POST"] = (403, "Resource not accessible by integration")
    assert job.run() == 1
    summary = job.summary.read_text()
    assert "comes from a fork, whose jobs get a token that may only read" in summary
    assert "1 test is worse" in summary


def test_nobody_can_plant_the_comment(job: Job, github: GitHub) -> None:
    """A stranger's comment with the hidden line is left alone; a member's is the project's own."""
    stranger = {"user": {"type": "User"}, "author_association": "CONTRIBUTOR"}
    planted = {"id": 1, **stranger, "body": f"{marker('perf')}\nall is well"}
    github.comments.append(planted)
    assert job.run() == 1
    assert planted["body"].endswith("all is well")
    assert len(github.comments) == 2


def test_no_token_and_no_pull_request_are_told(job: Job, github: GitHub) -> None:
    """Nothing is asked of GitHub then."""
    assert job.run(token="") == 1
    assert "GITHUB_TOKEN is not set" in job.summary.read_text()
    job.event.write_text("{}")
    assert job.run() == 1
    assert "this run is for no pull request" in job.summary.read_text()
    job.event.write_text("{")
    assert job.run() == 1
    assert "GITHUB_EVENT_PATH can not be read" in job.summary.read_text()
    assert not github.asked


def test_an_answer_that_does_not_come_is_an_error(
    github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for no longer than said; neither is a server that is not there."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    github.silent_s = 1.0
    to = PullRequest(github.url, "owner/project", 5, is_from_fork=False, token="t0ken")
    with pytest.raises(PerfError, match=r"did not answer within 0\.05 s"):
        put(to, marker("perf"), "text", timeout_s=0.05)
    nowhere = PullRequest("http://127.0.0.1:9", "owner/project", 5, False, "t0ken")
    with pytest.raises(PerfError, match=r"127\.0\.0\.1:9: "):
        put(nowhere, marker("perf"), "text", timeout_s=5)
    assert "t0ken" not in repr(to)


def test_results_of_a_newer_version_cost_no_status(job: Job, results: Path) -> None:
    """The warning says that there is no comment, the log of the step says why."""
    results.write_text('{"perfsuite_format": 99}')
    assert job.run() == 1
    assert "format 99 is newer" in job.log
    assert "::warning title=perfsuite action::no comment" in job.log


class TestBase:
    """Without a base, the merge's first parent."""

    def git(self, folder: Path, *words: str) -> str:
        names = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        return subprocess.run(
            ["git", *names, *words], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    def test_it_is_what_the_pull_request_would_be_merged_into(self, job: Job) -> None:
        self.git(job.folder, "init", "-q", "-b", "main")
        self.git(job.folder, "commit", "-q", "--allow-empty", "-m", "base")
        self.git(job.folder, "checkout", "-q", "-b", "topic")
        self.git(job.folder, "commit", "-q", "--allow-empty", "-m", "change")
        self.git(job.folder, "checkout", "-q", "main")
        self.git(job.folder, "commit", "-q", "--allow-empty", "-m", "meanwhile")
        self.git(job.folder, "merge", "-q", "--no-ff", "-m", "merge", "topic")
        assert job.run(base="") == 1
        assert f"--perf-against={self.git(job.folder, 'rev-parse', 'main^1')}" in job.arguments

    def test_without_the_merges_parents_it_is_asked_for(self, job: Job) -> None:
        """A checkout of depth 1, or of a branch's own commit."""
        self.git(job.folder, "init", "-q", "-b", "main")
        self.git(job.folder, "commit", "-q", "--allow-empty", "-m", "base")
        assert job.run(base="") == 2
        assert "use fetch-depth: 2, or say base" in job.log
        assert not job.called.exists()


def test_no_expression_stands_inside_of_a_script() -> None:
    """It would become a part of the script, whoever wrote it."""
    for step in yaml.safe_load(ACTION.read_text())["runs"]["steps"]:
        assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("file", [ACTION, EXAMPLE], ids=lambda path: path.name)
def test_every_action_is_pinned_by_its_commit(file: Path) -> None:
    """Whole commits with the version beside them; the one for this action is to be filled in."""
    used = re.findall(r"uses: (\S+) # (\S+)", file.read_text())
    assert used
    for name, version in used:
        if name != "OWNER/perfsuite@COMMIT":
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name)
            assert re.fullmatch(r"v\d+\.\d+\.\d+", version)


def test_the_example_says_what_the_action_takes() -> None:
    """Its inputs exist, and the docs show the file as it is."""
    (job,) = yaml.safe_load(EXAMPLE.read_text())["jobs"].values()
    (step,) = (step for step in job["steps"] if "perfsuite@" in step.get("uses", ""))
    assert set(step["with"]) <= set(yaml.safe_load(ACTION.read_text())["inputs"])
    assert EXAMPLE.read_text() in (ROOT / "docs/pull-request.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("schema", "file"), [("github-actions", ACTION), ("github-workflows", EXAMPLE)]
)
def test_files_have_the_schema_that_github_publishes(schema: str, file: Path) -> None:
    """With the copy that check-jsonschema carries."""
    pytest.importorskip("check_jsonschema", reason="checks workflows")
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
