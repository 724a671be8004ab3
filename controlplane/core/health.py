"""The one place where reported state, operator's intent and suspicion become what clients are told."""

from __future__ import annotations

from controlplane.core.model import Desired, Endpoint, Health, Instance, InstanceState

_OWN = {
    InstanceState.STARTING: Health.UNHEALTHY,
    InstanceState.SERVING: Health.HEALTHY,
    InstanceState.DRAINING: Health.DRAINING,
    InstanceState.UNHEALTHY: Health.UNHEALTHY,
}


def endpoint(instance: Instance, desired: Desired | None, *, suspect: bool) -> Endpoint:
    """Merge an instance's report with its operator's intent.

    An operator's drain wins over everything but a worse truth; suspicion shows only on what would otherwise look healthy.
    """
    health = _OWN[instance.state]
    if health is Health.HEALTHY and suspect:
        health = Health.SUSPECT
    if desired is not None and desired.drain and health in {Health.HEALTHY, Health.SUSPECT}:
        health = Health.DRAINING
    weight = desired.weight if desired is not None and desired.weight is not None else instance.weight
    return Endpoint(instance.id, instance.address, instance.port, weight, health, instance.zone, instance.metadata)
