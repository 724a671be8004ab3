"""The command line of ``trimtab run``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.duration import parse_duration
from trimtab.run.checks import Check, parse_check
from trimtab.run.decisions import Restart

EXAMPLES = """\
examples:
  register a server, check its page, drain it on SIGTERM:
    trimtab run --service orders --port 8000 --check http:///healthz -- gunicorn app:app -w 4

  register a database that somebody else runs, for as long as this command lives:
    trimtab run --service sessions --port 6379

  one of several instances on a machine, told apart by their ports:
    trimtab run --service orders --port 8001 --metadata version=2 -- ./orders --listen :8001

The control plane is found by TRIMTAB_SERVERS, TRIMTAB_TOKEN and TRIMTAB_NAMESPACE; when it is away the command runs
all the same, and is registered when it is back. The exit status is the command's own, 128 + N when signal N ended it,
127 when there is no such command and 126 when it cannot be run: then it is not started again, whatever --restart says.

SIGTERM and SIGINT: leave the mesh, serve on for --drain, then stop the command. A second one skips the wait.
SIGQUIT: leave and stop at once.
"""


CHECK_HELP = """\
tcp: the port accepts (the default); http:///PATH or http://HOST:PORT/PATH: the page says 200 to 399;
http: it once answered in HTTP, whatever it said, and accepts ever since; none"""


@dataclass(frozen=True, slots=True)
class Options:
    """What to run and how to register it; times in seconds."""

    service: str
    port: int
    command: list[str]
    check: Check | None
    interval: float
    rise: int
    fall: int
    drain: float
    stop_timeout: float
    restart: Restart
    address: str | None
    id: str
    weight: int
    zone: str
    metadata: dict[str, str]
    namespace: str | None
    with_parent: int | None


def parse(argv: Sequence[str]) -> Options:
    """Options from the arguments. Writes to stderr and exits with status 2 when they are wrong."""
    parser = _parser()
    found = parser.parse_args(argv)
    try:
        check = parse_check(found.check, found.address or "127.0.0.1", found.port)
    except ValueError as error:
        parser.error(f"argument --check: {error}")
    return Options(
        service=found.service,
        port=found.port,
        command=found.command,
        check=check,
        interval=found.interval,
        rise=found.rise,
        fall=found.fall,
        drain=found.drain,
        stop_timeout=found.stop_timeout,
        restart=Restart(found.restart),
        address=found.address,
        id=found.id,
        weight=found.weight,
        zone=found.zone,
        metadata=dict(found.metadata),
        namespace=found.namespace,
        with_parent=found.with_parent,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trimtab run",
        description="Run any program as an instance of a service: register it, check it, restart it, drain it.",
        usage="trimtab run --service NAME --port PORT [options] [-- COMMAND ...]",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--service", required=True, metavar="NAME", help="the service, as orders or shop/orders")
    add("--port", required=True, type=_port, metavar="PORT", help="where clients dial, 1 to 65535")
    add("--address", metavar="ADDRESS", help="where clients dial (default: this machine's address)")
    add("--id", default="", metavar="ID", help="instance id (default: ADDRESS-PORT)")
    add("--namespace", metavar="NAME", help="namespace of the service (default: TRIMTAB_NAMESPACE)")
    add("--weight", type=_weight, default=0, metavar="N", help="relative share of traffic, 1 to 65535 (default: 100)")
    add("--zone", default="", metavar="ZONE", help="where the instance runs")
    add("--metadata", action="append", type=_pair, default=[], metavar="KEY=VALUE", help="may be given several times")
    add(
        "--check",
        default="tcp",
        metavar="CHECK",
        help=CHECK_HELP,
    )
    add("--interval", type=_duration, default=2.0, metavar="TIME", help="time between checks (default: 2s)")
    add("--rise", type=_count, default=1, metavar="N", help="checks in a row that make it ready (default: 1)")
    add("--fall", type=_count, default=3, metavar="N", help="failures in a row that make it unhealthy (default: 3)")
    add("--drain", type=_duration, default=5.0, metavar="TIME", help="serve on this long after leaving (default: 5s)")
    add(
        "--stop-timeout",
        type=_duration,
        default=10.0,
        metavar="TIME",
        help="time for the command to end after SIGTERM, before SIGKILL (default: 10s)",
    )
    add(
        "--restart",
        choices=[policy.value for policy in Restart],
        default=Restart.ON_FAILURE.value,
        help="when to start the command again after it ended (default: on-failure)",
    )
    add("--with-parent", type=int, metavar="PID", help="leave the mesh at once when this parent process dies (Linux)")
    add("command", nargs="*", metavar="COMMAND", help="the program and its arguments, after --")
    return parser


def _port(text: str) -> int:
    return _within(text, 1, 65535, "a port is a number from 1 to 65535")


def _weight(text: str) -> int:
    return _within(text, 1, 65535, "a weight is a number from 1 to 65535")


def _count(text: str) -> int:
    return _within(text, 1, 1000, "a number from 1 to 1000 is wanted")


def _within(text: str, low: int, high: int, message: str) -> int:
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise argparse.ArgumentTypeError(f"{message}, not {text!r}")
    return int(text)


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value
