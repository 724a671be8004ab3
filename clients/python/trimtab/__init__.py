"""Trimtab's SDK: ``Mesh`` and its asyncio twin ``AsyncMesh``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.calls import Pick as Pick
    from trimtab.core.endpoints import Endpoint as Endpoint
    from trimtab.core.endpoints import Health as Health
    from trimtab.core.endpoints import ServiceState as ServiceState
    from trimtab.errors import ConfigInvalid as ConfigInvalid
    from trimtab.errors import MeshClosed as MeshClosed
    from trimtab.errors import NoEndpoints as NoEndpoints
    from trimtab.errors import NotConnected as NotConnected
    from trimtab.errors import Refused as Refused
    from trimtab.errors import SettingsInvalid as SettingsInvalid
    from trimtab.errors import SnapshotInvalid as SnapshotInvalid
    from trimtab.errors import TrimtabError as TrimtabError
    from trimtab.mesh import Mesh as Mesh
    from trimtab.mesh import Registration as Registration

# Imported on first use: whoever needs only the stubs (the control plane) does not pay for gRPC's start.
_HOMES = {
    "ConfigInvalid": "trimtab.errors",
    "Endpoint": "trimtab.core.endpoints",
    "Health": "trimtab.core.endpoints",
    "Mesh": "trimtab.mesh",
    "MeshClosed": "trimtab.errors",
    "NoEndpoints": "trimtab.errors",
    "NotConnected": "trimtab.errors",
    "Pick": "trimtab.calls",
    "Refused": "trimtab.errors",
    "Registration": "trimtab.mesh",
    "ServiceState": "trimtab.core.endpoints",
    "SettingsInvalid": "trimtab.errors",
    "SnapshotInvalid": "trimtab.errors",
    "TrimtabError": "trimtab.errors",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'trimtab' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
