"""``python -m deploy.demo``: play the scenes; exit status 0 when every promise was kept, 1 when one was broken."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections.abc import Sequence

from deploy.demo.findings import Finding
from deploy.demo.program import DemoError
from deploy.demo.scenes import SCENES
from deploy.demo.screen import Screen, bold, cyan, dim, green, red
from deploy.demo.shopper import TIMEOUT
from deploy.demo.show import Scene, Show
from deploy.demo.stage import HEARTBEAT, SHOPPERS, WINDOW, Stage
from deploy.demo.traffic import Call, failed, refused, stood_in

BROKEN, DISTURBED = 1, 2


def main() -> int:
    """Play. Status 2: the demo itself could not go on; 130: somebody stopped it."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    parser.add_argument(
        "--scene", action="append", choices=[scene.key for scene in SCENES], help="only this one; again for more"
    )
    parser.add_argument(
        "--rate", type=float, default=100.0, help="calls per second of all shoppers together (default: 100)"
    )
    parser.add_argument("--plain", action="store_true", help="no colours, no moving line")
    options = parser.parse_args()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    # What etcd's keeper has to say of an etcd that we kill is no news here.
    logging.getLogger("trimtab").setLevel(logging.CRITICAL)
    screen = Screen(plain=options.plain)
    scenes = [scene for scene in SCENES if not options.scene or scene.key in options.scene]
    try:
        return asyncio.run(_perform(screen, scenes, options.rate))
    except DemoError as error:
        screen.rest()
        sys.stderr.write(f"\nThe demo could not go on: {error}\n")
        return DISTURBED
    except (KeyboardInterrupt, asyncio.CancelledError):
        screen.rest()
        sys.stderr.write("\nStopped. Nothing is left behind.\n")
        return 128 + signal.SIGINT


async def _perform(screen: Screen, scenes: list[Scene], rate: float) -> int:
    _cancel_on(signal.SIGTERM, signal.SIGHUP)
    began = time.monotonic()
    screen.say(f"\n {bold(cyan('Trimtab'))}  an online shop's order service, under real failures")
    screen.say(dim("    starting …"))
    async with Stage(rate) as stage:
        _introduce(screen, stage)
        acts: list[tuple[str, list[Finding]]] = []
        for number, scene in enumerate(scenes, 1):
            screen.title(number, scene.title, scene.what)
            findings = await scene.play(Show(stage, screen))
            screen.rest()
            for finding in findings:
                screen.verdict(finding)
            acts.append((scene.title, findings))
        calls = stage.traffic.calls
    screen.table(acts)
    findings = [finding for _, act in acts for finding in act]
    kept = sum(finding.kept for finding in findings)
    summary = f"{kept} of {len(findings)} promises kept"
    screen.say(
        f"\n    {green(bold(summary)) if kept == len(findings) else red(bold(summary))}   "
        f"{_told(calls)}, {time.monotonic() - began:.0f} s\n"
    )
    return 0 if kept == len(findings) else BROKEN


def _introduce(screen: Screen, stage: Stage) -> None:
    for what, how in (
        ("etcd", stage.etcd),
        ("control plane", f"one process; gRPC {stage.grpc_address}, HTTP {stage.http_address}"),
        ("order service", f"{', '.join(stage.instances)}: Flask, a process each"),
        ("orders are in", stage.store_name),
        ("shoppers", f"{len(SHOPPERS)}, a process each: together {stage.rate:g} calls/s, whether answered or not"),
        ("patience", f"they wait {TIMEOUT:g} s for an answer, and repeat nothing"),
        ("heartbeats", f"every {HEARTBEAT:g} s; who is silent for {WINDOW:g} s is gone"),
    ):
        screen.say(f"    {dim(what.ljust(14))} {how}")


def _told(calls: Sequence[Call]) -> str:
    """What became of all calls."""
    away = len(refused(calls))
    return (
        f"{len(calls):,} calls: {len(failed(calls)) - away} failed, "
        f"{away} refused by a policy, {len(stood_in(calls))} answered from a cache"
    )


def _cancel_on(*numbers: signal.Signals) -> None:
    """Be as tidy when we are told to end as when we end."""
    task = asyncio.current_task()
    assert task is not None
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


if __name__ == "__main__":
    sys.exit(main())
