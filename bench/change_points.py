"""How often change points are false, and how soon true ones are found, on series that are made up.

    python bench/change_points.py [--series 200]

Every series has level 100 and noise of 1 %. A rate stands with its exact 95 % interval (Clopper and
Pearson). Three rules are held against each other: perfsuite's, Otava's as it comes (p 0.001), and
Otava's at perfsuite's p value, which shows what is owed to the p value alone. Needs
perfsuite[changes]; seeds are fixed, so that a run repeats the last one's tables.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from zlib import crc32

import numpy as np
from scipy.stats import binomtest
from tabulate import tabulate

from perfsuite.history.change_points import MAX_P, WINDOW, find

Rule = Callable[[Sequence[float]], list[int]]
NEAR = 2  # points by which the place of a found step may be off


def ours(values: Sequence[float]) -> list[int]:
    """What perfsuite reports."""
    return [point.index for point in find(values).points]


def otava(max_p: float) -> Rule:
    """Otava's own function with its own window."""
    from otava.analysis import compute_change_points

    def rule(values: Sequence[float]) -> list[int]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            found, _ = compute_change_points(list(values), window_len=WINDOW, max_pvalue=max_p)
        return [int(point.index) for point in found]

    return rule


RULES: dict[str, Rule] = {
    "perfsuite": ours,
    "Otava, p 0.001": otava(0.001),
    f"Otava, p {MAX_P:g}": otava(MAX_P),
}


def normal(rng: np.random.Generator, n: int) -> np.ndarray:
    """Independent noise."""
    return rng.standard_normal(n)


def outliers(rng: np.random.Generator, n: int) -> np.ndarray:
    """One point of twenty is 20 % higher."""
    return rng.standard_normal(n) + 20.0 * (rng.random(n) < 0.05)


def heavy(rng: np.random.Generator, n: int) -> np.ndarray:
    """Student's t with 3 degrees of freedom, scaled to deviation 1."""
    return rng.standard_t(3, n) / np.sqrt(3)


def skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    """Log-normal with a long tail to the slow side, scaled to deviation 1."""
    return (np.exp(rng.standard_normal(n)) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)


def correlated(r: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Every point resembles the one before: a first-order process of correlation r."""

    def noise(rng: np.random.Generator, n: int) -> np.ndarray:
        fresh = rng.standard_normal(n)
        values = fresh.copy()
        for i in range(1, n):
            values[i] = r * values[i - 1] + np.sqrt(1 - r * r) * fresh[i]
        return values

    return noise


NOISES = {
    "normal": normal,
    "5 % outliers of +20 %": outliers,
    "t with 3 degrees": heavy,
    "log-normal": skewed,
    "correlated 0.3": correlated(0.3),
    "correlated 0.6": correlated(0.6),
}
FOLLOWED = ("normal", "5 % outliers of +20 %", "correlated 0.3")  # the others would take an hour


def generator(*words: object) -> np.random.Generator:
    """A generator of its own for each cell, the same in every run."""
    return np.random.default_rng(crc32(repr(words).encode()))


def series(noise: str, rng: np.random.Generator, shape: np.ndarray) -> list[float]:
    """A level of 100 with a shape in percent, and noise."""
    return [float(v) for v in 100 + shape + NOISES[noise](rng, len(shape))]


def share(count: int, of: int, scale: float = 100) -> str:
    """A rate with its exact 95 % interval."""
    low, high = binomtest(count, of).proportion_ci(method="exact")
    return f"{count / of * scale:.3g} [{low * scale:.3g}, {high * scale:.3g}]"


def false_at_once(many: int) -> None:
    """Series of 500 quiet points, each looked at once."""
    rows = []
    for noise in NOISES:
        counts = []
        for rule in RULES.values():
            rng = generator("at once", noise)
            found = sum(len(rule(series(noise, rng, np.zeros(500)))) for _ in range(many // 4))
            counts.append(share(found, many // 4 * 500, 1000))
        rows.append((noise, *counts))
    print(f"\nFalse change points in 1,000 quiet points, {many // 4} series of 500, each looked at"
          " once\n")  # fmt: skip
    print(tabulate(rows, ("noise", *RULES), tablefmt="github"))


def false_followed(many: int) -> None:
    """Quiet series that grow, looked at after every point; what was once reported counts."""
    rows = []
    for noise in FOLLOWED:
        counts = []
        for rule in list(RULES.values())[:2]:
            rng, alarms, points = generator("followed", noise), 0, 0
            for _ in range(many // 4):
                values, seen = series(noise, rng, np.zeros(150)), []
                points += len(values)
                for end in range(5, len(values) + 1):
                    seen += [at for at in rule(values[:end]) if not _near(at, seen, 5)]
                alarms += len(seen)
            counts.append(share(alarms, points, 1000))
        rows.append((noise, *counts))
    print(f"\nThe same with a look after every point, {many // 4} series that grow to 150\n")
    print(tabulate(rows, ("noise", *list(RULES)[:2]), tablefmt="github"))


def _near(at: int, places: Sequence[int], reach: int) -> bool:
    return any(abs(at - place) <= reach for place in places)


def found_after(rule: Rule, values: Sequence[float], step: int) -> int | None:
    """After how many points of the new level a step is found, of at most ten."""
    for points in range(1, 11):
        if _near(step, rule(values[: step + points]), NEAR):
            return points
    return None


def steps(many: int) -> None:
    """A step of 3 % at the very end: within ten points, and how soon."""
    rows = []
    for noise in NOISES:
        for before in (10, 20, 30, 50, 100):
            if noise != "normal" and before not in (30, 100):
                continue
            cells = []
            for rule in list(RULES.values())[:2]:
                rng = generator("step", noise, before)
                shape = 3.0 * (np.arange(before + 10) >= before)
                soon = [found_after(rule, series(noise, rng, shape), before) for _ in range(many)]
                hits = sorted(s for s in soon if s is not None)
                middle = str(hits[len(hits) // 2]) if hits else ""
                cells += [share(len(hits), many), middle]
            rows.append((noise, before, *cells))
    head = [word for name in list(RULES)[:2] for word in (f"{name}: found, %", "points")]
    print(f"\nA step of 3 % found within 10 points, at most {NEAR} points off, {many} series; the"
          " middle number of points that it took\n")  # fmt: skip
    print(tabulate(rows, ("noise", "points before", *head), tablefmt="github"))


def shapes(many: int) -> None:
    """What becomes of pairs of steps, slopes and stairs: series in which the answer was right."""
    x = np.arange(200)
    cases: dict[str, tuple[np.ndarray, list[int], bool]] = {
        "3 % up, 15 points later 3 % up": (3.0 * (x >= 100) + 3.0 * (x >= 115), [100, 115], False),
        "3 % up, 8 points later 3 % up": (3.0 * (x >= 100) + 3.0 * (x >= 108), [100, 108], False),
        "3 % up, 15 points later down": (3.0 * ((x >= 100) & (x < 115)), [100, 115], False),
        "3 % up, 8 points later down": (3.0 * ((x >= 100) & (x < 108)), [100, 108], False),
        "slope of 5 % over 200 points": (5.0 * x / 200, [], True),
        "ten losses of 0.5 %": (0.5 * (x // 19), [], True),
        "slope of 5 %, and a step of 5 %": (5.0 * x / 200 + 5.0 * (x >= 100), [100], True),
        "no change": (0.0 * x, [], False),
    }
    rows = []
    for name, (shape, places, drifts) in cases.items():
        right = told = extra = 0
        rng = generator("shapes", name)
        for _ in range(many):
            values = series("normal", rng, shape)
            found = find(values)
            at = [point.index for point in found.points]
            right += all(_near(place, at, NEAR) for place in places)
            extra += sum(not _near(one, places, 5) for one in at)
            told += found.drift is not None
        rows.append((name, share(right, many) if places else "", f"{extra / many:.3g}",
                     share(told, many), "yes" if drifts else "no"))  # fmt: skip
    head = ("200 points", "all steps found, %", "other points a series", "drift told, %", "drifts")
    print(f"\nShapes in normal noise, {many} series each\n")
    print(tabulate(rows, head, tablefmt="github"))


def drifts(many: int) -> None:
    """False drifts in quiet series, by noise."""
    rows = []
    for noise in NOISES:
        rng = generator("drift", noise)
        told = sum(find(series(noise, rng, np.zeros(200))).drift is not None for _ in range(many))
        rows.append((noise, share(told, many)))
    print(f"\nDrifts told in quiet series of 200 points, {many} series\n")
    print(tabulate(rows, ("noise", "told, %"), tablefmt="github"))


def speed() -> None:
    """200 series of 500 points."""
    rng = generator("speed")
    many = [series("normal", rng, np.zeros(500)) for _ in range(200)]
    find(many[0])
    began, spent = time.perf_counter(), time.process_time()
    for values in many:
        find(values)
    wall, processor = time.perf_counter() - began, time.process_time() - spent
    print(f"\n200 series of 500 points: {wall:.2f} s, {processor:.2f} s of a processor")


PARTS = {"once": false_at_once, "followed": false_followed, "steps": steps, "shapes": shapes,
         "drifts": drifts}  # fmt: skip


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--series", type=int, default=200, help="series in a cell (default: 200)")
    parser.add_argument("--parts", nargs="*", choices=[*PARTS, "speed"], default=[*PARTS, "speed"])
    asked = parser.parse_args()
    for part in asked.parts:
        speed() if part == "speed" else PARTS[part](asked.series)


if __name__ == "__main__":
    main()
