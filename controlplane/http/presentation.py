"""What an operator is shown of the view, and the words for why."""

from __future__ import annotations

import base64
import time
from collections import Counter

from controlplane.core import policies
from controlplane.core.model import (
    ConfigFile,
    Desired,
    Health,
    InstanceState,
    PolicyDocument,
    ServiceName,
    Stored,
)
from controlplane.core.resource import EndpointSet
from controlplane.core.view import Listed, View
from controlplane.http import models
from controlplane.runtime.breakers import BreakerInfo
from controlplane.runtime.clients import ClientInfo
from controlplane.runtime.traffic import Traffic

_OWN_WHY = {
    InstanceState.STARTING: "the instance is still starting: listed, never called",
    InstanceState.SERVING: "the instance reports SERVING",
    InstanceState.DRAINING: "the instance drains itself: no new calls",
    InstanceState.UNHEALTHY: "the instance reports that its own health check fails",
}
_SUSPECT_WHY = (
    "its session broke together with many others: the mass-failure guard keeps it listed until that is settled"
)


def namespace(view: View, name: str) -> models.Namespace:
    """One namespace with what it holds."""
    return models.Namespace(
        name=f"namespaces/{name}",
        namespace=name,
        services=len(view.services(name)),
        configs=len(view.configs(name)),
        policies=len(view.policies(name)),
    )


def service(name: ServiceName, endpoints: EndpointSet) -> models.Service:
    """One service and how its instances fare."""
    fares = Counter(endpoint.health for endpoint in endpoints.endpoints.values())
    return models.Service(
        name=f"namespaces/{name.namespace}/services/{name.service}",
        namespace=name.namespace,
        service=name.service,
        instances=len(endpoints.endpoints),
        healthy=fares[Health.HEALTHY],
        draining=fares[Health.DRAINING],
        unhealthy=fares[Health.UNHEALTHY],
        suspect=fares[Health.SUSPECT],
        protected=endpoints.protected,
        revision=endpoints.version,
    )


def instance(listed: Listed) -> models.Instance:
    """One instance: as reported, as desired, as clients are told."""
    reported, desired = listed.instance, _desired(listed)
    return models.Instance(
        name=f"namespaces/{reported.namespace}/services/{reported.service}/instances/{reported.id}",
        namespace=reported.namespace,
        service=reported.service,
        id=reported.id,
        reported=models.Reported(
            address=reported.address,
            port=reported.port,
            weight=reported.weight,
            zone=reported.zone,
            metadata=reported.metadata,
            state=reported.state.name,
        ),
        desired=desired,
        health=_health(listed, desired),
        weight=_weight(listed, desired),
        session=f"{listed.stored.lease:x}",
        created=listed.stored.created,
        revision=max(listed.stored.revision, desired.revision if desired else 0),
    )


def instance_tag(listed: Listed) -> str:
    """An instance's entity tag: revisions of report and intent, and the health, which a guard changes without either."""
    desired = listed.desired.revision if listed.desired else 0
    return f'"{listed.stored.revision}.{desired}.{int(listed.endpoint.health)}"'


def config(stored: Stored) -> models.Config:
    """A configuration file without its content."""
    file = _file(stored)
    namespace, app, name = stored.ref.path
    return models.Config(
        name=f"namespaces/{namespace}/configs/{app}/{name}",
        namespace=namespace,
        app=app,
        file=name,
        format=file.format,
        size=len(file.content),
        author=file.author,
        created=stored.created,
        revision=stored.revision,
    )


def release(stored: Stored) -> models.ConfigRelease:
    """A configuration file with its content, base64 when it is no text."""
    raw = _file(stored).content
    encoding: models.Encoding = "utf-8"
    try:
        content = raw.decode()
    except UnicodeDecodeError:
        content, encoding = base64.b64encode(raw).decode(), "base64"
    return models.ConfigRelease(**config(stored).model_dump(), content=content, encoding=encoding)


def policy(stored: Stored) -> models.Policy:
    """A policy document without its content."""
    held = _policy(stored)
    namespace, service = stored.ref.path
    sections, routes = policies.outline(held.document)
    return models.Policy(
        name=f"namespaces/{namespace}/policies/{service}",
        namespace=namespace,
        service=service,
        sections=list(sections),
        routes=routes,
        author=held.author,
        created=stored.created,
        revision=stored.revision,
    )


def policy_content(stored: Stored) -> models.PolicyContent:
    """A policy document with its content."""
    held = _policy(stored)
    return models.PolicyContent(
        **policy(stored).model_dump(),
        document=policies.plain(held),
        text=policies.text(held),
        source=held.source,
    )


def breaker(info: BreakerInfo) -> models.Breaker:
    """A circuit breaker of a client."""
    scope = f"endpoints/{info.endpoint}" if info.endpoint else f"methods/{info.method}" if info.method else "service"
    return models.Breaker(
        name=f"replicas/{info.replica}/clients/{info.node}/breakers/{info.namespace}/{info.service}/{scope}",
        node=info.node,
        caller=info.caller,
        caller_namespace=info.caller_namespace,
        namespace=info.namespace,
        service=info.service,
        endpoint=info.endpoint,
        method=info.method,
        state=info.state.name,
        since=time.time() - info.age,
        calls=info.calls,
        failure_ratio=info.failure_ratio,
        slow_ratio=info.slow_ratio,
        retry_after=info.retry_after,
        replica=info.replica,
    )


def traffic(one: Traffic) -> models.Traffic:
    """Calls to an endpoint. Rounded: what differs in the last digits of a sum is no news to a watch."""
    place = f"traffic/{one.namespace}/{one.service}/{one.endpoint}"
    return models.Traffic(
        name=f"replicas/{one.replica}/clients/{one.node}/{place}" if one.node else place,
        namespace=one.namespace,
        service=one.service,
        endpoint=one.endpoint,
        caller=one.caller,
        caller_namespace=one.caller_namespace,
        node=one.node,
        replica=one.replica,
        callers=one.callers,
        calls_per_second=round(one.calls, 3),
        failure_ratio=round(one.failure_ratio, 6),
        latency_mean=None if one.latency is None else round(one.latency, 6),
        in_flight=one.in_flight,
        ejecting=one.ejecting,
        ejected_by=list(one.ejected_by),
        age=round(one.age, 3),
    )


def client(info: ClientInfo) -> models.Client:
    """A connected client, its state in one word."""
    refusals = [models.Refusal(resource=resource, reason=reason) for resource, reason in info.nacks]
    load = info.load
    return models.Client(
        name=f"replicas/{info.replica}/clients/{info.node_id}",
        node=info.node_id,
        program=info.name,
        namespace=info.namespace,
        state="NACK" if refusals else "STALE" if info.behind else "SYNCED",
        acknowledged=info.acked,
        refusals=refusals,
        subscriptions=info.subscriptions,
        replica=info.replica,
        session=info.session,
        sdk=info.sdk,
        host=info.host,
        pid=info.pid,
        zone=info.zone,
        peer=info.peer,
        connected_at=info.connected_at,
        heartbeat_age=info.last_heartbeat_age,
        load=models.Load(cpu=_known(load.cpu), memory=_known(load.memory), serving=load.serving, calling=load.calling),
    )


def _desired(listed: Listed) -> models.Desired | None:
    if listed.desired is None:
        return None
    wanted = listed.desired.record
    assert isinstance(wanted, Desired)
    return models.Desired(drain=wanted.drain, weight=wanted.weight, by=wanted.by, revision=listed.desired.revision)


def _health(listed: Listed, desired: models.Desired | None) -> models.EffectiveHealth:
    """The origin is whose word decided; words for what another party says as well follow after it."""
    value, state = listed.endpoint.health, listed.instance.state
    if value is Health.SUSPECT:
        return models.EffectiveHealth(value="SUSPECT", origin="guard", why=_SUSPECT_WHY)
    drained = f"drained by {desired.by or 'an operator'}" if desired and desired.drain else ""
    if value is Health.DRAINING and state is not InstanceState.DRAINING:
        return models.EffectiveHealth(
            value="DRAINING", origin="operator", why=f"{drained}; the instance reports {state.name}"
        )
    why = _OWN_WHY[state] + (f"; also {drained}" if drained else "")
    return models.EffectiveHealth(value=value.name, origin="instance", why=why)


def _weight(listed: Listed, desired: models.Desired | None) -> models.EffectiveWeight:
    value, own = listed.endpoint.weight, listed.instance.weight
    if desired is None or desired.weight is None:
        return models.EffectiveWeight(value=value, origin="instance", why=f"the instance reports {own}")
    why = f"set by {desired.by or 'an operator'}; the instance reports {own}"
    return models.EffectiveWeight(value=value, origin="operator", why=why)


def _file(stored: Stored) -> ConfigFile:
    assert isinstance(stored.record, ConfigFile)
    return stored.record


def _policy(stored: Stored) -> PolicyDocument:
    assert isinstance(stored.record, PolicyDocument)
    return stored.record


def _known(share: float) -> float | None:
    return share if share >= 0 else None
