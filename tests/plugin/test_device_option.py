"""--device: whose it is, and what happens where the device is absent."""

from __future__ import annotations

from typing import Any

import pytest

_OWNER = """
def pytest_addoption(parser):
    parser.addoption("--device", choices=["pixel", "tablet"], default="pixel")
    parser.addoption("--engine", default="diesel")
"""

_OWNERS_TEST = """
def test_own(request):
    assert request.config.getoption("--device") == "tablet"
    assert request.config.getoption("--engine") == "steam"
"""


def test_another_owner_of_the_names_keeps_them(engine_test: Any) -> None:
    """A project whose conftest has --device and --engine runs as before, and gates by --perf-..."""
    engine_test.engines("Offer('one'), Offer('two')")
    with (engine_test.path / "conftest.py").open("a") as stream:
        stream.write(_OWNER)
    engine_test.write("test_own.py", _OWNERS_TEST)
    owners = ("--device=tablet", "--engine=steam")

    plain = engine_test.pytest(*owners)
    assert plain.ret == 0
    plain.assert_outcomes(passed=1, skipped=1)

    gated = engine_test.perf(*owners, "--perf-engine=two", "--perf-save", "--perf-processes=1")
    assert gated.ret == 0
    gated.assert_outcomes(passed=2)
    assert {r["engine"] for r in engine_test.report["results"]} == {"two"}

    refused = engine_test.pytest("--device=cpu")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*invalid choice: 'cpu'*"])


def test_a_plugin_that_owns_the_names_keeps_them(engine_test: Any) -> None:
    """The same for a plugin that is loaded with -p."""
    engine_test.write("owner.py", _OWNER)
    engine_test.write("test_own.py", _OWNERS_TEST)

    result = engine_test.pytest("-p", "owner", "--device=tablet", "--engine=steam")

    assert result.ret == 0
    result.assert_outcomes(passed=1, skipped=1)


def test_an_absent_device_is_a_skip_or_a_failure(two_tests: Any) -> None:
    """Without the device measured tests are skipped with its name; --perf-require fails them."""
    absent = ("--perf", "--device=cuda:63")

    skipped = two_tests.pytest(*absent, "-rs")
    skipped.assert_outcomes(skipped=2)
    skipped.stdout.fnmatch_lines(["SKIPPED * no GPU for cuda:63: this machine shows *"])
    assert skipped.ret == 1  # nothing was compared

    required = two_tests.pytest(*absent, "--perf-require=measured")
    required.stdout.fnmatch_lines(["no GPU for cuda:63: *, and --perf-require=measured was given"])
    assert required.ret == 1
