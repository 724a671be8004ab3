"""The plugin in somebody else's test suite."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

GUIDE = (Path(__file__).parents[3] / "docs" / "testing.md").read_text()
EXAMPLE, ANSWERS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


def test_the_example_of_the_guide_works_as_it_is_printed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_prices=EXAMPLE)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_the_answers_of_the_guide_are_understood(pytester: pytest.Pytester) -> None:
    body = "".join(f"    {line}\n" for line in ANSWERS.splitlines())
    head = "from trimtab.testing import Reply\n\ndef test_answers(fake_mesh):\n"
    ask = """
    fake_mesh.add("orders", "10.0.0.2:8000")
    with fake_mesh.http_client() as http:
        assert [http.get(f"mesh://orders/v1/{number}").status_code for number in (0, 1)] == [404, 200]
"""
    pytester.makepyfile(test_answers=head + body + ask)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_both_fixtures_serve_workers_beside_each_other(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nasyncio_mode = auto")
    pytester.makepyfile(
        """
        import threading
        import pytest
        from trimtab import AsyncMesh, Mesh, NoEndpoints
        from trimtab.calling.context import remaining, within

        @pytest.mark.parametrize("number", range(2))
        def test_each_test_has_a_mesh_of_its_own(fake_mesh, number):
            assert isinstance(fake_mesh, Mesh)
            with pytest.raises(NoEndpoints):
                fake_mesh.pick("orders")
            fake_mesh.add("orders", "10.0.0.1:8000")
            assert fake_mesh.pick("orders").endpoint.target == "10.0.0.1:8000"
            assert not [t for t in threading.enumerate() if t.name.startswith("trimtab")]

        async def test_deadlines_are_told_by_the_clock_of_the_mesh(fake_async_mesh):
            assert isinstance(fake_async_mesh, AsyncMesh)
            with within(10):
                fake_async_mesh.clock.advance(4)
                assert remaining() == 6
        """
    )
    pytester.runpytest_subprocess("-n", "2", "-p", "no:cacheprovider").assert_outcomes(passed=3)


def test_a_suite_that_asks_for_no_mesh_imports_nothing_of_it() -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import trimtab.testing.plugin, sys; print(*(m for m in sys.modules if m.startswith(('trimtab', 'grpc', 'google'))))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(told.stdout.split()) == {"trimtab", "trimtab.testing", "trimtab.testing.plugin"}


def test_the_sdk_does_not_need_pytest() -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, trimtab, trimtab.aio, trimtab.testing.mesh; print('pytest' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "False"
