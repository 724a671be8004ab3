"""``trimtab.v1.Admin``, served, and asked of other replicas."""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from typing import TypeVar

import grpc
from trimtab.v1 import admin_pb2 as pb
from trimtab.v1.admin_pb2_grpc import AdminServicer, AdminStub

from controlplane.core.resource import ResourceName
from controlplane.errors import TrimtabError
from controlplane.rpc import convert, reports
from controlplane.rpc.failure import aborted
from controlplane.runtime.breakers import BreakerInfo
from controlplane.runtime.clients import ClientInfo, Clients
from controlplane.runtime.reported import ReportFilter
from controlplane.runtime.traffic import Traffic
from controlplane.transport.call import Call

_DEADLINE = 2.0

Answer = TypeVar("Answer")


class AdminService(AdminServicer):
    """What operators ask."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def ListClients(self, request: pb.ListClientsRequest, context: Call) -> pb.ListClientsResponse:  # noqa: N802
        """Client streams, here or everywhere."""
        try:
            following = convert.names(request.following)
        except TrimtabError as error:
            raise aborted(error) from None
        if request.local:
            found, silent = self._clients.local(following), list[str]()
        else:
            found, silent = await self._clients.all(following)
        return pb.ListClientsResponse(clients=[convert.client(info) for info in found], silent_replicas=silent)

    async def ListBreakers(self, request: pb.ListBreakersRequest, context: Call) -> pb.ListBreakersResponse:  # noqa: N802
        """Circuits of clients, here or everywhere."""
        wanted = ReportFilter(request.caller, request.namespace, request.service)
        if request.local:
            (found, omitted), silent = await self._clients.local_breakers(wanted), list[str]()
        else:
            found, omitted, silent = await self._clients.breakers(wanted)
        return pb.ListBreakersResponse(
            breakers=[reports.breaker(info) for info in found], omitted=omitted, silent_replicas=silent
        )

    async def ListTraffic(self, request: pb.ListTrafficRequest, context: Call) -> pb.ListTrafficResponse:  # noqa: N802
        """Calls of clients to endpoints, here or everywhere."""
        wanted = ReportFilter(request.caller, request.namespace, request.service)
        if request.local:
            (found, omitted), silent = await self._clients.local_traffic(wanted, request.by_caller), list[str]()
        else:
            found, omitted, silent = await self._clients.traffic(wanted, request.by_caller)
        return pb.ListTrafficResponse(
            traffic=[reports.traffic(one) for one in found], omitted=omitted, silent_replicas=silent
        )


class Peers:
    """Asks other replicas; one channel each, kept."""

    def __init__(self, *, token: str | None, credentials: grpc.ChannelCredentials | None) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._credentials = credentials
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def clients(self, address: str, following: Collection[ResourceName]) -> list[ClientInfo]:
        """The clients of the replica at ``address``. Raises OSError when it does not answer within two seconds."""
        request = convert.clients_asked(following)
        call = self._stub(address).ListClients(request, timeout=_DEADLINE, metadata=self._metadata)
        answer: pb.ListClientsResponse = await _answered(call, address)
        return [convert.client_info(message) for message in answer.clients]

    async def breakers(self, address: str, wanted: ReportFilter) -> tuple[list[BreakerInfo], int]:
        """What its clients report, and how much more there is. Raises OSError when it does not answer within two seconds."""
        request = pb.ListBreakersRequest(
            local=True, caller=wanted.caller, namespace=wanted.namespace, service=wanted.service
        )
        call = self._stub(address).ListBreakers(request, timeout=_DEADLINE, metadata=self._metadata)
        answer: pb.ListBreakersResponse = await _answered(call, address)
        return list(reports.breaker_infos(answer.breakers)), answer.omitted

    async def traffic(self, address: str, wanted: ReportFilter, by_caller: bool) -> tuple[list[Traffic], int]:
        """What its clients report of their calls, and how much more there is. Raises OSError as ``breakers`` does."""
        request = pb.ListTrafficRequest(
            local=True, caller=wanted.caller, namespace=wanted.namespace, service=wanted.service, by_caller=by_caller
        )
        call = self._stub(address).ListTraffic(request, timeout=_DEADLINE, metadata=self._metadata)
        answer: pb.ListTrafficResponse = await _answered(call, address)
        return list(reports.traffic_infos(answer.traffic)), answer.omitted

    async def close(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            await channel.close(None)

    def _stub(self, address: str) -> AdminStub:
        return AdminStub(self._channel(address))  # type: ignore[no-untyped-call]

    def _channel(self, address: str) -> grpc.aio.Channel:
        channel = self._channels.get(address)
        if channel is None:
            if self._credentials is None:
                channel = grpc.aio.insecure_channel(address)
            else:
                channel = grpc.aio.secure_channel(address, self._credentials)
            self._channels[address] = channel
        return channel


async def _answered(call: Awaitable[Answer], address: str) -> Answer:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise OSError(f"{address}: {error.details()}") from None
