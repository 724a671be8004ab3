"""The switch that makes an instance of the demo fail."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from deploy.demo.ailment import Ailment, Health


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Those of the test run come back."""
    before = {ailment.value: signal.getsignal(ailment.value) for ailment in Ailment}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_an_instance_fails_from_the_signal_on_until_it_is_cured() -> None:
    health = Health()
    assert health.endure()
    os.kill(os.getpid(), Ailment.FAILING.value)
    assert not health.endure()
    os.kill(os.getpid(), Ailment.NONE.value)
    assert health.endure()
