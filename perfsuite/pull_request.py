"""One comment on a pull request of GitHub: written once, then updated, by the REST API.

It is found again by its first line, which nobody sees. A stranger could write that line too, so a
comment counts only where a bot or somebody of the project wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perfsuite.errors import PerfError

if TYPE_CHECKING:
    import httpx2

TIMEOUT_S = 15.0  # for each answer
_PAGES = 25  # of a hundred comments each: GitHub takes 2,500 on a pull request
_OF_THE_PROJECT = frozenset({"OWNER", "MEMBER", "COLLABORATOR"})
_NO_RIGHT = frozenset({401, 403, 404})  # GitHub says 404 where a token may not even look


@dataclass(frozen=True)
class PullRequest:
    """Where the comment goes, and the right to write it."""

    api: str  # https://api.github.com, or a server's own
    repository: str  # owner/name
    number: int
    is_from_fork: bool
    token: str = field(repr=False)


def of_job(environ: Mapping[str, str]) -> PullRequest:
    """The pull request that this job of GitHub Actions is for; PerfError where it is for none."""
    event = _event(environ.get("GITHUB_EVENT_PATH", ""))
    asked = event.get("pull_request")
    if not isinstance(asked, Mapping) or not isinstance(asked.get("number"), int):
        name = environ.get("GITHUB_EVENT_NAME") or "no event of GitHub"
        raise PerfError(f"this run is for no pull request ({name})")
    missing = [n for n in ("GITHUB_REPOSITORY", "GITHUB_TOKEN") if not environ.get(n)]
    if missing:
        raise PerfError(f"{' and '.join(missing)} is not set in this step")
    repository = environ["GITHUB_REPOSITORY"]
    head = ((asked.get("head") or {}).get("repo") or {}).get("full_name")
    return PullRequest(
        api=environ.get("GITHUB_API_URL") or "https://api.github.com",
        repository=repository,
        number=asked["number"],
        is_from_fork=head != repository,  # also where the fork was deleted
        token=environ["GITHUB_TOKEN"],
    )


def _event(path: str) -> dict[str, Any]:
    if not path:
        return {}
    try:
        event = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise PerfError(f"GITHUB_EVENT_PATH can not be read: {path}: {problem}") from None
    return event if isinstance(event, dict) else {}


def put(to: PullRequest, marker: str, body: str, timeout_s: float = TIMEOUT_S) -> str:
    """Write the comment that starts with `marker`, or replace it; the answer is its URL.

    Raises PerfError with what GitHub said, and what the token needs.
    """
    try:
        import httpx2
    except ImportError:
        raise PerfError("needs httpx2: pip install 'perfsuite[github]'") from None
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {to.token}",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    try:
        with httpx2.Client(base_url=to.api, headers=headers, timeout=timeout_s) as client:
            return _put(client, to, marker, body)
    except httpx2.TimeoutException:
        raise PerfError(f"{to.api} did not answer within {timeout_s:g} s") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeEncodeError) as problem:
        raise PerfError(f"{to.api}: {problem}") from None


def _put(client: httpx2.Client, to: PullRequest, marker: str, body: str) -> str:
    comments = f"/repos/{to.repository}/issues/{to.number}/comments"
    known = _written_before(client, to, comments, marker)
    if known is None:
        answer = _asked(client, to, "POST", comments, json={"body": body})
    else:
        one = f"/repos/{to.repository}/issues/comments/{known}"
        answer = _asked(client, to, "PATCH", one, json={"body": body})
    return str(answer.get("html_url", "")) if isinstance(answer, dict) else ""


def _written_before(
    client: httpx2.Client, to: PullRequest, comments: str, marker: str
) -> int | None:
    for page in range(1, _PAGES + 1):
        found = _asked(client, to, "GET", comments, params={"per_page": 100, "page": page})
        if not isinstance(found, list):
            raise PerfError(f"{to.api} gave no list of comments")
        for comment in found:
            if _is_ours(comment, marker):
                return int(comment["id"])
        if len(found) < 100:
            break
    return None


def _is_ours(comment: Mapping[str, Any], marker: str) -> bool:
    by_bot = (comment.get("user") or {}).get("type") == "Bot"
    trusted = by_bot or comment.get("author_association") in _OF_THE_PROJECT
    return trusted and str(comment.get("body") or "").startswith(marker)


def _asked(client: httpx2.Client, to: PullRequest, method: str, path: str, **more: Any) -> Any:
    """What GitHub answers; PerfError for all that is no success, a redirection included."""
    answer = client.request(method, path, **more)
    if not answer.is_success:
        raise PerfError(
            f"GitHub answered {answer.status_code} to {method}: {_said(answer)}{_hint(to, answer)}"
        )
    try:
        return answer.json()
    except ValueError:
        raise PerfError(f"{to.api} answered {method} with something that is no JSON") from None


def _said(answer: httpx2.Response) -> str:
    try:
        return " ".join(str(answer.json()["message"]).split())[:200]
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase


def _hint(to: PullRequest, answer: httpx2.Response) -> str:
    if answer.status_code not in _NO_RIGHT:
        return ""
    if to.is_from_fork:
        return "; it comes from a fork, whose jobs get a token that may only read"
    return "; the job needs `permissions: pull-requests: write`"
