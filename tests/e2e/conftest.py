"""Real processes only: what is used here is in ``tests/support/town``."""

from tests.support.town.plugin import pytest_runtest_makereport, towns

__all__ = ["pytest_runtest_makereport", "towns"]
