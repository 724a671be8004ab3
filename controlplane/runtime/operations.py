"""What people and programs may do: the one application layer under the stream, unary gRPC and HTTP.

Every operation is a decision of ``core.registry`` on what the view believes, committed as a compare-and-set. A stale
belief is read again and decided again. An operation returns the revision from which its effect is visible, and
(when ``visible``) only after this replica's own view has got there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from controlplane.core import registry, validation
from controlplane.core.change import Change
from controlplane.core.model import ConfigFile, Desired, Instance, Kind, Ref, Stored
from controlplane.core.view import View
from controlplane.errors import Code, TrimtabError
from controlplane.runtime.reconciler import Reconciler
from controlplane.store.ledger import Ledger

_ATTEMPTS = 10
_SHORT = 1024  # bytes of a policy: read in a millisecond or two
Decide = Callable[[Stored | None], Change]


class Operations:
    """Writes of one mesh. All raise TrimtabError; none touches the view."""

    def __init__(self, ledger: Ledger, view: View, reconciler: Reconciler) -> None:
        self._ledger = ledger
        self._view = view
        self._reconciler = reconciler

    # -- registrants ------------------------------------------------------------------------------------------------

    async def register(self, instance: Instance, *, session: Ref, lease: int) -> int:
        """Register or replace an instance of a session. Raises INSTANCE_DUPLICATE, SESSION_LOST."""
        return await self._change(
            instance.ref,
            lambda current: registry.register(instance, session=session, lease=lease, current=current),
            session=session,
        )

    async def update(self, instance: Instance, *, session: Ref, lease: int) -> int:
        """Replace what a session's instance reports. Raises INSTANCE_NOT_FOUND, INVALID, SESSION_LOST."""
        return await self._change(
            instance.ref,
            lambda current: registry.update(instance, session=session, lease=lease, current=current),
            session=session,
        )

    async def deregister(self, ref: Ref, *, session: Ref, lease: int) -> int:
        """Remove a session's instance; one that is gone already is no error. Raises INSTANCE_NOT_FOUND, SESSION_LOST."""
        return await self._change(
            ref,
            lambda current: registry.deregister(ref, session=session, lease=lease, current=current),
            session=session,
        )

    # -- operators --------------------------------------------------------------------------------------------------

    async def drain(self, namespace: str, service: str, id: str, *, drain: bool, by: str) -> int:
        """Take an instance out of traffic, or back in; survives its restarts. Raises INSTANCE_NOT_FOUND."""
        return await self._desire(namespace, service, id, lambda held: Desired(drain, held.weight, by))

    async def set_weight(self, namespace: str, service: str, id: str, *, weight: int | None, by: str) -> int:
        """Override an instance's weight, 0 to 65535, or (None) leave it to itself. Raises INSTANCE_NOT_FOUND, INVALID."""
        if weight is not None and not 0 <= weight <= validation.MAX_WEIGHT:
            findings = validation.Findings()
            findings.add("weight", f"{weight} is out of range", f"0 to {validation.MAX_WEIGHT}")
            findings.raise_if_any("the weight")
        return await self._desire(namespace, service, id, lambda held: Desired(held.drain, weight, by))

    async def put_config(
        self,
        namespace: str,
        app: str,
        file: str,
        *,
        format: str,
        content: bytes,
        author: str,
        expect: int | None = None,
    ) -> int:
        """Release a configuration file. ``expect``: the revision it must have now, 0 for none (PRECONDITION)."""
        validation.check_config(namespace, app, file, format, content)
        ref = Ref(Kind.CONFIG, (namespace, app, file))
        wanted = ConfigFile(format, content, author)

        def decide(current: Stored | None) -> Change:
            _check_expected(ref, current, expect)
            return registry.release(ref, wanted, current=current)

        return await self._visible(await self._change(ref, decide))

    async def delete_config(self, namespace: str, app: str, file: str, *, expect: int | None = None) -> int:
        """Withdraw a configuration file; clients keep their last value. Raises NOT_FOUND, PRECONDITION."""
        ref = Ref(Kind.CONFIG, (namespace, app, file))

        def decide(current: Stored | None) -> Change:
            if current is None:
                raise TrimtabError(Code.NOT_FOUND, f"there is no configuration {namespace}/{app}/{file}")
            _check_expected(ref, current, expect)
            return registry.withdraw(ref, current=current)

        return await self._visible(await self._change(ref, decide))

    async def put_policy(
        self,
        namespace: str,
        name: str,
        text: bytes,
        *,
        author: str,
        keep_source: bool = False,
        expect: int | None = None,
        validate_only: bool = False,
    ) -> int:
        """Put a policy in force, for a service or (``*``) for all of a namespace; the revision from which it is.

        ``text`` is a document, YAML or JSON; it is kept for people with ``keep_source``. ``expect`` as for configurations. With
        ``validate_only`` nothing is written, and the revision is that of what is in force now, 0 for nothing. Raises
        POLICY_INVALID, TOO_LARGE, PRECONDITION.
        """
        # Imported when the first is written, not while a start keeps clients waiting.
        from controlplane.core import policies

        check = partial(policies.checked, namespace, name, text, author=author, keep_source=keep_source)
        # A large document takes longer to read than pushes and heartbeats may wait: a thread reads it.
        wanted = check() if len(text) <= _SHORT else await asyncio.to_thread(check)
        ref = Ref(Kind.POLICY, (namespace, name))
        if validate_only:
            held = await self._ledger.read(ref)
            _check_expected(ref, held, expect)
            return held.revision if held else 0

        def decide(current: Stored | None) -> Change:
            _check_expected(ref, current, expect)
            return registry.enact(ref, wanted, current=current)

        return await self._visible(await self._change(ref, decide))

    async def delete_policy(self, namespace: str, name: str, *, expect: int | None = None) -> int:
        """Take a policy out of force; what is wider holds again. Raises NOT_FOUND, PRECONDITION."""
        ref = Ref(Kind.POLICY, (namespace, name))

        def decide(current: Stored | None) -> Change:
            if current is None:
                raise TrimtabError(Code.NOT_FOUND, f"there is no policy {namespace}/{name}")
            _check_expected(ref, current, expect)
            return registry.withdraw(ref, current=current)

        return await self._visible(await self._change(ref, decide))

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _desire(self, namespace: str, service: str, id: str, change: Callable[[Desired], Desired]) -> int:
        validation.check_instance_name(namespace, service, id)
        path = (namespace, service, id)
        ref = Ref(Kind.DESIRED, path)
        # Intent may outlive its instance; a first intent needs one, or a typing error would be kept for ever.
        if not await self._exists(ref) and not await self._exists(Ref(Kind.INSTANCE, path)):
            raise TrimtabError(
                Code.INSTANCE_NOT_FOUND,
                f"{namespace}/{service} has no instance {id!r}",
                hint=f"`trimtab get instances {service}` lists them",
            )

        def decide(current: Stored | None) -> Change:
            held = current.record if current is not None else Desired()
            assert isinstance(held, Desired)
            return registry.desire(ref, change(held), current=current)

        return await self._visible(await self._change(ref, decide))

    async def _exists(self, ref: Ref) -> bool:
        """The view may lag: only the store's own word says that something is missing."""
        return self._view.record(ref) is not None or await self._ledger.read(ref) is not None

    async def _visible(self, revision: int) -> int:
        await self._reconciler.wait_for(revision)
        return revision

    async def _change(self, ref: Ref, decide: Decide, *, session: Ref | None = None) -> int:
        current, fresh, revision = self._view.record(ref), False, 0
        for _ in range(_ATTEMPTS):
            try:
                change = decide(current)
            except TrimtabError:
                if fresh:
                    raise
                change = Change()
            if change.empty:
                if fresh:
                    return current.revision if current else revision
                # A refusal, or "nothing to do", is told only on the store's own word, never on a view that may lag.
                found = await self._ledger.commit(Change(), read=(ref,))
                current, fresh, revision = found.current.get(ref), True, found.revision
                continue
            result = await self._ledger.commit(change)
            if result.succeeded:
                return result.revision
            # Why not is read afterwards: nearly every change succeeds, and reading with it would cost each of them.
            found = await self._ledger.commit(Change(), read=(ref, session) if session else (ref,))
            if session and session not in found.current:
                raise TrimtabError(Code.SESSION_LOST, "the session has ended", hint="register again")
            current, fresh, revision = found.current.get(ref), True, found.revision
        raise TrimtabError(
            Code.CONFLICT, f"{ref} is being changed by others all the time", hint="try again, or find out who"
        )


def _check_expected(ref: Ref, current: Stored | None, expect: int | None) -> None:
    held = current.revision if current else 0
    if expect is not None and expect != held:
        raise TrimtabError(
            Code.PRECONDITION,
            f"{ref} stands at revision {held}, not {expect}",
            hint="read it again, merge, and write with its new revision",
        )
