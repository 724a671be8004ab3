"""What is followed, between the disk and memory: read before a server tells of it, written after."""

from __future__ import annotations

import logging
import time

from trimtab.configs import ConfigFiles
from trimtab.core.calling.rules import Release
from trimtab.core.endpoints import Mismatch, ServiceState, decode
from trimtab.discovery import Discovery, read_release
from trimtab.disk import Disk, ResourceKey
from trimtab.v1.types_pb2 import Kind, Resource

logger = logging.getLogger("trimtab")


def state_from(disk: Disk, name: str) -> ServiceState | None:
    """What was saved of a service, to be confirmed; None when there is nothing that can be used."""
    saved = disk.load((Kind.KIND_ENDPOINTS, name))
    if saved is None:
        return None
    try:
        state = ServiceState(name).apply(decode(saved.resource))
    except Mismatch as mismatch:
        logger.warning("snapshot.invalid: %s: %s", name, mismatch)
        return None
    age = max(0.0, time.time() - saved.saved_at)
    logger.info("%s: %d endpoints from a snapshot %.0f s old", name, len(state.endpoints), age)
    return state.unconfirmed()


def policy_from(disk: Disk, name: str) -> Release | None:
    """The policy that was saved, likewise."""
    saved = disk.load((Kind.KIND_POLICY, name))
    if saved is None:
        return None
    try:
        return read_release(saved.resource)
    except ValueError as error:
        logger.warning("snapshot.invalid: policy %s: %s", name, error)
        return None


def config_from(disk: Disk, name: str) -> Resource | None:
    """The release of a configuration file that was saved."""
    saved = disk.load((Kind.KIND_CONFIG, name))
    return saved.resource if saved is not None else None


def worth_saving(key: ResourceKey, discovery: Discovery, configs: ConfigFiles) -> Resource | None:
    """A resource as it is now, None when there is nothing to go on with after a restart."""
    kind, name = key
    if kind == Kind.KIND_CONFIG:
        file = configs.find(name)
        good = file.good if file is not None else None
        return good if good is not None and good.HasField("config") else None
    if kind == Kind.KIND_POLICY:
        policy = discovery.policy(name)
        return policy if policy is not None and policy.HasField("policy") else None
    callee = discovery.find(name)
    return callee.state.to_resource() if callee is not None and callee.state.version else None
