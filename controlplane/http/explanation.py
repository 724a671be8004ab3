"""What holds for a call to a service, which document says so, and which clients have got that document."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.policy import canonical
from trimtab.policy.effective import BUILT_IN_ORIGIN, Effective, Request, layers, resolve
from trimtab.policy.schema import json_schema
from trimtab.policy.sections import OFF, SECTIONS

from controlplane.core import policies
from controlplane.core.defaults import EVERY_SERVICE
from controlplane.core.model import PolicyDocument, Stored
from controlplane.core.resource import Document, ResourceKind, ResourceName
from controlplane.core.view import View
from controlplane.http import models
from controlplane.runtime.clients import ClientInfo, Clients

SHOWN_CLIENTS = 1000

_WORST_FIRST = ("REFUSED", "BEHIND", "ACKNOWLEDGED")


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of the call; header names in lower case."""

    caller: str
    method: str
    path: str
    headers: Mapping[str, str]


def schema() -> dict[str, Any]:
    """JSON Schema of a policy document."""
    return json_schema()


async def effective(view: View, clients: Clients, namespace: str, service: str, call: Call) -> models.EffectivePolicy:
    """Every section that holds for ``call``. Raises MALFORMED for a stored policy of a newer version."""
    documents = [f"{namespace}/{name}" for name in (service, EVERY_SERVICE)]
    held = [view.policy(namespace, name) for name in (service, EVERY_SERVICE)]
    return models.EffectivePolicy(
        name=f"namespaces/{namespace}/services/{service}/effective-policy",
        namespace=namespace,
        service=service,
        caller=call.caller,
        method=call.method,
        path=call.path,
        headers=dict(call.headers),
        # In a thread: to read large documents takes longer than a push may wait.
        sections=await asyncio.to_thread(_sections, held, call),
        rollouts=await rollouts(view, clients, documents),
    )


async def rollouts(view: View, clients: Clients, documents: Sequence[str]) -> list[models.Rollout]:
    """For each document, NAMESPACE/SERVICE, who follows it and has got it."""
    names = [ResourceName(ResourceKind.POLICY, document) for document in documents]
    found, unreachable = await clients.all(names)
    return [_rollout(view, name, found, unreachable) for name in names]


def _rollout(view: View, name: ResourceName, found: Sequence[ClientInfo], unreachable: list[str]) -> models.Rollout:
    resource = view.resource(name)
    version = resource.version if isinstance(resource, Document) else 0
    followers = [_follower(info, name, version, behind) for info in found for on, behind in info.followed if on == name]
    followers.sort(key=lambda follower: _WORST_FIRST.index(follower.state))
    states = Counter(follower.state for follower in followers)
    return models.Rollout(
        document=name.name,
        revision=_revision(view, name.name),
        acknowledged=states["ACKNOWLEDGED"],
        behind=states["BEHIND"],
        refused=states["REFUSED"],
        clients=followers[:SHOWN_CLIENTS],
        unreachable=unreachable,
    )


def _follower(info: ClientInfo, name: ResourceName, version: int, behind: bool) -> models.Follower:
    reason = dict(info.nacks).get(str(name))
    # A replica whose view lags believes its clients up to date: what they acknowledged tells.
    late = behind or info.acked < version
    return models.Follower(
        node=info.node_id,
        program=info.name,
        namespace=info.namespace,
        replica=info.replica,
        state="BEHIND" if late else "ACKNOWLEDGED" if reason is None else "REFUSED",
        reason=reason or "",
    )


def _sections(held: Sequence[Stored | None], call: Call) -> list[models.EffectiveSection]:
    own, wide = [None if stored is None else policies.stored(_document(stored)) for stored in held]
    revisions = {"/".join(stored.ref.path): stored.revision for stored in held if stored is not None}
    request = Request(method=call.method, path=call.path, headers=call.headers, caller=call.caller)
    return [
        _section(section, found, revisions)
        for section, found in resolve(layers(own, wide), request).items()
        if found != Effective(None, BUILT_IN_ORIGIN)  # nobody says it
    ]


def _section(section: str, found: Effective, revisions: Mapping[str, int]) -> models.EffectiveSection:
    off = found.value is None
    return models.EffectiveSection(
        section=section,
        off=off,
        value=None if off else SECTIONS[section].write(found.value),
        brief=canonical.brief(section, OFF if off else found.value),
        document=found.origin.document,
        place=found.origin.place,
        revision=revisions.get(found.origin.document, 0),
    )


def _document(stored: Stored) -> PolicyDocument:
    assert isinstance(stored.record, PolicyDocument)
    return stored.record


def _revision(view: View, document: str) -> int:
    namespace, _, name = document.partition("/")
    stored = view.policy(namespace, name)
    return stored.revision if stored else 0
