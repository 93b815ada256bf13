"""Waivers: losses that an owner accepts, for a reason and until a day.

    [[waiver]]                            in waivers.toml of a folder of baselines
    test = "llm-smoke-llama3_8b-*"        a glob over node ids and workload ids
    metric = "ttft"                       optional, as in --perf-limit
    engine = "torch_llama"                optional
    reason = "the new cache is slower until its kernel lands"
    owner = "ana"
    until = 2026-12-31                    the last day on which it holds, in UTC

    @pytest.mark.perf(waiver={"reason": ..., "owner": ..., "until": ..., "metric": ...})

A waived figure keeps its verdict and fails no test. VOID is never waived: there is no figure. A
waiver that has expired fails every test that it is for.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from perfsuite.baselines import shown
from perfsuite.errors import OptionError
from perfsuite.metrics import METRICS, matching
from perfsuite.results import Result, Row
from perfsuite.verdict import Verdict, fails

FILE = "waivers.toml"
_REQUIRED = ("reason", "owner", "until")
_OF_MARKER = ("metric", *_REQUIRED)
_OF_FILE = ("test", "engine", *_OF_MARKER)


@dataclass(frozen=True)
class Waiver:
    """A checked waiver; `metrics` are the ids that it is for, all where it names none."""

    reason: str
    owner: str
    until: date
    metric: str = ""
    metrics: frozenset[str] = frozenset(METRICS)
    test: str = ""  # a marker's is its test's node id
    engine: str = ""
    file: str = ""  # where it stands

    def covers(self, names: Collection[str], engine: str) -> bool:
        """Whether it is for a test, known by its node id and its workload's id."""
        if self.engine and self.engine != engine:
            return False
        return self.test in names or any(fnmatchcase(name, self.test) for name in names)

    def is_for(self, row: Row) -> bool:
        """Whether it is for that figure; never for a broken contract."""
        return row.verdict is not Verdict.VOID and row.metric_id in self.metrics

    def expired(self, today: date) -> bool:
        """Whether its last day is over."""
        return today > self.until

    @property
    def label(self) -> str:
        """What it is for and where it stands: `the waiver of llm-* (ttft), baselines/...toml`."""
        narrower = ", ".join(part for part in (self.metric, self.engine) if part)
        return f"the waiver of {self.test}{f' ({narrower})' if narrower else ''} in {self.file}"

    @property
    def text(self) -> str:
        """What stands beside a verdict."""
        return f"waived until {self.until} by {self.owner}: {self.reason}"

    @property
    def expiry(self) -> str:
        """The failure of a test that it was for."""
        return (
            f"{self.label} expired on {self.until}: {self.owner}, {self.reason};"
            f" remove or renew it in {self.file}"
        )


def of_marker(values: object) -> Waiver:
    """The waiver of a marker; OptionError says what is missing, unknown or not understood."""
    if not isinstance(values, Mapping):
        raise OptionError(
            f"perf marker: waiver={values!r}; expected like {{'reason': 'slower until the kernel"
            " lands', 'owner': 'ana', 'until': '2026-12-31'}"
        )
    return _waiver(values, _OF_MARKER, "perf marker: waiver")


def read_all(folders: Iterable[Path]) -> list[Waiver]:
    """The waivers of all folders; OptionError names file and entry of what cannot be used."""
    found: dict[tuple[object, ...], tuple[Waiver, str]] = {}
    for path in dict.fromkeys(folder / FILE for folder in folders):
        for number, values in enumerate(_tables(path), start=1):
            place = f"{shown(path)}, waiver {number}"
            waiver = replace(_waiver(values, _OF_FILE, place), file=shown(path))
            key = (waiver.test, waiver.metrics, waiver.engine)
            if key in found:
                raise OptionError(f"{place}: is for the same as {found[key][1]}; remove one")
            found[key] = waiver, place
    return [waiver for waiver, _ in found.values()]


def _tables(path: Path) -> list[object]:
    """What stands under [[waiver]]; nothing where there is no file."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise OptionError(f"{shown(path)}: cannot read the waivers: {problem}") from None
    tables = document.get("waiver", [])
    unknown = ", ".join(sorted(document.keys() - {"waiver"}))
    if unknown or not isinstance(tables, list):
        found = f"found {unknown}" if unknown else "found one table"
        raise OptionError(f"{shown(path)}: expected [[waiver]] entries and nothing else; {found}")
    return tables


def _waiver(values: object, known: Sequence[str], place: str) -> Waiver:
    if not isinstance(values, Mapping):
        raise OptionError(f"{place}: {values!r} is no table; expected [[waiver]]")
    unknown = sorted(map(str, values.keys() - set(known)))
    if unknown:
        raise OptionError(f"{place}: unknown {', '.join(unknown)}; known: {', '.join(known)}")
    required = [name for name in known if name in ("test", *_REQUIRED)]
    missing = [name for name in required if name not in values]
    if missing:
        raise OptionError(f"{place}: {', '.join(missing)} is missing; a waiver needs"
                          f" {', '.join(required)}")  # fmt: skip
    texts = {n: _text(v, n, place) for n, v in values.items() if n != "until"}
    metrics = _metrics(texts["metric"], place) if "metric" in texts else frozenset(METRICS)
    return Waiver(**texts, metrics=metrics, until=_day(values["until"], place))


def _text(value: object, name: str, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise OptionError(f"{place}: {name} is {value!r}; expected a text that is not empty")
    return value.strip() if name == "test" else " ".join(value.split())


def _metrics(selector: str, place: str) -> frozenset[str]:
    try:
        found = matching(selector)
    except OptionError as problem:
        raise OptionError(f"{place}: {problem}") from None
    if not any(of.gated for of in found):
        raise OptionError(f"{place}: {selector!r} is shown and never judged: nothing to waive")
    return frozenset(of.id for of in found)


def _day(value: object, place: str) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value.strip()):
            return date.fromisoformat(value.strip())
    except ValueError:
        pass  # the 31st of February
    raise OptionError(f"{place}: until is {value!r}; expected the last day, like 2026-12-31")


def waived(result: Result, waivers: Sequence[Waiver], today: date, *, strict: bool) -> Result:
    """The result with the waivers of its test taken in; of several the first decides.

    strict: UNSURE, NEW, FOREIGN and GONE would fail too.
    """
    valid = [waiver for waiver in waivers if not waiver.expired(today)]
    return replace(
        result,
        rows=tuple(_excused(row, valid, strict) for row in result.rows),
        waivers={w.label: needed for w in valid if (needed := _needed(w, result)) is not None},
        expired=tuple(waiver.expiry for waiver in waivers if waiver.expired(today)),
    )


def _excused(row: Row, waivers: Sequence[Waiver], strict: bool) -> Row:
    text = next((waiver.text for waiver in waivers if waiver.is_for(row)), "")
    return replace(row, waiver=text if fails(row.verdict, strict=strict, accepting=False) else "")


def _needed(waiver: Waiver, result: Result) -> bool | None:
    """Unless all figures that it is for are SAME or BETTER; None where there is no such figure."""
    found = {row.verdict for row in result.rows if waiver.is_for(row)} - {Verdict.SHOWN}
    return bool(found - {Verdict.SAME, Verdict.BETTER}) if found else None


def idle(waivers: Sequence[Waiver], tests: Iterable[tuple[Collection[str], str]]) -> list[int]:
    """The places in the list of waivers that are for none of these (names, engine)."""
    known = list(tests)
    return [
        place for place, waiver in enumerate(waivers)
        if not any(waiver.covers(names, engine) for names, engine in known)
    ]  # fmt: skip


def of_gone(waivers: Sequence[Waiver], key: str, test: str, today: date) -> Waiver | None:
    """The valid waiver of a stored key whose test, once in that file, is no longer there."""
    parts = key.split(" | ")
    engine = parts[1] if len(parts) == 4 else ""
    names = {parts[0], key.rpartition(" | ")[0]}  # a test's own name may hold the separator
    names |= {f"{test}::{name}" for name in names}
    whole = [w for w in waivers if not w.metric and not w.expired(today)]
    return next((waiver for waiver in whole if waiver.covers(names, engine)), None)
