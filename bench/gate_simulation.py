"""Are the stated error rates held? Machines with known noise, judged by perfsuite's own formulas.

    python bench/gate_simulation.py [--quick] [--only WORDS] [--seed N]

Prints two markdown tables; docs/gate-simulation.md holds those of the last run and says what is
simulated. One core, about ten minutes; --quick takes a tenth of the runs.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from itertools import islice

import numpy as np
from numpy.random import Generator
from scipy.interpolate import RectBivariateSpline
from scipy.special import ndtri, stdtrit
from scipy.stats import beta

from perfsuite import calibration, statistics
from perfsuite.statistics import ALARMS, CONFIDENCE, LOOKS, PAIR_LOOKS, POWER, Spread
from perfsuite.verdict import Verdict, judge

RUNS = 10_000
PROCESSES = 5  # of one look
PAIRS = tuple(round(8 * part / PAIR_LOOKS[0]) for part in PAIR_LOOKS)
BLOCKS = 9
LOSSES = (1.02, 1.05, 1.10)
OPEN, SAME, BETTER, WORSE = range(4)

Draw = Callable[[Generator, tuple[int, ...]], np.ndarray]


def normal(rng: Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The session effect that the formulas assume."""
    return rng.standard_normal(shape)


def heavy(rng: Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Student's t with 4 degrees of freedom, scaled to a standard deviation of 1."""
    return rng.standard_t(4, shape) / math.sqrt(2)


def two_states(rng: Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A machine that is slow in one of ten sessions; its standard deviation is 1."""
    return (rng.random(shape) < 0.1) / 0.3


@dataclass(frozen=True)
class Noise:
    """A machine: relative standard deviations of what its levels are made of."""

    common: float = 0.02  # what a session does to all figures
    own: float = 0.01  # and to each of them
    process: float = 0.01
    block: float = 0.02
    group: float = 0.0  # what a session does to the figures of one of four groups
    unequal: float = 0.0  # standard deviation of the logarithm of a figure's own noise
    within: float = 0.0  # step of the machine's random walk from process to process
    between: float = 0.0  # and from session to session
    effect: Draw = normal  # the distribution of a session's effects

    def scales(self, rng: Generator, figures: int) -> np.ndarray:
        """How many times as noisy as the others each figure is, beside the common effect."""
        return np.exp(self.unequal * rng.standard_normal((1, figures, 1)))

    def sessions(
        self, rng: Generator, scales: np.ndarray, count: int, processes: int
    ) -> np.ndarray:
        """Logarithms of the processes' medians: (session, figure, process)."""
        figures = scales.shape[1]
        own = self.own * self.effect(rng, (count, figures, 1))
        process = self.process * rng.standard_normal((count, figures, processes))
        levels = scales * (own + process + self.block * medians(rng, process.shape))
        levels += self.common * self.effect(rng, (count, 1, 1))
        levels += self.group * self.effect(rng, (count, 4, 1))[:, np.arange(figures) % 4]
        return levels + self.within * np.cumsum(rng.standard_normal((count, 1, processes)), axis=2)


def medians(rng: Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Medians of `BLOCKS` standard normal values: the middle one of uniform values is beta."""
    return ndtri(rng.beta((BLOCKS + 1) / 2, (BLOCKS + 1) / 2, shape))


@dataclass(frozen=True)
class Case:
    """What is simulated: `heads` runs are judged by each calibration."""

    name: str
    figures: int
    noise: Noise = field(default_factory=Noise)
    sessions: int = 10  # of the calibration; 0: head and base in pairs
    one_session: bool = False  # the baseline is a session of its own, not the calibration's
    probes: int = 0  # of the machine, by one of which each figure may be corrected
    promised: bool = True

    @property
    def heads(self) -> int:
        """The spreads of many figures cost time: they serve ten runs."""
        return 10 if self.sessions and self.figures > 20 else 1


@dataclass(frozen=True)
class Judged:
    """Log ratios of (run, look, figure) and what each is held against."""

    ratios: np.ndarray
    margins: np.ndarray
    halves: np.ndarray  # from the estimate to the bound of its interval
    errors: np.ndarray

    def verdicts(self, limit: float, loss: float = 1.0) -> np.ndarray:
        """Of each figure the verdict at the first look that is not UNSURE: (run, figure)."""
        ratios, wide = self.ratios + math.log(loss), math.log(limit)
        high = ratios + self.halves
        each = np.select(
            [ratios > np.maximum(self.margins, wide), high < -wide, high <= wide],
            [WORSE, BETTER, SAME],
            OPEN,
        )
        first = np.argmax(each != OPEN, axis=1, keepdims=True)
        return np.take_along_axis(each, first, axis=1)[:, 0]

    def found_at_detectable(self) -> np.ndarray:
        """Share of the figures that the first look finds at the loss that it says it sees."""
        return (self.ratios[:, 0] + float(ndtri(POWER)) * self.errors[:, 0] > 0).mean(axis=1)

    def counts(self) -> dict[str, np.ndarray]:
        """What the tables show, one number for each run."""
        shown = {
            f"alarm {limit}": (self.verdicts(limit) == WORSE).any(axis=1) for limit in (1.0, 1.05)
        }
        for loss in LOSSES:
            shown[f"worse {loss}"] = (self.verdicts(1.0, loss) == WORSE).mean(axis=1)
            found = self.verdicts(1.05, loss)
            shown[f"limited {loss}"] = (found == WORSE).mean(axis=1)
            shown[f"same {loss}"] = (found == SAME).mean(axis=1)
        return {**shown, "sees": self.found_at_detectable()}


class Margins:
    """`statistics._margin` for arrays, by splines over the ratio of the two effects and freedom."""

    RATIOS = np.log(np.geomspace(1e-2, 300.0, 56))
    FREEDOMS = np.log(np.geomspace(1.0, 60.0, 32))

    def __init__(self, sessions: int, figures: int, *, probed: bool) -> None:
        self._freedom = sessions - 1
        self._run = ALARMS / (statistics._PROBE_CHOICES if probed else 1)
        looks = range(len(LOOKS))
        self.parts = [statistics.spent(self._run / figures, LOOKS, look) for look in looks]
        self._splines = [self._spline(part) for part in self.parts] if figures >= 5 else []
        self._check()

    def _exact(self, ratio: float, freedom: float, part: float) -> float:
        return math.log(statistics._margin(ratio, freedom, 1.0, self._freedom, part, self._run))

    def _spline(self, part: float) -> RectBivariateSpline:
        table = [
            [self._exact(math.exp(r), math.exp(f), part) for f in self.FREEDOMS]
            for r in self.RATIOS
        ]
        return RectBivariateSpline(self.RATIOS, self.FREEDOMS, np.array(table))

    def _check(self) -> None:
        rng = np.random.default_rng(0)
        for look, part in enumerate(self.parts if self._splines else []):
            ratios, freedoms = np.exp(rng.uniform(-3, 5, 60)), np.exp(rng.uniform(0.7, 4.0, 60))
            logs = [self._exact(r, f, part) for r, f in zip(ratios, freedoms, strict=True)]
            found = self(look, ratios, freedoms, np.ones(60))
            assert np.max(np.abs(found / np.exp(logs) - 1)) < 3e-3, "the splines are too coarse"

    def __call__(
        self, look: int, own: np.ndarray, freedom: np.ndarray, common: np.ndarray
    ) -> np.ndarray:
        """The margins of all figures at one look."""
        alone = stdtrit(freedom, 1 - self.parts[look]) * own
        if not self._splines:
            return alone
        ratios = np.log(own / np.maximum(common, 1e-12))
        inside = np.clip(ratios, self.RATIOS[0], self.RATIOS[-1])
        both = np.exp(self._splines[look].ev(inside, np.log(freedom))) * common
        return np.where(ratios > self.RATIOS[-1], alone, both)


margins_of = cache(Margins)  # building the splines takes seconds


def stored(case: Case, rng: Generator, runs: int) -> Iterator[Judged]:
    """Runs against a stored baseline, those of one calibration after the other."""
    for number in range(runs // case.heads):
        scales = case.noise.scales(rng, case.figures)
        scales = np.append(scales, np.ones((1, case.probes, 1)), axis=1)
        walk = case.noise.between * np.cumsum(rng.standard_normal(case.sessions + 10))
        known = case.noise.sessions(rng, scales, case.sessions, PROCESSES)
        known += walk[: case.sessions, None, None]
        far = case.sessions + (np.arange(case.heads) + number) % 10  # of 1 to 10 sessions later
        heads = case.noise.sessions(rng, scales, case.heads, PROCESSES * len(LOOKS))
        heads += walk[far, None, None]
        base = known[None]
        if case.one_session:
            base = case.noise.sessions(rng, scales, case.heads, PROCESSES)[:, None]
            base = base + walk[case.sessions - 1]
        probes = chosen_probes(known, case.figures)
        spreads = spreads_of(known, probes)
        heads, base = (less(of, probes) for of in (heads, base))
        judged = compared(heads, base, spreads)
        if number < 20:
            check(judged, heads, base, spreads, rng)
        yield judged


def chosen_probes(known: np.ndarray, figures: int) -> np.ndarray:
    """The place of the probe that takes most of a figure's variance away, if that is over half.

    Probes come after the figures: as times, so that a slow machine raises both. -1 is none.
    """
    levels = known.mean(axis=2)
    ways = [levels[:, :figures]]
    ways += [ways[0] - levels[:, [probe]] for probe in range(figures, levels.shape[1])]
    left = np.stack([way.var(axis=0) for way in ways])
    left[0] *= calibration._WORTH_CORRECTING
    best = left.argmin(axis=0)
    return np.where(best, figures - 1 + best, -1)


def less(logs: np.ndarray, probes: np.ndarray) -> np.ndarray:
    """The figures without what their probes saw of the machine."""
    figures = logs[..., : len(probes), :]
    return figures - np.where(probes[:, None] < 0, 0.0, logs[..., probes, :])


def spreads_of(known: np.ndarray, probes: np.ndarray) -> list[Spread]:
    """As `calibration.calibrate` has them: of all figures corrected alike, for each probe."""
    found = {}
    for probe in sorted(set(probes.tolist())):
        logs = less(known, np.full(len(probes), probe))
        of = {str(n): rows.tolist() for n, rows in enumerate(np.exp(logs).transpose(1, 0, 2))}
        family = list(statistics.spreads(of).values())
        title = "" if probe < 0 else "probe"
        found |= {n: replace(family[n], probe=title) for n in np.flatnonzero(probes == probe)}
    return [found[n] for n in range(len(probes))]


def compared(heads: np.ndarray, base: np.ndarray, spreads: Sequence[Spread]) -> Judged:
    """`statistics.compare` for all figures; base is (run or one, session, figure, process)."""
    shape = (len(heads), len(LOOKS), len(spreads))
    found = Judged(*(np.empty(shape) for _ in fields(Judged)))
    levels = base.mean(axis=(1, 3))
    for look in range(len(LOOKS)):
        processes = PROCESSES * (look + 1)
        found.ratios[:, look] = heads[:, :, :processes].mean(axis=2) - levels
    for probed in (False, True):
        chosen = [n for n, spread in enumerate(spreads) if bool(spread.probe) is probed]
        if chosen:
            margins = margins_of(spreads[0].sessions, len(spreads), probed=probed)
            _hold_against(found, [spreads[n] for n in chosen], chosen, base.shape[1], margins)
    return found


def _hold_against(
    found: Judged, spreads: Sequence[Spread], chosen: list[int], base: int, margins: Margins
) -> None:
    """Set what these figures are held against; base is its number of sessions."""
    common = np.array([s.common for s in spreads]) * math.sqrt(1 + 1 / base)
    for look, part in enumerate(margins.parts):
        counts = [PROCESSES * (look + 1), PROCESSES * base]
        own = [statistics._own_variance(s, counts, [1, base], part) for s in spreads]
        variance, freedom = np.array(own).T
        error = np.sqrt(variance + common**2)
        found.margins[:, look, chosen] = margins(look, np.sqrt(variance), freedom, common)
        found.halves[:, look, chosen] = stdtrit(spreads[0].sessions - 1, CONFIDENCE) * error
        found.errors[:, look, chosen] = error


def check(
    judged: Judged, heads: np.ndarray, base: np.ndarray, spreads: Sequence[Spread], rng: Generator
) -> None:
    """One figure of one run as the gate itself judges it, at a loss that is near its margin."""
    run, figure = rng.integers(len(heads)), rng.integers(len(spreads))
    sessions = np.exp(base[run % len(base)][:, figure]).tolist()
    for look in range(len(LOOKS)):
        margin = judged.margins[run, look, figure]
        shift = margin - judged.ratios[run, look, figure] + rng.choice((-3e-3, 3e-3)) * margin
        target = np.exp(heads[run, figure, : PROCESSES * (look + 1)] + shift).tolist()
        part = ALARMS / len(spreads)
        found = statistics.compare([target], sessions, spreads[figure], part, look)
        said = judge(found, 1.0).verdict is Verdict.WORSE
        reached = judged.ratios[run, look, figure] + shift > max(margin, 0.0)
        assert said == reached, (found, margin)


def in_pairs(case: Case, rng: Generator, runs: int) -> Iterator[Judged]:
    """Runs at head and base in turn: `statistics.compare_pairs` for all figures."""
    chunk = max(1, min(50, 2000 // case.figures))
    for _ in range(0, runs, chunk):
        scales = case.noise.scales(rng, case.figures)
        shape = (chunk, case.figures, PAIRS[-1])
        process = case.noise.process * (
            case.noise.effect(rng, shape) - case.noise.effect(rng, shape)
        )
        block = case.noise.block * math.sqrt(2) * medians(rng, shape)
        order = rng.choice(
            (-1, 1), (chunk, 1, PAIRS[-1])
        )  # who was first, as the machine walked on
        walk = case.noise.within * order * rng.standard_normal((chunk, 1, PAIRS[-1]))
        logs = scales * (process + block) + walk
        judged = paired(logs, case.figures)
        check_pairs(judged, logs, rng)
        yield judged


def paired(logs: np.ndarray, figures: int) -> Judged:
    """The looks at pairs: logs are (run, figure, pair)."""
    ratios, margins, halves, errors = [], [], [], []
    for look, count in enumerate(PAIRS):
        seen = logs[:, :, :count]
        error = seen.std(axis=2, ddof=1) / math.sqrt(count)
        part = statistics.spent(ALARMS / figures, PAIR_LOOKS, look)
        ratios.append(seen.mean(axis=2))
        margins.append(stdtrit(count - 1, 1 - part) * error)
        halves.append(stdtrit(count - 1, CONFIDENCE) * error)
        errors.append(error)
    return Judged(*(np.stack(of, axis=1) for of in (ratios, margins, halves, errors)))


def check_pairs(judged: Judged, logs: np.ndarray, rng: Generator) -> None:
    """One figure of one run as the gate itself judges it."""
    run, figure, look = (rng.integers(count) for count in (*logs.shape[:2], len(PAIRS)))
    part = ALARMS / logs.shape[1]
    found = statistics.compare_pairs(logs[run, figure, : PAIRS[look]].tolist(), part, look)
    assert math.isclose(found.margin, judged.margins[run, look, figure], rel_tol=1e-6)
    assert math.isclose(math.log(found.ratio.estimate), judged.ratios[run, look, figure])


@dataclass(frozen=True)
class Rate:
    """A share of runs with its exact (Clopper-Pearson) bounds, in per cent.

    Runs that share a calibration share its luck. Where they do, the bounds are those of as many
    independent runs as have the same variance.
    """

    share: float
    low: float
    high: float

    @staticmethod
    def of(clusters: np.ndarray) -> Rate:
        """From shares of (calibration, run)."""
        share, runs = float(clusters.mean()), clusters.size
        binomial = share * (1 - share)
        if clusters.shape[1] > 1 and binomial:
            runs /= max(float(clusters.mean(axis=1).var()) * clusters.shape[1] / binomial, 1.0)
        hits = share * runs
        low = float(beta.ppf(0.025, hits, runs - hits + 1)) if hits else 0.0
        high = float(beta.ppf(0.975, hits + 1, runs - hits)) if hits < runs else 1.0
        return Rate(100 * share, 100 * low, 100 * high)

    def __str__(self) -> str:
        return f"{self.share:.2f} [{self.low:.2f}, {self.high:.2f}]"


def gathered(judged: Iterator[Judged], size: int) -> Iterator[Judged]:
    """As many at a time together, which takes less time."""
    while some := list(islice(judged, size)):
        yield Judged(*(
            np.concatenate([getattr(of, name.name) for of in some]) for name in fields(Judged)
        ))  # fmt: skip


def simulated(case: Case, rng: Generator, runs: int) -> dict[str, np.ndarray]:
    """Everything that was counted, as (calibration, run)."""
    judged = (stored if case.sessions else in_pairs)(case, rng, runs)
    counted = [of.counts() for of in gathered(judged, max(1, 5000 // case.figures))]
    return {
        name: np.concatenate([of[name] for of in counted]).reshape(-1, case.heads)
        for name in counted[0]
    }


UNEQUAL = Noise(unequal=0.5)
FAMILIES: dict[str, Noise] = {
    "equal spreads": Noise(),
    "unequal spreads": UNEQUAL,
    "common session effect only": Noise(own=0.0, unequal=0.5),
    "own session effects only": Noise(common=0.0, own=0.02, unequal=0.5),
    "processes noisier than sessions": Noise(common=0.005, own=0.002, process=0.03, unequal=0.5),
    "four kinds of figures": Noise(group=0.01, own=0.005, unequal=0.5),
    "drift within sessions": Noise(unequal=0.5, within=0.003),
    "each session 0.5 % away from the last": Noise(unequal=0.5, between=0.005),
}
STRESS: dict[str, Noise] = {
    "each session 1 % away from the last": Noise(unequal=0.5, between=0.01),
    "session effects of t, 4 df": Noise(unequal=0.5, effect=heavy),
    "two machine states, 1 in 10 slow": Noise(unequal=0.5, effect=two_states),
}


def cases() -> Iterator[Case]:
    """All that is simulated, in the order of the tables."""
    for figures in (1, 5, 200):
        for name, noise in FAMILIES.items():
            if figures == 200 or name not in ("equal spreads", "common session effect only"):
                yield Case(name, figures, noise)
        yield Case("unequal, 6 sessions", figures, UNEQUAL, sessions=6)
        yield Case("unequal, baseline of 1 session", figures, UNEQUAL, one_session=True)
        yield Case("unequal, probe chosen of 3", figures, UNEQUAL, probes=3)
        for name, noise in STRESS.items():
            yield Case(name, figures, noise, promised=False)
    for figures in (1, 200):
        yield Case("pairs", figures, UNEQUAL, sessions=0)
        yield Case("pairs, drift", figures, Noise(unequal=0.5, within=0.003), sessions=0)
        for name, draw in (("t, 4 df", heavy), ("two states", two_states)):
            noise = Noise(unequal=0.5, process=0.02, effect=draw)
            yield Case(f"pairs, processes of {name}", figures, noise, sessions=0, promised=False)


def error_row(case: Case, found: Mapping[str, np.ndarray]) -> list[str]:
    """Case, figures, runs, alarms at ratio 1, whether they are held."""
    strict, usual = (Rate.of(found[f"alarm {limit}"]) for limit in (1.0, 1.05))
    held = "yes" if strict.low <= 100 * ALARMS else "**no**"
    runs = "x".join(str(n) for n in found["alarm 1.0"].shape if n > 1)
    return [case.name, str(case.figures), runs, str(strict), str(usual),
            held if case.promised else f"{held} (stress)"]  # fmt: skip


def power_row(case: Case, found: Mapping[str, np.ndarray]) -> list[str]:
    """Case, figures, and shares of the figures in per cent."""
    names = [*(f"worse {loss}" for loss in LOSSES), "limited 1.1", "same 1.05", "same 1.1", "sees"]
    return [case.name, str(case.figures), *(f"{100 * found[name].mean():.2f}" for name in names)]


ERRORS = ["case", "figures", "runs", "alarms, limit 1.00, %", "alarms, limit 1.05, %", "held"]
POWERS = ["case", "figures", "+2 %", "+5 %", "+10 %", "+10 %, limit 1.05",
          "SAME at +5 %, limit 1.05", "SAME at +10 %, limit 1.05", "found at `sees`"]  # fmt: skip


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs")
    parser.add_argument("--only", default="", help="cases whose name holds these words")
    parser.add_argument("--figures", type=int, help="cases of so many figures")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    runs = RUNS // 10 if given.quick else RUNS
    errors, powers, start = [], [], time.perf_counter()
    for number, case in enumerate(cases()):
        if given.only in case.name and given.figures in (None, case.figures):
            found = simulated(case, np.random.default_rng([given.seed, number]), runs)
            errors.append(error_row(case, found))
            powers.append(power_row(case, found))
            print(f"{time.perf_counter() - start:6.0f} s  {' | '.join(errors[-1])}", flush=True)
    print("", markdown(ERRORS, errors), "", markdown(POWERS, powers), sep="\n")


if __name__ == "__main__":
    main()
