"""What a registration, an update, an operator's intent or a release becomes in the store: a change, or a typed refusal.

Each function takes what the store is believed to hold. The change carries that belief as an expectation, so a stale
belief writes nothing; the caller reads again and asks again. What a registrant changes also expects its session's
record: the lease is public, only the record's path proves that it knows the secret.
"""

from __future__ import annotations

from controlplane.core.change import Absent, Change, Expectation, Present, Unchanged, Write
from controlplane.core.model import ConfigFile, Desired, Instance, PolicyDocument, Ref, Stored
from controlplane.errors import Code, TrimtabError


def register(instance: Instance, *, session: Ref, lease: int, current: Stored | None) -> Change:
    """Put ``instance`` on the session's lease.

    The same content under the same session changes nothing. A record of another session at the same address and port is an
    earlier life of the same instance and is taken over; anywhere else it is a duplicate (INSTANCE_DUPLICATE).
    """
    expect: tuple[Expectation, ...]
    if current is None:
        expect = (Absent(instance.ref), Present(session))
    else:
        held = _instance(current)
        if current.lease == lease and held == instance:
            return Change()
        if current.lease != lease and (held.address, held.port) != (instance.address, instance.port):
            raise TrimtabError(
                Code.INSTANCE_DUPLICATE,
                f"{instance.name} already has an instance {instance.id!r}, at {held.address}:{held.port}",
                hint="choose another id, or leave it out: the server then derives it from address and port",
            )
        expect = (Unchanged(instance.ref, current.revision), Present(session))
    return Change(expect=expect, write=(Write(instance.ref, instance, lease),))


def update(instance: Instance, *, session: Ref, lease: int, current: Stored | None) -> Change:
    """Replace what an instance reports of itself. Only its own session may, and it stays where it is."""
    held = _instance(_owned(instance.ref, lease, current))
    if (held.address, held.port) != (instance.address, instance.port):
        raise TrimtabError(
            Code.INVALID,
            f"{instance.name} instance {instance.id!r} is at {held.address}:{held.port} and cannot move",
            hint="register the new address as another instance, then deregister this one",
        )
    if held == instance:
        return Change()
    assert current is not None
    expect = (Unchanged(instance.ref, current.revision), Present(session))
    return Change(expect=expect, write=(Write(instance.ref, instance, lease),))


def deregister(ref: Ref, *, session: Ref, lease: int, current: Stored | None) -> Change:
    """Remove an instance; one that is gone already needs nothing."""
    if current is None:
        return Change()
    owned = _owned(ref, lease, current)
    return Change(expect=(Unchanged(ref, owned.revision), Present(session)), remove=(ref,))


def desire(ref: Ref, wanted: Desired, *, current: Stored | None) -> Change:
    """Store an operator's intent beside the instance. No opinion at all removes the record."""
    neutral = not wanted.drain and wanted.weight is None
    if current is None:
        return Change() if neutral else Change(expect=(Absent(ref),), write=(Write(ref, wanted),))
    assert isinstance(current.record, Desired)
    if (current.record.drain, current.record.weight) == (wanted.drain, wanted.weight):
        return Change()
    expect = (Unchanged(ref, current.revision),)
    return Change(expect=expect, remove=(ref,)) if neutral else Change(expect=expect, write=(Write(ref, wanted),))


def release(ref: Ref, file: ConfigFile, *, current: Stored | None) -> Change:
    """Make ``file`` the current release of a configuration. The same content again changes nothing."""
    if current is None:
        return Change(expect=(Absent(ref),), write=(Write(ref, file),))
    assert isinstance(current.record, ConfigFile)
    if (current.record.format, current.record.content) == (file.format, file.content):
        return Change()
    return Change(expect=(Unchanged(ref, current.revision),), write=(Write(ref, file),))


def enact(ref: Ref, policy: PolicyDocument, *, current: Stored | None) -> Change:
    """Make ``policy`` the one in force. The same again changes nothing, and does not take away a source that it lacks."""
    if current is None:
        return Change(expect=(Absent(ref),), write=(Write(ref, policy),))
    held = current.record
    assert isinstance(held, PolicyDocument)
    if policy.document == held.document and policy.source in ("", held.source):
        return Change()
    return Change(expect=(Unchanged(ref, current.revision),), write=(Write(ref, policy),))


def withdraw(ref: Ref, *, current: Stored | None) -> Change:
    """Remove a record without an owner (a configuration, a policy)."""
    return Change() if current is None else Change(expect=(Unchanged(ref, current.revision),), remove=(ref,))


def _owned(ref: Ref, lease: int, current: Stored | None) -> Stored:
    if current is None or current.lease != lease:
        namespace, service, id = ref.path
        raise TrimtabError(
            Code.INSTANCE_NOT_FOUND,
            f"this session has no instance {id!r} of {namespace}/{service}",
            hint="it was never registered, its session ended, or another process took it over",
        )
    return current


def _instance(stored: Stored) -> Instance:
    assert isinstance(stored.record, Instance)
    return stored.record
