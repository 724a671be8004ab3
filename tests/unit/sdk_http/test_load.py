"""The load of the machine or of its container."""

from __future__ import annotations

from pathlib import Path

import pytest
from trimtab.load import UNKNOWN, HostLoad, quota_cores, used_seconds


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def container(root: Path, *, used: float, memory: str = "268435456\n") -> None:
    (root / "cpu.max").write_text("150000 100000\n")
    (root / "cpu.stat").write_text(f"usage_usec {int(used * 1e6)}\nuser_usec 1\n")
    (root / "memory.max").write_text("1073741824\n")
    (root / "memory.current").write_text(memory)


def test_a_bounded_container_reports_shares_of_its_own_bounds(tmp_path: Path) -> None:
    clock = Hands()
    container(tmp_path, used=7.0)
    load = HostLoad(cgroup=tmp_path, clock=clock)
    assert load() == (UNKNOWN, 0.25)
    clock.now += 2.0
    container(tmp_path, used=7.0 + 1.5)
    assert load() == (pytest.approx(0.5), 0.25)


def test_a_share_never_leaves_its_range(tmp_path: Path) -> None:
    clock = Hands()
    container(tmp_path, used=0.0)
    load = HostLoad(cgroup=tmp_path, clock=clock)
    load()
    clock.now += 1.0
    container(tmp_path, used=60.0, memory="2147483648\n")
    assert load() == (1.0, 1.0)


def test_without_bounds_the_host_is_asked_and_its_first_cpu_figure_is_not_believed(tmp_path: Path) -> None:
    load = HostLoad(cgroup=tmp_path)
    cpu, memory = load()
    assert cpu == UNKNOWN
    assert 0 < memory < 1
    assert 0 <= load()[0] <= 1


def test_without_bounds_and_without_psutil_nothing_is_known(tmp_path: Path) -> None:
    load = HostLoad(cgroup=tmp_path, use_psutil=False)
    assert [load(), load()] == [(UNKNOWN, UNKNOWN)] * 2


@pytest.mark.parametrize(("text", "cores"), [("max 100000\n", None), ("", None), ("50000 100000", 0.5), ("x y", None)])
def test_a_cpu_quota_is_read_as_cores(text: str, cores: float | None) -> None:
    assert quota_cores(text) == cores


def test_cpu_time_is_found_among_other_figures() -> None:
    assert used_seconds("nr_periods 3\nusage_usec 2500000\n") == 2.5
    assert used_seconds("nr_periods 3\n") is None
