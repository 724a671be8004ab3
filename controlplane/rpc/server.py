"""The gRPC server: services, health, reflection, TLS, the token, and the options that thousands of streams need."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from trimtab.v1 import admin_pb2, admin_pb2_grpc, mesh_pb2, registry_pb2, registry_pb2_grpc

from controlplane.errors import Code, TrimtabError
from controlplane.rpc.admin import AdminService
from controlplane.rpc.failure import abort
from controlplane.rpc.mesh import METHOD, MeshService
from controlplane.rpc.registry import RegistryService

_MAX_MESSAGE = 1024 * 1024
_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # two servers on one port by accident must be an error, not a coin toss
    # A storm of thousands of new streams must queue, not be refused (the defaults drop part of it).
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class RpcServer:
    """One listening gRPC server."""

    def __init__(self, server: grpc.aio.Server, health_service: HealthServicer, port: int) -> None:
        self._server = server
        self._health = health_service
        self.port = port

    async def start(self) -> None:
        """Accept connections."""
        await self._server.start()

    async def serving(self, serving: bool) -> None:
        """Tell health watchers."""
        states = health_pb2.HealthCheckResponse
        state = states.SERVING if serving else states.NOT_SERVING
        for service in ("", METHOD):
            await self._health.set(service, state)

    async def stop(self, grace: float) -> None:
        """Accept nothing new, end what is left after ``grace`` seconds."""
        await self._server.stop(grace)


async def build_server(
    address: str,
    *,
    mesh: MeshService,
    registry: RegistryService,
    admin: AdminService,
    token: str | None,
    credentials: grpc.ServerCredentials | None,
) -> RpcServer:
    """Bind ``address`` (port 0: any). Raises SETTINGS when that is not possible."""
    interceptors = [TokenInterceptor(token)] if token else []
    server = grpc.aio.server(interceptors=interceptors, options=list(_OPTIONS))
    server.add_generic_rpc_handlers((mesh.handler(),))
    registry_pb2_grpc.add_RegistryServicer_to_server(registry, server)  # type: ignore[no-untyped-call]
    admin_pb2_grpc.add_AdminServicer_to_server(admin, server)  # type: ignore[no-untyped-call]
    health_service = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    described = (mesh_pb2, registry_pb2, admin_pb2, health_pb2)
    names = [
        name for module in described for name in (s.full_name for s in module.DESCRIPTOR.services_by_name.values())
    ]
    reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
    try:
        port = (
            server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        )
    except RuntimeError as error:
        raise TrimtabError(
            Code.SETTINGS,
            f"grpc_address {address} cannot be bound: {error}",
            hint="another process may hold the port: choose another one, or port 0 for any",
        ) from None
    return RpcServer(server, health_service, port)


def server_credentials(cert: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    """TLS; with ``client_ca``, clients must show a certificate that it signed."""
    return grpc.ssl_server_credentials(
        [(key.read_bytes(), cert.read_bytes())],
        root_certificates=client_ca.read_bytes() if client_ca else None,
        require_client_auth=client_ca is not None,
    )


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # generic in the stubs alone
    """Refuses calls without the bearer token; health checks need none."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Check the ``authorization`` metadata in constant time."""
        handler = await continuation(handler_call_details)
        given = dict(handler_call_details.invocation_metadata or ()).get("authorization", "")
        raw = given.encode() if isinstance(given, str) else given
        if handler_call_details.method.startswith("/grpc.health.v1.") or hmac.compare_digest(raw, self._expected):
            return handler
        return _refusal(handler)


def _refusal(handler: grpc.RpcMethodHandler[Any, Any] | None) -> grpc.RpcMethodHandler[Any, Any]:
    error = TrimtabError(
        Code.UNAUTHENTICATED, "the bearer token is missing or wrong", hint="set TRIMTAB_TOKEN to this mesh's token"
    )

    async def refuse_stream(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await abort(context, error)

    if handler is not None and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(refuse_stream)
    return grpc.unary_unary_rpc_method_handler(refuse_stream)
