"""A mesh without a network: calls go the way they go in production, only what a control plane would say is in memory."""

from __future__ import annotations

import random
from collections.abc import Mapping
from textwrap import indent

from trimtab.core.calling.rules import Release
from trimtab.core.endpoints import ServiceState
from trimtab.discovery import Callee
from trimtab.engine import Engine
from trimtab.mesh import Mesh
from trimtab.settings import resolve
from trimtab.testing.clock import FakeClock
from trimtab.testing.engine import FakeEngine
from trimtab.testing.mesh import Controls
from trimtab.testing.script import Scripts
from trimtab.v1.types_pb2 import Resource

_SEED = 1


class OfflineEngine(FakeEngine):
    """The engine of the fake mesh, but for its calls: those are made by the machine's clock and not written down."""

    ready = Engine.ready

    def new_callee(self, name: str, state: ServiceState | None, policies: Mapping[str, Release | None]) -> Callee:
        """A service as a real engine makes it, its chance the same in every run."""
        return Callee(name, self.caller, self.no_endpoints, state, policies, random.Random(f"{_SEED} {name}"))


class OfflineMesh(Controls, Mesh):
    """A Mesh whose endpoints and policies are set by hand, as a FakeMesh's are."""

    def __init__(self) -> None:
        self._engine = self._fake = OfflineEngine(resolve(environ={}, snapshot=False), FakeClock(), _SEED)
        self._scripts = Scripts()

    def settle(self, service: str, endpoints: int, *defaults: str) -> Callee:
        """A service of so many endpoints, in versions 1 and 2, ready to be called.

        Its policy says the last of ``defaults``, having said those before it.
        """
        for number in range(endpoints):
            self.add(service, f"10.0.0.{1 + number}:8000", metadata={"version": str(1 + number % 2)})
        for default in defaults:
            self.policy(service, "default:\n" + indent(default, "  "))
        return self.callee(service)

    def enact(self, resource: Resource) -> None:
        """Put a policy in force that came as the wire has it."""
        refusal = self._engine.discovery.apply_policy(resource)
        assert refusal is None, refusal.reason
