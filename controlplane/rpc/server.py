"""The gRPC server: services, health, reflection, TLS and the token."""

from __future__ import annotations

import hmac
import socket
import ssl
from pathlib import Path

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer
from trimtab.v1 import admin_pb2, admin_pb2_grpc, mesh_pb2, registry_pb2, registry_pb2_grpc

from controlplane.errors import Code, TrimtabError
from controlplane.rpc.admin import AdminService
from controlplane.rpc.failure import aborted
from controlplane.rpc.mesh import METHOD, MeshService
from controlplane.rpc.registry import RegistryService
from controlplane.transport.call import Call
from controlplane.transport.port import bind
from controlplane.transport.server import Server

_OPEN_TO_ALL = "/grpc.health.v1."


class RpcServer:
    """One listening gRPC server. Raises SETTINGS when ``address`` (HOST:PORT, port 0: any) cannot be bound."""

    def __init__(
        self,
        address: str,
        *,
        mesh: MeshService,
        registry: RegistryService,
        admin: AdminService,
        token: str | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._tls = tls
        self._server = Server(guard=TokenGuard(token) if token else None)
        self._health = HealthServicer()
        self._server.add_callback_handler(f"/{METHOD}/Connect", mesh.connect)
        registry_pb2_grpc.add_RegistryServicer_to_server(registry, self._server)  # type: ignore[no-untyped-call]
        admin_pb2_grpc.add_AdminServicer_to_server(admin, self._server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        described = (mesh_pb2, registry_pb2, admin_pb2, health_pb2, reflection_pb2)
        names = [
            name for module in described for name in (s.full_name for s in module.DESCRIPTOR.services_by_name.values())
        ]
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(ReflectionServicer(names), self._server)
        self._socket: socket.socket = bind(address, "grpc_address")
        self.port: int = self._socket.getsockname()[1]

    async def start(self) -> None:
        """Accept connections."""
        await self._server.start(self._socket, self._tls)

    async def serving(self, serving: bool) -> None:
        """Tell health watchers."""
        states = health_pb2.HealthCheckResponse
        state = states.SERVING if serving else states.NOT_SERVING
        for service in ("", METHOD):
            await self._health.set(service, state)

    async def stop(self, grace: float) -> None:
        """Accept nothing new, end what is left after ``grace`` seconds."""
        await self._server.stop(grace)


def server_tls(cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """TLS; with ``client_ca``, clients must show a certificate that it signed."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2"])
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class TokenGuard:
    """Refuses calls without the bearer token; health checks need none."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    def __call__(self, call: Call) -> None:
        """Check the ``authorization`` metadata in constant time. Raises Aborted."""
        given = dict(call.invocation_metadata()).get("authorization", "")
        raw = given.encode() if isinstance(given, str) else given
        if not (call.request.method.startswith(_OPEN_TO_ALL) or hmac.compare_digest(raw, self._expected)):
            error = TrimtabError(
                Code.UNAUTHENTICATED,
                "the bearer token is missing or wrong",
                hint="set TRIMTAB_TOKEN to this mesh's token",
            )
            raise aborted(error)
