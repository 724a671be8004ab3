"""Trimtab's SDK: ``Mesh`` and its asyncio twin ``AsyncMesh``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.aio import AsyncMesh as AsyncMesh
    from trimtab.aio import AsyncRegistration as AsyncRegistration
    from trimtab.callbacks import Watch as Watch
    from trimtab.calling.context import remaining as remaining
    from trimtab.calling.context import within as within
    from trimtab.calling.pick import Pick as Pick
    from trimtab.configs import LiveConfig as LiveConfig
    from trimtab.core.endpoints import Endpoint as Endpoint
    from trimtab.core.endpoints import Health as Health
    from trimtab.core.endpoints import ServiceState as ServiceState
    from trimtab.errors import CircuitOpen as CircuitOpen
    from trimtab.errors import ConfigInvalid as ConfigInvalid
    from trimtab.errors import DeadlineExceeded as DeadlineExceeded
    from trimtab.errors import FaultInjected as FaultInjected
    from trimtab.errors import MeshClosed as MeshClosed
    from trimtab.errors import NoEndpoints as NoEndpoints
    from trimtab.errors import NotConnected as NotConnected
    from trimtab.errors import Overloaded as Overloaded
    from trimtab.errors import RateLimited as RateLimited
    from trimtab.errors import Refused as Refused
    from trimtab.errors import Rejected as Rejected
    from trimtab.errors import RetriesExhausted as RetriesExhausted
    from trimtab.errors import SettingsInvalid as SettingsInvalid
    from trimtab.errors import SnapshotInvalid as SnapshotInvalid
    from trimtab.errors import TrimtabError as TrimtabError
    from trimtab.hooks import Hooks as Hooks
    from trimtab.mesh import Mesh as Mesh
    from trimtab.registration import Registration as Registration
    from trimtab.status import Status as Status

# Imported on first use: whoever needs only the stubs (the control plane) does not pay for gRPC's start.
_HOMES = {
    "AsyncMesh": "trimtab.aio",
    "AsyncRegistration": "trimtab.aio",
    "CircuitOpen": "trimtab.errors",
    "ConfigInvalid": "trimtab.errors",
    "DeadlineExceeded": "trimtab.errors",
    "Endpoint": "trimtab.core.endpoints",
    "FaultInjected": "trimtab.errors",
    "Health": "trimtab.core.endpoints",
    "Hooks": "trimtab.hooks",
    "LiveConfig": "trimtab.configs",
    "Mesh": "trimtab.mesh",
    "MeshClosed": "trimtab.errors",
    "NoEndpoints": "trimtab.errors",
    "NotConnected": "trimtab.errors",
    "Overloaded": "trimtab.errors",
    "Pick": "trimtab.calling.pick",
    "RateLimited": "trimtab.errors",
    "Refused": "trimtab.errors",
    "Registration": "trimtab.registration",
    "Rejected": "trimtab.errors",
    "RetriesExhausted": "trimtab.errors",
    "ServiceState": "trimtab.core.endpoints",
    "SettingsInvalid": "trimtab.errors",
    "SnapshotInvalid": "trimtab.errors",
    "Status": "trimtab.status",
    "TrimtabError": "trimtab.errors",
    "Watch": "trimtab.callbacks",
    "remaining": "trimtab.calling.context",
    "within": "trimtab.calling.context",
}

__all__ = [
    "AsyncMesh",
    "AsyncRegistration",
    "CircuitOpen",
    "ConfigInvalid",
    "DeadlineExceeded",
    "Endpoint",
    "FaultInjected",
    "Health",
    "Hooks",
    "LiveConfig",
    "Mesh",
    "MeshClosed",
    "NoEndpoints",
    "NotConnected",
    "Overloaded",
    "Pick",
    "RateLimited",
    "Refused",
    "Registration",
    "Rejected",
    "RetriesExhausted",
    "ServiceState",
    "SettingsInvalid",
    "SnapshotInvalid",
    "Status",
    "TrimtabError",
    "Watch",
    "remaining",
    "within",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'trimtab' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
