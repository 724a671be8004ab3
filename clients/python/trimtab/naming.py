"""The full names of what a process follows, and what has to be followed for it."""

from __future__ import annotations

from trimtab.discovery import policies_of
from trimtab.disk import ResourceKey
from trimtab.errors import SettingsInvalid
from trimtab.v1.types_pb2 import Kind


def full_service(service: str, namespace: str) -> str:
    """``NAMESPACE/SERVICE``; ``namespace``: where short names are meant. Raises SettingsInvalid."""
    space, slash, name = service.rpartition("/")
    space = space if slash else namespace
    if not name or not space or "/" in space:
        raise SettingsInvalid(f"service {service!r} is no name", hint="SERVICE or NAMESPACE/SERVICE")
    return f"{space}/{name}"


def full_file(name: str, namespace: str) -> str:
    """``NAMESPACE/APP/FILE``, likewise."""
    parts = name.split("/")
    if len(parts) == 2:
        parts.insert(0, namespace)
    if len(parts) != 3 or not all(parts):
        raise SettingsInvalid(f"config {name!r} is no name", hint="APP/FILE or NAMESPACE/APP/FILE")
    return "/".join(parts)


def called(service: str) -> list[ResourceKey]:
    """What is followed for a service that is called: its endpoints and the policies that hold for it."""
    return [(Kind.KIND_ENDPOINTS, service), *served(service)]


def served(service: str) -> list[ResourceKey]:
    """What is followed for a service that is served: the policies that hold for it."""
    return [(Kind.KIND_POLICY, policy) for policy in policies_of(service)]
