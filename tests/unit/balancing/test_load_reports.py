"""Load reports: as they are written and read, the rates in them, and what becomes of them where calls are made."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab.core.balancing.load_weight import BLACKOUT, RECOMPUTE, LoadWeight, even_out
from trimtab.core.balancing.loads import Loads
from trimtab.core.balancing.stride import StaticStride
from trimtab.core.orca import LoadReport
from trimtab.core.throughput import WINDOW, Throughput

FIELDS = {
    "cpu_utilization": 1,
    "mem_utilization": 2,
    "rps_fractional": 6,
    "eps": 7,
    "application_utilization": 9,
}


def orca_load_report() -> Any:
    """The message of xds.data.orca.v3, as far as it matters, as protobuf itself has it."""
    file = descriptor_pb2.FileDescriptorProto(name="orca.proto", package="xds.data.orca.v3", syntax="proto3")
    message = file.message_type.add(name="OrcaLoadReport")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, number in FIELDS.items():
        message.field.add(name=name, number=number, type=kinds.TYPE_DOUBLE, label=kinds.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("xds.data.orca.v3.OrcaLoadReport"))


OrcaLoadReport = orca_load_report()
figures = st.floats(0, 1e9)
reports = st.builds(LoadReport, figures, figures, figures, figures, figures)


# As Envoy's orca_parser_test has it
def test_a_report_is_told_in_text_as_envoy_reads_it() -> None:
    report = LoadReport(qps=1000, eps=2, cpu=0.7, memory=0.9, application=0.8)
    written = "TEXT rps_fractional=1000,eps=2,cpu_utilization=0.7,mem_utilization=0.9,application_utilization=0.8"
    assert report.to_text() == written
    assert LoadReport(qps=12.5, cpu=0.25).to_text() == "TEXT rps_fractional=12.5,cpu_utilization=0.25"
    assert LoadReport().to_text() == "TEXT rps_fractional=0"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("TEXT cpu_utilization=0.7,rps_fractional=1000,eps=2", LoadReport(1000, 2, 0.7)),
        ("TEXT cpu_utilization:0.7,application_utilization:0.8", LoadReport(cpu=0.7, application=0.8)),
        ("TEXT cpu_utilization=0.3, mem_utilization=0.8, rps_fractional=10.0", LoadReport(10, 0, 0.3, 0.8)),
        ("TEXT named_metrics.foo=a,utilization.total=0.5,kv_cache=1,eps=1", LoadReport(eps=1)),
        ("TEXT ", LoadReport()),
    ],
)
def test_reports_in_text_are_read(told: str, expected: LoadReport) -> None:
    assert LoadReport.from_text(told) == expected


@pytest.mark.parametrize(
    "told",
    ["", "cpu_utilization=0.7", 'JSON {"cpu_utilization": 0.7}', "TEXT cpu_utilization", 'TEXT cpu_utilization="0.7"']
    + [f"TEXT cpu_utilization={value}" for value in ("nan", "inf", "-1", "")],
)
def test_what_is_no_report_is_none(told: str) -> None:
    assert LoadReport.from_text(told) is None


@given(reports)
def test_a_report_read_is_the_one_written_but_for_rounding(report: LoadReport) -> None:
    assert LoadReport.from_text(report.to_text()) == pytest.approx(report, rel=1e-5)


@given(reports)
def test_a_report_in_binary_is_the_message_of_the_standard(report: LoadReport) -> None:
    message = OrcaLoadReport.FromString(report.to_bytes())
    told = LoadReport(
        message.rps_fractional,
        message.eps,
        message.cpu_utilization,
        message.mem_utilization,
        message.application_utilization,
    )
    assert told == report
    assert message.SerializeToString(deterministic=True) == report.to_bytes()


@settings(max_examples=300)
@given(st.lists(st.sampled_from([*FIELDS, "=", ":", ",", " ", "1", "-", ".", "e", "nan", "TEXT "])).map("".join))
def test_nonsense_is_read_as_none_or_as_sound_figures(text: str) -> None:
    report = LoadReport.from_text(f"TEXT {text}")
    assert report is None or all(0 <= figure < float("inf") for figure in report)


def test_what_an_application_says_of_itself_goes_before_the_cpu() -> None:
    assert LoadReport(cpu=0.2).utilization == 0.2
    assert LoadReport(cpu=0.2, application=0.9).utilization == 0.9


# Rates


def test_rates_are_over_the_time_there_is_and_later_over_the_window() -> None:
    throughput = Throughput(100.0)
    assert throughput.read(102.0, 20, 4) == (10.0, 2.0)
    for second in range(3, 40):
        rates = throughput.read(100.0 + second, 20 + 50 * (second - 2), 4)
    assert rates == (50.0, 0.0)


def test_after_a_silence_the_rate_is_over_all_of_it() -> None:
    throughput = Throughput(0.0)
    throughput.read(1.0, 100, 0)
    assert throughput.read(101.0, 300, 0) == (2.0, 0.0)
    assert throughput.read(101.0 + WINDOW, 300, 0) == (0.0, 0.0)


def test_without_time_there_is_no_rate() -> None:
    assert Throughput(5.0).read(5.0, 3, 3) == (0.0, 0.0)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 100), st.integers(0, 100)), max_size=40))
def test_a_rate_is_never_beyond_the_fastest_between_two_readings(steps: list[tuple[float, int, int]]) -> None:
    throughput, now, calls, errors, fastest = Throughput(0.0), 0.0, 0, 0, 0.0
    for seconds, more, failed in steps:
        now, calls, errors = now + seconds, calls + more, errors + failed
        fastest = max(fastest, more / seconds if seconds else float("inf") if more else 0.0)
        qps, eps = throughput.read(now, calls, errors)
        assert 0.0 <= qps <= fastest * 1.001
        assert eps >= 0.0


# Where calls are made


def test_an_endpoint_is_asked_as_often_as_weights_are_computed() -> None:
    loads = Loads()
    assert [loads.asks("a", now) for now in (0.0, 0.5, RECOMPUTE - 0.01, RECOMPUTE)] == [True, False, False, True]
    assert loads.asks("b", 0.5)


def test_reports_become_weights_after_the_blackout() -> None:
    loads = Loads()
    loads.report("a", LoadReport(qps=100, cpu=0.5), 0.0)
    loads.report("b", LoadReport(qps=100, eps=50, cpu=0.5), 1.0)
    loads.report("c", LoadReport(qps=100), 1.0)
    assert loads.weights(BLACKOUT) == {"a": 200.0, "b": 0.0, "c": 0.0}
    assert loads.weights(BLACKOUT + 1.0) == {"a": 200.0, "b": 100.0, "c": 0.0}


def test_who_left_is_forgotten_and_who_was_away_begins_anew() -> None:
    loads = Loads()
    for id_ in ("stays", "away", "gone"):
        assert loads.asks(id_, 0.0)
        loads.report(id_, LoadReport(qps=100, cpu=0.5), 0.0)
    loads.retain({"stays", "away"}, {"stays"})
    assert loads.weights(BLACKOUT) == {"stays": 200.0, "away": 0.0}
    assert [loads.asks(id_, 0.1) for id_ in ("stays", "gone")] == [False, True]
    loads.retain({"stays", "away"}, {"stays", "away"})
    loads.report("away", LoadReport(qps=100, cpu=0.5), 20.0)
    assert loads.weights(25.0)["away"] == 0.0
    assert loads.weights(20.0 + BLACKOUT)["away"] == 200.0


@settings(max_examples=200)
@given(st.lists(st.tuples(*[st.floats(0, allow_infinity=False)] * 3), min_size=2, max_size=5))
def test_whatever_endpoints_report_there_are_turns(told: list[tuple[float, float, float]]) -> None:
    weights = []
    for qps, eps, cpu in told:
        weight = LoadWeight()
        weight.report(0.0, qps, eps, cpu)
        weights.append(weight.weight(BLACKOUT))
    evened = even_out({str(index): weight for index, weight in enumerate(weights)})
    turns = StaticStride(list(evened.values()))
    assert turns.next(count()) in range(len(told))
