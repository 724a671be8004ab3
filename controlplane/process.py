"""One operating-system process around a replica: settings, logging, signals, the event loop, and etcd when it is embedded."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane import __version__
from controlplane.errors import Code, TrimtabError
from controlplane.settings import Settings, load_settings

if TYPE_CHECKING:
    from controlplane.app import ControlPlane
    from controlplane.store.embedded import EmbeddedEtcd
    from controlplane.store.etcd import EtcdOptions

    Announce = Callable[[ControlPlane, EmbeddedEtcd | None], None]

log = logging.getLogger(__name__)


def run(flags: Mapping[str, str], *, config: Path | None, announce: Announce) -> int:
    """Run a replica until SIGTERM or SIGINT; the exit code. A refusal to start is printed, not raised.

    ``announce`` is called once, when the replica is ready.
    """
    # Hardly anything that a start or a push makes is cyclic garbage: to look for it as often as Python does costs a tenth
    # of a start, and a push to 5,000 streams twice as much.
    gc.set_threshold(50_000, 20, 100)
    try:
        settings = load_settings(flags, file=config, environment=os.environ)
        _configure_logging(settings.log_level)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(settings, announce))
    except TrimtabError as error:
        sys.stderr.write(f"{error}\n")
        return 2 if error.code is Code.SETTINGS else 1
    return 0


def announce_serving(plane: ControlPlane, etcd: EmbeddedEtcd | None) -> None:
    """One line per address on stderr, for people and for scripts that wait for it."""
    kept = f"embedded {etcd.version} at {etcd.endpoint}" if etcd else ", ".join(plane.settings.etcd)
    sys.stderr.write(
        f"trimtab {__version__} is ready\n  gRPC  {plane.grpc_address}\n  HTTP  {plane.http_address}\n  etcd  {kept}\n"
    )


def announce_dev(plane: ControlPlane, etcd: EmbeddedEtcd | None) -> None:
    """What to try next."""
    announce_serving(plane, etcd)
    http = "" if plane.http_address.endswith(":7070") else f"TRIMTAB_HTTP=http://{plane.http_address} "
    servers = "" if plane.grpc_address.endswith(":7071") else f"TRIMTAB_SERVERS={plane.grpc_address} "
    sys.stderr.write(
        "\nTry, in another terminal:\n"
        f"  {servers}trimtab run --service hello --port 8000 -- python -m http.server 8000\n"
        f"  {http}trimtab get instances hello -w\n"
        f"  {http}trimtab drain hello/127.0.0.1-8000\n"
        f"Data stays in {plane.settings.data}. Ctrl-C stops everything.\n"
    )


async def _serve(settings: Settings, announce: Announce) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    # Importing what a replica is made of takes as long as an embedded etcd takes to come up: a thread does it meanwhile.
    importing = asyncio.create_task(asyncio.to_thread(importlib.import_module, "controlplane.app"), name="import")
    embedded = None if settings.etcd else await _start_etcd(settings)
    try:
        await importing
        from controlplane.app import ControlPlane
        from controlplane.store.etcd import EtcdStore

        store = EtcdStore(_etcd_options(settings, (embedded.endpoint,) if embedded else settings.etcd))
        try:
            await _run_replica(ControlPlane(settings, store), embedded, stopping, announce)
        finally:
            await store.close()
    finally:
        if embedded is not None:
            await embedded.stop()


async def _start_etcd(settings: Settings) -> EmbeddedEtcd:
    from controlplane.store.embedded import EmbeddedEtcd

    embedded = EmbeddedEtcd(binary=settings.etcd_binary, data=settings.data / "etcd")
    await embedded.start()
    if embedded.warning:
        log.warning("%s", embedded.warning)
    return embedded


async def _run_replica(
    plane: ControlPlane, embedded: EmbeddedEtcd | None, stopping: asyncio.Event, announce: Announce
) -> None:
    await plane.start()
    try:
        stop = asyncio.create_task(_until(stopping), name="wait for a signal")
        ready = asyncio.create_task(_until(plane.ready), name="wait until ready")
        await asyncio.wait({stop, ready, plane.failed}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            announce(plane, embedded)
        await asyncio.wait({stop, plane.failed}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        ready.cancel()
    finally:
        await plane.stop()
    if plane.failed.done():
        plane.failed.result()


async def _until(event: asyncio.Event) -> None:
    await event.wait()


def _etcd_options(settings: Settings, endpoints: tuple[str, ...]) -> EtcdOptions:
    from controlplane.store.etcd import EtcdOptions

    return EtcdOptions(
        endpoints=endpoints,
        ca=settings.etcd_ca or "",
        cert=settings.etcd_cert or "",
        key=settings.etcd_key or "",
        user=settings.etcd_user,
        password=settings.etcd_password.get_secret_value() if settings.etcd_password else "",
        timeout=settings.etcd_timeout,
    )


def _configure_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", force=True
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop of uvloop where it exists: it carries a third more streams."""
    try:
        import uvloop
    except ImportError:  # not built for this platform
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
