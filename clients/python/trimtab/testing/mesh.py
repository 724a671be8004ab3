"""The fake meshes: real faces, and beside them what a control plane, an operator and the endpoints would do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from textwrap import indent
from types import TracebackType
from typing import Any, Literal, Unpack

from trimtab.aio import AsyncMesh
from trimtab.calling import context
from trimtab.core.calling.call import Call
from trimtab.core.documents import FORMATS
from trimtab.core.endpoints import Endpoint, Health
from trimtab.hooks import Hooks
from trimtab.mesh import Mesh
from trimtab.policy.canonical import encode
from trimtab.policy.model import API_VERSION, EVERY, KIND
from trimtab.policy.problems import PolicyInvalid
from trimtab.policy.reading import read
from trimtab.settings import Options, resolve
from trimtab.testing.clock import FakeClock
from trimtab.testing.engine import FakeEngine
from trimtab.testing.registry import DEFAULT_WEIGHT, instance_id
from trimtab.testing.script import Answer, Script, Scripts
from trimtab.testing.stage import Stage
from trimtab.v1.types_pb2 import Config, Kind
from trimtab.v1.types_pb2 import Endpoint as WireEndpoint

_SUFFIXES = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".properties": "properties"}
_DOCUMENT = re.compile(r"""^\s*\{?\s*["']?apiVersion["']?\s*:""", re.MULTILINE)


class Controls:
    """Everything around a fake mesh, in a test's hands. Names of services are as the mesh takes them."""

    _fake: FakeEngine
    _scripts: Scripts

    @property
    def clock(self) -> FakeClock:
        """The time by which calls, and all that policies say of them, are made."""
        return self._fake.clock

    # Endpoints

    def add(
        self,
        service: str,
        *addresses: str,
        namespace: str | None = None,
        weight: int = DEFAULT_WEIGHT,
        zone: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Have instances at ``HOST:PORT`` in a service, healthy. Their ids are ``HOST-PORT``; who is there is replaced."""
        endpoints = []
        for written in addresses:
            host, _, port = written.rpartition(":")
            if not host or not port.isdigit():
                raise ValueError(f"{written!r} is not HOST:PORT")
            host = host.strip("[]")
            endpoints.append(
                WireEndpoint(
                    id=instance_id(host, int(port)),
                    address=host,
                    port=int(port),
                    weight=weight,
                    health=int(Health.HEALTHY),  # type: ignore[arg-type]
                    zone=zone,
                    metadata=metadata or {},
                )
            )
        with self._fake.lock:
            self._fake.registry.put(self._fake.service_name(service, namespace), endpoints)

    def remove(self, service: str, *ids: str, namespace: str | None = None) -> None:
        """Take instances away, all of them when none is named. Raises KeyError for one that is not there."""
        name, registry = self._fake.service_name(service, namespace), self._fake.registry
        with self._fake.lock:
            registry.remove(name, ids or tuple(registry.endpoints.get(name, ())))

    def health(
        self,
        service: str,
        id: str,
        health: Literal["healthy", "draining", "unhealthy", "suspect"],
        *,
        namespace: str | None = None,
    ) -> None:
        """Have the mesh say so of an instance. Raises KeyError for one that is not there, or for another word."""
        name, registry = self._fake.service_name(service, namespace), self._fake.registry
        with self._fake.lock:
            changed = WireEndpoint()
            changed.CopyFrom(registry.endpoints.get(name, {})[id])
            changed.health = int(Health[health.upper()])  # type: ignore[assignment]
            registry.put(name, [changed])

    def registered(self, service: str, *, namespace: str | None = None) -> list[Endpoint]:
        """The instances that this mesh registered and did not take away, as others see them."""
        name, registry = self._fake.service_name(service, namespace), self._fake.registry
        with self._fake.lock:
            known = registry.endpoints.get(name, {})
            found = [known[id_] for id_ in sorted(registry.registered.get(name, ()))]
        return [Endpoint(e.id, e.address, e.port, e.weight, e.health, e.zone, dict(e.metadata)) for e in found]

    # What operators do

    def policy(self, service: str, text: str | bytes | None, *, namespace: str | None = None) -> None:
        """Put a policy into force, at once: a document, or only its ``spec``; None: end it. ``*``: for all services.

        Raises PolicyInvalid, as the control plane would, and ValueError when it cannot be applied here.
        """
        name = self._fake.service_name(service, namespace)
        document = None if text is None else _document(name, text)
        if not name.endswith(f"/{EVERY}"):
            # Whether it can be applied shows with those that it holds for.
            self._fake.discover(name)
        with self._fake.lock:
            self._fake.registry.enact(name, document)
            refusal = self._fake.registry.refusals.get((Kind.KIND_POLICY, name))
        if refusal is not None:
            raise ValueError(f"the policy of {name} cannot be applied: {refusal}")

    def publish(self, file: str, content: Any, *, format: str | None = None) -> None:
        """Release a configuration file, ``APP/FILE`` or ``NAMESPACE/APP/FILE``.

        A text or bytes are taken as they are, in the format that the file's suffix tells unless ``format`` does ("text",
        "json", "yaml", "toml", "properties"); any other value is released as JSON.
        """
        if not isinstance(content, (str, bytes)):
            content, format = json.dumps(content), "json"
        told = format or _SUFFIXES.get(PurePath(file).suffix, "text")
        if told not in FORMATS:
            raise ValueError(f"format {told!r} is none of {', '.join(FORMATS)}")
        config = Config(format=told, content=content.encode() if isinstance(content, str) else content)
        with self._fake.lock:
            self._fake.registry.publish(self._fake.config_name(file), config)

    # What endpoints do, and what was made of it

    def respond(
        self,
        service: str,
        answers: Answer | Sequence[Answer],
        *,
        endpoint: str = "",
        namespace: str | None = None,
    ) -> None:
        """Have a service, or one ``endpoint`` of it by its id, answer HTTP requests by a script.

        An answer is a status, a Reply, an exception (``ConnectionRefusedError``, ``ConnectionResetError`` and ``TimeoutError``
        become the library's own), or a function of the Request that returns one of these. Of several, each request takes the
        next, and the last one stays. A script takes the place of the one before.
        """
        self._scripts.put(self._fake.service_name(service, namespace), endpoint, Script(answers))

    def pass_through(self, service: str, *, endpoint: str = "", namespace: str | None = None) -> None:
        """Have HTTP requests to a service, or one ``endpoint`` of it, go over the network to the address that it has."""
        self._scripts.put(self._fake.service_name(service, namespace), endpoint, None)

    def calls(self, service: str, *, namespace: str | None = None) -> list[Call]:
        """The traces of all calls to a service, in the order in which they began, also of those that were refused."""
        return list(self._fake.made.get(self._fake.service_name(service, namespace), ()))

    @property
    def _stage(self) -> Stage:
        return Stage(self._fake, self._scripts)


class FakeMesh(Controls, Mesh):
    """A Mesh that knows what its test tells it, makes its calls in virtual time, and writes them down.

    Takes what a Mesh takes, but nothing from the environment. ``seed``: of everything that is left to chance.
    """

    def __init__(
        self,
        *,
        clock: FakeClock | None = None,
        seed: int = 0,
        hooks: Sequence[Hooks] = (),
        **options: Unpack[Options],
    ) -> None:
        options["snapshot"] = False
        self._engine = self._fake = FakeEngine(resolve(environ={}, **options), clock or FakeClock(), seed, hooks)
        self._scripts = Scripts()

    def __enter__(self) -> FakeMesh:
        self._outer_clock = context.clock.set(self.clock)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        context.clock.reset(self._outer_clock)
        self.close()

    def http_client(self, **options: Any) -> Any:
        """Return an ``httpx.Client``, as ``Mesh.http_client`` does; scripts answer for ``mesh://``."""
        from trimtab.testing.httpx import staged_client

        return staged_client(self, self._stage, **options)

    def requests_adapter(self, **options: Any) -> Any:
        """Return an adapter for requests, as ``Mesh.requests_adapter`` does; scripts answer for ``mesh://``."""
        from trimtab.testing.requests import StagedAdapter

        return StagedAdapter(self, self._stage, **options)


class FakeAsyncMesh(Controls, AsyncMesh):
    """An AsyncMesh like FakeMesh; ``sync`` is the same mesh for threads."""

    def __init__(
        self,
        *,
        clock: FakeClock | None = None,
        seed: int = 0,
        hooks: Sequence[Hooks] = (),
        **options: Unpack[Options],
    ) -> None:
        self.sync = mesh = FakeMesh(clock=clock, seed=seed, hooks=hooks, **options)
        self._engine = self._fake = mesh._fake
        self._scripts = mesh._scripts

    async def __aenter__(self) -> FakeAsyncMesh:
        self.sync.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sync.__exit__(kind, error, trace)

    def http_client(self, **options: Any) -> Any:
        """Return an ``httpx.AsyncClient``, as ``AsyncMesh.http_client`` does; scripts answer for ``mesh://``."""
        from trimtab.testing.httpx import staged_async_client

        return staged_async_client(self, self._stage, **options)

    def aiohttp_session(self, **options: Any) -> Any:
        """Return an ``aiohttp.ClientSession``, as ``AsyncMesh.aiohttp_session`` does; scripts answer for ``mesh://``."""
        from trimtab.testing.aiohttp import staged_session

        return staged_session(self, self._stage, **options)


def _document(name: str, text: str | bytes) -> bytes:
    """A policy for ``name`` as it is pushed, from a whole document or its ``spec``. Raises PolicyInvalid, ValueError."""
    written = text.decode(errors="replace") if isinstance(text, bytes) else text
    if _DOCUMENT.search(written):
        policy = read(text)
        if str(policy) != name:
            raise ValueError(f"the document is for {policy}, not for {name}")
        return encode(policy)
    namespace, _, service = name.partition("/")
    head = f"apiVersion: {API_VERSION}\nkind: {KIND}\nmetadata: {{name: '{service}', namespace: '{namespace}'}}\n"
    try:
        return encode(read("spec:\n" + indent(written.rstrip(), "  ") + "\n" + head))
    except PolicyInvalid as invalid:
        # Told by the lines and columns of what was given.
        problems = [p._replace(line=p.line - 1, column=p.column - 2) if p.line > 1 else p for p in invalid.problems]
        raise PolicyInvalid(problems) from None
