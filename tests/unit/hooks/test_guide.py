"""docs/sdk.md on seeing what happens: its metrics are those that are scraped, its program runs."""

from __future__ import annotations

import subprocess
import sys

from tests.unit.hooks.guide import example, held, table


def test_the_metrics_are_those_of_the_collector() -> None:
    assert held() == table(), "write them anew with: python -m tests.unit.hooks.guide"


def test_the_program_runs() -> None:
    # On a free port, and with a look at what it exposes.
    program = example().replace("start_http_server(9100)", "server, _ = start_http_server(0, addr='127.0.0.1')")
    program += (
        "from urllib.request import urlopen\n"
        "with urlopen(f'http://127.0.0.1:{server.server_port}/metrics', timeout=10) as scraped:\n"
        "    assert b'trimtab_mesh_connected 0.0' in scraped.read()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
