"""What a process tells of its load: measured now and then, and the calls counted that it serves."""

from __future__ import annotations

import threading

import pytest
from trimtab.core.orca import LoadReport
from trimtab.load_meter import LoadMeter
from trimtab.testing import FakeClock, FakeMesh


class Machine:
    """A load source that says how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.load = (0.5, 0.25)

    def __call__(self) -> tuple[float, float]:
        self.asked += 1
        return self.load


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def meter(machine: Machine, clock: FakeClock) -> LoadMeter:
    return LoadMeter(machine, clock)


def test_the_source_is_asked_once_a_second_whoever_asks(meter: LoadMeter, machine: Machine, clock: FakeClock) -> None:
    for _ in range(3):
        assert meter.measure() == (0.5, 0.25)
        meter.report()
    assert machine.asked == 1
    clock.advance(1.0)
    machine.load = (0.75, 0.25)
    assert meter.report().report.cpu == 0.75
    assert meter.measure() == (0.75, 0.25)
    assert machine.asked == 2


def test_another_source_is_asked_at_once(meter: LoadMeter) -> None:
    meter.measure()
    meter.use(lambda: (0.125, 0.0))
    assert meter.measure() == (0.125, 0.0)


def test_a_source_that_fails_is_logged_and_tells_nothing(
    meter: LoadMeter, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    meter.use(lambda: (1 / 0, 0.0))
    assert meter.measure() == (-1.0, -1.0)
    assert "the load source failed" in caplog.text
    assert meter.report().text == "TEXT rps_fractional=0"


def test_who_asks_while_the_source_is_asked_gets_what_was_measured_before(meter: LoadMeter, clock: FakeClock) -> None:
    meter.measure()
    asked, go_on = threading.Event(), threading.Event()

    def slow() -> tuple[float, float]:
        asked.set()
        go_on.wait(10)
        return 1.0, 1.0

    meter.use(slow)
    other = threading.Thread(target=meter.measure)
    other.start()
    assert asked.wait(10)
    assert meter.measure() == (0.5, 0.25)
    go_on.set()
    other.join(10)
    assert meter.measure() == (1.0, 1.0)


def test_rates_are_those_since_somebody_asked_for_them(meter: LoadMeter, clock: FakeClock) -> None:
    assert not meter.counting
    assert meter.report().report == LoadReport(cpu=0.5, memory=0.25)
    assert meter.counting
    for failed in (False, False, False, True):
        meter.served(failed)
    clock.advance(2.0)
    assert meter.report().report == LoadReport(2.0, 0.5, 0.5, 0.25)
    assert meter.report().message == LoadReport(2.0, 0.5, 0.5, 0.25).to_bytes()


def test_every_call_is_counted_under_any_number_of_threads(meter: LoadMeter, clock: FakeClock) -> None:
    meter.count()
    threads = [threading.Thread(target=lambda: [meter.served(True) for _ in range(2000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    clock.advance(1.0)
    assert meter.report().report[:2] == (16_000.0, 16_000.0)


def test_a_forked_child_begins_anew(meter: LoadMeter, machine: Machine, clock: FakeClock) -> None:
    meter.count()
    meter.served(False)
    meter.revive()
    assert not meter.counting
    clock.advance(1.0)
    meter.report()
    clock.advance(1.0)
    assert meter.report().report.qps == 0.0


def test_a_mesh_reports_what_its_heartbeats_say(fake_mesh: FakeMesh) -> None:
    fake_mesh.set_load_source(lambda: (0.375, 0.5))
    assert fake_mesh.load_meter.report().text == "TEXT cpu_utilization=0.375,mem_utilization=0.5"
