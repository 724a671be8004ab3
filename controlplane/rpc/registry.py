"""``trimtab.v1.Registry``: registration and look-up without a stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from trimtab.v1 import registry_pb2 as pb
from trimtab.v1.registry_pb2_grpc import RegistryServicer

from controlplane.core.model import DEFAULT_NAMESPACE, Kind, Ref
from controlplane.core.resource import ResourceKind
from controlplane.core.validation import Findings, check_instance_name
from controlplane.core.view import View
from controlplane.errors import TrimtabError
from controlplane.rpc import convert
from controlplane.rpc.encoder import Encoder
from controlplane.rpc.failure import aborted
from controlplane.runtime.keeper import SessionKeeper, parse_handle
from controlplane.runtime.operations import Operations
from controlplane.transport.call import Call

MIN_TTL, MAX_TTL = 5.0, 3600.0

Request = TypeVar("Request")
Response = TypeVar("Response")
Method = Callable[["RegistryService", Request, Call], Awaitable[Response]]


def _refusing(method: Method[Request, Response]) -> Method[Request, Response]:
    """Let a method raise TrimtabError."""

    async def guarded(self: RegistryService, request: Request, context: Call) -> Response:
        try:
            return await method(self, request, context)
        except TrimtabError as error:
            raise aborted(error) from None

    return guarded


class RegistryService(RegistryServicer):
    """Sessions that their registrants renew by handle, on any replica."""

    def __init__(self, view: View, operations: Operations, keeper: SessionKeeper, *, default_ttl: float) -> None:
        self._view = view
        self._operations = operations
        self._keeper = keeper
        self._default_ttl = default_ttl
        self._encoder = Encoder(view)

    @_refusing
    async def OpenSession(self, request: pb.OpenSessionRequest, context: Call) -> pb.OpenSessionResponse:  # noqa: N802
        """Grant a session."""
        convert.check_node(request.node)
        ttl = request.ttl.ToNanoseconds() / 1e9 if request.HasField("ttl") else self._default_ttl
        if not MIN_TTL <= ttl <= MAX_TTL:
            findings = Findings()
            findings.add("ttl", f"{ttl:g} s is out of range", f"{MIN_TTL:g} s to {MAX_TTL:g} s")
            findings.raise_if_any("the session")
        # No replica owns it: its record names none, so that none adopts it.
        handle = await self._keeper.open_detached(convert.session_record(request.node, replica="", ttl=ttl))
        return pb.OpenSessionResponse(handle=handle, id=handle.partition(".")[0], ttl=convert.duration(ttl))

    @_refusing
    async def RenewSession(self, request: pb.RenewSessionRequest, context: Call) -> pb.RenewSessionResponse:  # noqa: N802
        """Renew it."""
        return pb.RenewSessionResponse(ttl=convert.duration(await self._keeper.renew_detached(request.handle)))

    @_refusing
    async def CloseSession(self, request: pb.CloseSessionRequest, context: Call) -> pb.CloseSessionResponse:  # noqa: N802
        """End it with all its instances."""
        await self._keeper.close_detached(request.handle)
        return pb.CloseSessionResponse()

    @_refusing
    async def RegisterInstance(  # noqa: N802
        self, request: pb.RegisterInstanceRequest, context: Call
    ) -> pb.RegisterInstanceResponse:
        """Register an instance of the session."""
        lease, session = parse_handle(request.handle)
        instance = convert.instance(request.instance, DEFAULT_NAMESPACE)
        revision = await self._operations.register(instance, session=session, lease=lease)
        return pb.RegisterInstanceResponse(instance_id=instance.id, revision=revision)

    @_refusing
    async def UpdateInstance(self, request: pb.UpdateInstanceRequest, context: Call) -> pb.UpdateInstanceResponse:  # noqa: N802
        """Replace what it reports."""
        lease, session = parse_handle(request.handle)
        instance = convert.instance(request.instance, DEFAULT_NAMESPACE)
        revision = await self._operations.update(instance, session=session, lease=lease)
        return pb.UpdateInstanceResponse(instance_id=instance.id, revision=revision)

    @_refusing
    async def DeregisterInstance(  # noqa: N802
        self, request: pb.DeregisterInstanceRequest, context: Call
    ) -> pb.DeregisterInstanceResponse:
        """Remove it."""
        lease, session = parse_handle(request.handle)
        namespace = request.namespace or DEFAULT_NAMESPACE
        check_instance_name(namespace, request.service, request.id)
        ref = Ref(Kind.INSTANCE, (namespace, request.service, request.id))
        revision = await self._operations.deregister(ref, session=session, lease=lease)
        return pb.DeregisterInstanceResponse(revision=revision)

    @_refusing
    async def ListServices(self, request: pb.ListServicesRequest, context: Call) -> pb.ListServicesResponse:  # noqa: N802
        """The services of a namespace."""
        names = self._view.services(request.namespace or DEFAULT_NAMESPACE)
        return pb.ListServicesResponse(services=[name.service for name in names], revision=self._view.revision)

    @_refusing
    async def GetEndpoints(self, request: pb.GetEndpointsRequest, context: Call) -> pb.GetEndpointsResponse:  # noqa: N802
        """A service's endpoints, as a subscriber would be told."""
        namespace = request.namespace or DEFAULT_NAMESPACE
        name = convert.resource_name(int(ResourceKind.ENDPOINTS), f"{namespace}/{request.service}", "request")
        return pb.GetEndpointsResponse(resource=self._encoder.resource(name), revision=self._view.revision)
