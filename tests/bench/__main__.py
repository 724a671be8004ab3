"""``python -m tests.bench [name …]``: run benchmarks and print each figure beside its reference.

Exits 0 whatever the figures say: a noisy machine is no defect. 1 when a benchmark could not run.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import platform
import sys
import time
import traceback
from importlib import metadata

import grpc
import psutil
import uvloop

from controlplane.store.embedded import find_binary
from tests.bench.house import House
from tests.bench.report import Row, table
from tests.support.core import kind_of_core

BENCHMARKS = (
    "fanout",
    "delta_size",
    "write_ack",
    "registrations",
    "heartbeats",
    "idle_memory",
    "reconnect_storm",
    "crash",
    "cold_start",
    "call_overhead",
    "live_policy",
)
# These need no etcd: what they measure is in this process.
ALONE = ("sdk_apply", "call_cost", "swaps")


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all."""
    known = (*ALONE, *BENCHMARKS)
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.stderr.write(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known)}\n")
        return 1
    print(machine())
    print("pace: CPU seconds of 5 million turns of an empty loop; stolen: CPU seconds that the host gave to others")
    rows: list[Row] = []
    failed = False
    for name in names or known:
        began, busy, stolen = time.monotonic(), os.getloadavg()[0], steal()
        try:
            found = _alone(name) if name in ALONE else uvloop.run(_run(name))
        except Exception:
            traceback.print_exc()
            failed = True
            continue
        rows += found
        seconds, stolen = time.monotonic() - began, steal() - stolen
        head = f"{name}: {seconds:.0f} s, load average before {busy:.1f}, pace {pace():.2f}, stolen {stolen:.2f} s"
        print(f"\n{head}\n{table(found)}", flush=True)
    if len(names) != 1:
        print(f"\n{table(rows)}")
    return int(failed)


def _alone(name: str) -> list[Row]:
    found: list[Row] = importlib.import_module(f"tests.bench.{name}").run()
    return found


async def _run(name: str) -> list[Row]:
    module = importlib.import_module(f"tests.bench.{name}")
    async with asyncio.timeout(600), House() as house:
        found: list[Row] = await module.run(house)
    return found


def pace() -> float:
    """How fast this machine is just now. A core that is shared with others is slower in CPU seconds, too."""
    began = time.process_time()
    for _ in range(5_000_000):
        continue
    return time.process_time() - began


def steal() -> float:
    """CPU seconds, over all cores, that the host has given to others so far."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


def machine() -> str:
    """What the figures were taken on."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, core of the SDK {kind_of_core()}, "
        f"grpcio {grpc.__version__}, uvloop {metadata.version('uvloop')}, "
        f"etcd {find_binary()}; server, etcd and load on this machine over loopback"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
