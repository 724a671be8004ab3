"""Runs a command as an instance of a service. The decisions are in ``decisions``; here is what carries them out."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from trimtab.core.backoff import Rng
from trimtab.errors import TrimtabError
from trimtab.run.child import Child
from trimtab.run.decisions import NOT_EXECUTABLE, NOT_FOUND, Checks, Restarts, Verdict, exit_status
from trimtab.run.leash import die_with_parent
from trimtab.run.options import Options

_log = logging.getLogger("trimtab.run")
T = TypeVar("T")

# While it starts, a program is asked more often: it should be called soon after it can be. Seconds.
_STARTING_INTERVAL = 0.2
_CHECK_TIMEOUT = 1.0
# How long a dying instance waits for the control plane to take note. Seconds.
_LAST_WORD = 2.0


class Supervisor:
    """Registers a service through a Mesh and runs the command, if there is one, until it ends or a signal comes."""

    def __init__(self, mesh: Any, options: Options, *, rng: Rng | None = None) -> None:
        self._mesh = mesh
        self._options = options
        self._rng = rng or random.Random()
        self._restarts = Restarts(options.restart)
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()

    async def run(self) -> int:
        """Do all of it. Returns the exit status to pass on."""
        options = self._options
        self._take_signals()
        registration = self._mesh.register(
            options.service,
            options.port,
            address=options.address,
            id=options.id,
            weight=options.weight,
            zone=options.zone or None,
            metadata=options.metadata,
            namespace=options.namespace,
            state="starting",
            wait=False,
        )
        try:
            if options.command:
                return await self._keep_running(registration)
            return await self._accompany(registration)
        finally:
            await self._leave(registration)

    async def _accompany(self, registration: Any) -> int:
        """Keep registered what somebody else runs."""
        async with _background(self._check(registration), "trimtab-run-check"):
            await self._stopping.wait()
        await self._drain(registration, None)
        return 0

    async def _keep_running(self, registration: Any) -> int:
        loop = asyncio.get_running_loop()
        while True:
            started_at = loop.time()
            try:
                child = await Child.start(self._options.command)
            except OSError as error:
                # The same would come of it the next time.
                _log.error("%s: %s", self._options.command[0], error.strerror)
                return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            _log.info("%s: started, pid %d", self._options.service, child.pid)
            async with _background(self._check(registration), "trimtab-run-check"):
                returncode = await self._first(child.wait(), self._stopping)
            if returncode is None:
                await self._drain(registration, child)
                await self._leave(registration)
                _log.info("%s: stopping pid %d", self._options.service, child.pid)
                timeout = 0.5 if self._hurried.is_set() else self._options.stop_timeout
                return exit_status(await child.stop(timeout))
            status = exit_status(returncode)
            delay = self._restarts.after(status, loop.time() - started_at, self._rng)
            if delay is None:
                _log.info("%s: ended with status %d", self._options.service, status)
                return status
            # Its descendants may still hold the port that the next run needs.
            child.kill()
            _log.warning("%s: ended with status %d, starts again in %.1f s", self._options.service, status, delay)
            registration.unhealthy(wait=False)
            if await self._first(asyncio.sleep(delay, True), self._stopping) is None:
                return status
            registration.update(state=Verdict.STARTING.value, wait=False)

    async def _check(self, registration: Any) -> None:
        """Report each change of the verdict, for as long as this task lives."""
        check, checks = self._options.check, Checks(self._options.rise, self._options.fall)
        while True:
            before = checks.verdict
            verdict = checks.observe(check is None or await check.passes(_CHECK_TIMEOUT))
            if verdict is not before:
                _log.info("%s: %s (%s)", self._options.service, verdict.name.lower(), check or "not checked")
                registration.update(state=verdict.value, wait=False)
                check = check and check.once_ready()
            interval = self._options.interval
            await asyncio.sleep(min(interval, _STARTING_INTERVAL) if verdict is Verdict.STARTING else interval)

    async def _drain(self, registration: Any, child: Child | None) -> None:
        """Leave the mesh, then serve on; no longer than the child lives, nor than a person is patient."""
        if self._hurried.is_set():
            return
        _log.info("%s: draining for %g s", self._options.service, self._options.drain)
        await self._say("drain", partial(registration.drain, timeout=_LAST_WORD))
        with suppress(TimeoutError):  # the drain time is over: the ordinary end
            async with asyncio.timeout(self._options.drain):
                if child is None:
                    await self._hurried.wait()
                else:
                    await self._first(child.wait(), self._hurried)

    async def _first(self, awaitable: Awaitable[T], event: asyncio.Event) -> T | None:
        """The outcome of ``awaitable``, or None when the event came first."""
        work = asyncio.ensure_future(awaitable)
        flag = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait((work, flag), return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else None
        finally:
            for task in (work, flag):
                task.cancel()
            await asyncio.gather(work, flag, return_exceptions=True)

    async def _leave(self, registration: Any) -> None:
        await self._say("leave", partial(registration.deregister, timeout=_LAST_WORD))

    async def _say(self, what: str, request: Callable[[], object]) -> None:
        try:
            await asyncio.to_thread(request)
        except TrimtabError as error:
            # The program matters more than what is known of it: it runs on, and the mesh is told when it can be.
            _log.warning("%s: could not say %s: %s", self._options.service, what, error)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stop)
        loop.add_signal_handler(signal.SIGQUIT, self._hurry)
        if self._options.with_parent is not None:
            die_with_parent(self._options.with_parent, signal.SIGQUIT)

    def _stop(self) -> None:
        if self._stopping.is_set():
            self._hurried.set()
        self._stopping.set()

    def _hurry(self) -> None:
        self._hurried.set()
        self._stopping.set()


class _background:  # noqa: N801 - reads as a verb at the place of use
    """A task that lives as long as the block."""

    def __init__(self, work: Any, name: str) -> None:
        self._work = work
        self._name = name

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._work, name=self._name)

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):  # by us, the line above
            await self._task
