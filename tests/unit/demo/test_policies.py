"""The demo's policies: those that an operator may apply, and what its scenes promise of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from trimtab.policy.reading import read
from trimtab.policy.sections import Outlier, Timeout

from deploy.demo.program import ROOT
from deploy.demo.scenes.live import PATIENCE
from deploy.demo.scenes.trouble import EJECTION
from deploy.demo.show import POLICIES

FILES = sorted((ROOT / POLICIES).iterdir())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_policy_is_sound_and_for_the_order_service(file: Path) -> None:
    assert str(read(file.read_text())) == "default/orders"


def test_scenes_wait_as_long_as_their_policies_say() -> None:
    outlier = read((ROOT / POLICIES / "eject.yaml").read_text()).default.outlier
    timeout = read((ROOT / POLICIES / "timeout-100ms.yaml").read_text()).default.timeout
    assert isinstance(outlier, Outlier)
    assert isinstance(timeout, Timeout)
    assert (outlier.eject_for, timeout.total) == (EJECTION, PATIENCE)
