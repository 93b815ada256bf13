"""Records to figures, against values worked out by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from perfsuite.metrics import METRICS, refusal
from perfsuite.serving.figures import (
    Objectives,
    enough,
    figures,
    keeps,
    percentile,
    time_per_token,
    token_gaps,
)
from perfsuite.serving.request import Record, Request

Make = Callable[..., Record]


@pytest.mark.parametrize(("share", "samples"), [(0.5, 7), (0.9, 44), (0.95, 90), (0.99, 459)])
def test_a_percentile_needs_loadgens_number_of_samples(share: float, samples: int) -> None:
    """At 99 % confidence without exceedance."""
    assert enough(share) == samples
    assert share**samples <= 0.01 < share ** (samples - 1)


def test_a_percentile_is_loadgens() -> None:
    """sorted[int(n * share)]: of 1 to 1000 the 991st."""
    values = list(range(1, 1001))
    random.Random(1).shuffle(values)
    assert percentile(values, 0.99) == 991
    assert percentile(values, 0.5) == 501


def spread_out(make_record: Make, count: int) -> list[Record]:
    """Requests due a second apart; the k-th takes k ms longer to its first token."""
    return [
        make_record(
            request=Request(k, (1, 2, 3), 4),
            intended_s=10.0 + k,
            sent_s=10.002 + k,
            token_s=[(10.05 + k + k / 1000 + t / 100, t + 1) for t in range(4)],
            finished_s=10.2 + k + k / 1000,
        )
        for k in range(count)
    ]


def test_figures_of_a_run(make_record: Make) -> None:
    """Ten requests: throughputs over the whole run, medians, nothing that needs 459."""
    found = figures(spread_out(make_record, 10), low_load=True)
    seconds = 9 + 0.2 + 0.009
    expected = {
        "request_throughput/whole_run": 10 / seconds,
        "output_throughput/whole_run": 40 / seconds,
        "input_throughput/whole_run": 30 / seconds,
        "served_time_to_first_token/from_due_median": 0.055,
        "served_time_to_first_token/from_sent_median": 0.053,
        "served_time_to_first_token/low_load_median": 0.053,
        "end_to_end_latency/from_due_median": 0.085,
        "end_to_end_latency/from_sent_median": 0.083,
        "served_time_per_output_token/excluding_first_event_median": 0.01,
        "served_inter_token_latency/per_token_median": 0.01,
        "queue_time/on_the_client_median": 0.002,
        "failed_requests/all": 0,
    }
    assert found.values == pytest.approx(expected)
    assert set(found.absent) == {
        "served_time_to_first_token/from_due_p99",
        "served_time_to_first_token/from_sent_p99",
        "end_to_end_latency/from_due_p99",
        "end_to_end_latency/from_sent_p99",
        "served_time_per_output_token/excluding_first_event_p99",
        "served_inter_token_latency/per_token_p99",
        "queue_time/on_the_client_p99",
    }
    assert set(found.absent.values()) == {"10 samples, p99 needs 459"}
    assert found.failures == {}
    assert found.other_length == 0


def test_every_figure_is_a_metric(make_record: Make) -> None:
    """With a definition, and a value that it does not refuse."""
    found = figures(spread_out(make_record, 460), Objectives(whole_s=9.0), low_load=True)
    assert found.absent == {}
    for metric_id, value in found.values.items():
        assert refusal(METRICS[metric_id], value) is None


def test_what_is_judged(make_record: Make) -> None:
    """Output throughput, the median TPOT, the median TTFT at low load, and failures."""
    found = figures(spread_out(make_record, 460), Objectives(whole_s=9.0), low_load=True)
    assert {metric_id for metric_id in found.values if METRICS[metric_id].gated} == {
        "output_throughput/whole_run",
        "served_time_per_output_token/excluding_first_event_median",
        "served_time_to_first_token/low_load_median",
        "failed_requests/all",
    }


@pytest.mark.parametrize(("count", "there"), [(6, False), (7, True)])
def test_a_median_of_a_handful_is_absent(make_record: Make, count: int, there: bool) -> None:
    """Six samples say nothing at 99 %."""
    found = figures(spread_out(make_record, count))
    assert ("served_time_to_first_token/from_due_median" in found.values) is there


@pytest.mark.parametrize(("count", "there"), [(458, False), (459, True)])
def test_a_p99_needs_459(make_record: Make, count: int, there: bool) -> None:
    """And is then there."""
    found = figures(spread_out(make_record, count))
    assert ("end_to_end_latency/from_due_p99" in found.values) is there


@pytest.mark.parametrize(("late", "there"), [(2, True), (3, False), (500, False)])
def test_a_p99_that_may_be_the_clients_is_withheld(
    make_record: Make, late: int, there: bool
) -> None:
    """Five of 500 lie beyond it: three that the client sent late may be most of them."""
    records = spread_out(make_record, 500)
    for record in records[:late]:
        record.sent_s += 0.04
    found = figures(records)
    for name in ("served_time_to_first_token/from_due", "end_to_end_latency/from_sent"):
        assert (f"{name}_p99" in found.values) is there
        assert f"{name}_median" in found.values
    assert "queue_time/on_the_client_p99" in found.values


def test_many_tokens_of_few_requests_are_few_samples(make_record: Make) -> None:
    """Gaps of one answer are not independent: five answers of 1,000 tokens have no p99."""
    tokens = [(10.0 + t / 100, t + 1) for t in range(1000)]
    found = figures([make_record(token_s=tokens, output_tokens=1000)] * 5)
    assert found.absent["served_inter_token_latency/per_token_p99"] == "5 samples, p99 needs 459"


def test_a_server_that_drops_the_slow_ones_does_not_look_fast(make_record: Make) -> None:
    """Failures are infinite: with half of the requests failed there is no median."""
    good = [make_record() for _ in range(10)]
    soon = [(10.01, 1)]  # and then nothing
    bad = [make_record(failure="early end: full", token_s=soon, output_tokens=None)] * 10
    found = figures(good + bad)
    assert found.failures == {"early end": 10}
    assert found.values["failed_requests/all"] == 10
    assert (
        found.absent["served_time_to_first_token/from_due_median"]
        == "median is a request that failed"
    )
    assert found.values.keys() == {"failed_requests/all", "request_throughput/whole_run",
                                   "output_throughput/whole_run", "input_throughput/whole_run",
                                   "served_inter_token_latency/per_token_median",
                                   "queue_time/on_the_client_median"}  # fmt: skip
    assert figures(good + bad[:9]).values["served_time_to_first_token/from_due_median"] == (
        pytest.approx(0.05)
    )


def test_tokens_of_a_failed_request_are_no_throughput(make_record: Make) -> None:
    """It was not answered to its end."""
    records = [make_record(), make_record(failure="early end: cut", output_tokens=3)]
    found = figures(records)
    assert found.values["output_throughput/whole_run"] == pytest.approx(4 / 0.081)
    assert found.values["request_throughput/whole_run"] == pytest.approx(1 / 0.081)


def test_failures_are_counted_by_kind(make_record: Make) -> None:
    """The detail is for people."""
    kinds = ["connection: a", "connection: b", "http 429: slow down", ""]
    found = figures([make_record(failure=kind) for kind in kinds])
    assert found.failures == {"connection": 2, "http 429": 1}


def test_an_event_is_not_a_token(make_record: Make) -> None:
    """Four tokens that came in two events have four tokens' gaps, not two."""
    record = make_record(token_s=[(10.0, 1), (10.3, 4)], output_tokens=4)
    assert time_per_token(record) == pytest.approx(0.1)
    assert token_gaps(record) == pytest.approx([0.1, 0.1, 0.1])


def test_a_first_event_of_several_tokens(make_record: Make) -> None:
    """Only those behind it took the time after it."""
    record = make_record(token_s=[(10.0, 3), (10.2, 5)], output_tokens=5)
    assert time_per_token(record) == pytest.approx(0.1)
    assert token_gaps(record) == pytest.approx([0.1, 0.1])


def test_counts_only_at_the_end_give_tpot_and_no_itl(make_record: Make) -> None:
    """Events are not counted as tokens: 11 tokens in three events."""
    record = make_record(token_s=[(10.0, None), (10.5, None), (11.0, None)], output_tokens=11)
    assert time_per_token(record) == pytest.approx(0.1)
    found = figures([record] * 8)
    assert found.values[
        "served_time_per_output_token/excluding_first_event_median"
    ] == pytest.approx(0.1)
    assert found.absent["served_inter_token_latency/per_token_median"] == (
        "8 of 8 answers do not say how many tokens an event has"
    )


def test_a_missing_usage_is_not_zero_tokens(make_record: Make) -> None:
    """One answer without a count, and no figure that needs counts is there."""
    unknown = make_record(
        output_tokens=None, input_tokens=None, token_s=[(10.1, None), (10.2, None)]
    )
    found = figures([make_record() for _ in range(9)] + [unknown])
    for name in (
        "output_throughput/whole_run",
        "served_time_per_output_token/excluding_first_event_median",
    ):
        assert found.absent[name] == "1 of 10 answers have no usage"
        assert name not in found.values
    assert "served_time_to_first_token/from_due_median" in found.values
    assert found.values["request_throughput/whole_run"] > 0


def test_one_token_has_no_time_per_token(make_record: Make) -> None:
    """It is left out, and not counted as 0."""
    one = make_record(token_s=[(10.05, 1)], output_tokens=1)
    assert time_per_token(one) is None
    assert token_gaps(one) == []
    found = figures([one] * 8 + [make_record() for _ in range(7)])
    assert found.values[
        "served_time_per_output_token/excluding_first_event_median"
    ] == pytest.approx(0.01)
    assert figures([one] * 8).absent[
        "served_time_per_output_token/excluding_first_event_median"
    ] == ("0 samples, median needs 7")


def test_answers_of_another_length_are_counted(make_record: Make) -> None:
    """Shorter ones would raise a throughput."""
    assert figures([make_record(output_tokens=3), make_record()]).other_length == 1


def test_goodput_counts_what_kept_every_objective(make_record: Make) -> None:
    """From the moment a request was due; per second of the whole run."""
    slow = make_record(token_s=[(10.4, 1), (10.41, 2), (10.42, 3), (10.43, 4)], finished_s=11.0)
    records = [make_record(), slow]
    both, first = Objectives(whole_s=1.0), Objectives(first_token_s=0.1)
    assert figures(records, both).values["goodput/all_objectives"] == pytest.approx(2.0)
    assert figures(records, first).values["goodput/all_objectives"] == pytest.approx(1.0)
    none = figures(records, Objectives(first_token_s=0.01))
    assert none.absent["goodput/all_objectives"] == "no request kept the objectives"


def test_each_objective_counts(make_record: Make) -> None:
    """TTFT and the whole from due, and the time per token."""
    record = make_record()  # 50 ms, 10 ms, 80 ms
    assert keeps(record, Objectives())
    assert keeps(record, Objectives(first_token_s=0.051, per_token_s=0.011, whole_s=0.081))
    assert not keeps(record, Objectives(first_token_s=0.049))
    assert not keeps(record, Objectives(per_token_s=0.009))
    assert not keeps(record, Objectives(whole_s=0.079))


def test_what_failed_or_is_not_known_keeps_nothing(make_record: Make) -> None:
    """A count that is missing is no time per token of 0; a single token has none to keep."""
    assert not keeps(make_record(failure="error: no"), Objectives())
    assert not keeps(make_record(token_s=[]), Objectives())
    unknown = make_record(output_tokens=None)
    assert keeps(unknown, Objectives(whole_s=1.0))
    assert not keeps(unknown, Objectives(per_token_s=1.0))
    one = make_record(token_s=[(10.05, 1)], output_tokens=1)
    assert keeps(one, Objectives(per_token_s=0.001))


def test_nothing_answered(make_record: Make) -> None:
    """Only failures: no figure but their number, and reasons."""
    found = figures([make_record(failure="connection: refused", token_s=[])] * 10)
    assert found.values.keys() == {"failed_requests/all", "queue_time/on_the_client_median"}
    assert found.absent["request_throughput/whole_run"] == "no request was answered"
    assert figures([]).values == {}


def test_no_figure_is_infinite_or_nan(make_record: Make) -> None:
    """Whatever mixture of failures comes."""
    source = random.Random(1)
    for _ in range(300):
        records = [
            make_record(failure=source.choice(["", "", "error: x"]))
            for _ in range(source.randint(1, 40))
        ]
        assert all(map(math.isfinite, figures(records).values.values()))
