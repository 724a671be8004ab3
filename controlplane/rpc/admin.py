"""``trimtab.v1.Admin``, served, and asked of other replicas."""

from __future__ import annotations

import grpc
from trimtab.v1 import admin_pb2 as pb
from trimtab.v1.admin_pb2_grpc import AdminServicer, AdminStub

from controlplane.rpc import convert
from controlplane.runtime.clients import ClientInfo, Clients
from controlplane.transport.call import Call

_DEADLINE = 2.0


class AdminService(AdminServicer):
    """What operators ask."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def ListClients(self, request: pb.ListClientsRequest, context: Call) -> pb.ListClientsResponse:  # noqa: N802
        """Client streams, here or everywhere."""
        found, silent = (self._clients.local(), list[str]()) if request.local else await self._clients.all()
        return pb.ListClientsResponse(clients=[convert.client(info) for info in found], silent_replicas=silent)


class Peers:
    """Asks other replicas; one channel each, kept."""

    def __init__(self, *, token: str | None, credentials: grpc.ChannelCredentials | None) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._credentials = credentials
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def clients(self, address: str) -> list[ClientInfo]:
        """The clients of the replica at ``address``. Raises OSError when it does not answer within two seconds."""
        stub = AdminStub(self._channel(address))  # type: ignore[no-untyped-call]
        try:
            answer = await stub.ListClients(
                pb.ListClientsRequest(local=True), timeout=_DEADLINE, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            raise OSError(f"{address}: {error.details()}") from None
        return [convert.client_info(message) for message in answer.clients]

    async def close(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            await channel.close(None)

    def _channel(self, address: str) -> grpc.aio.Channel:
        channel = self._channels.get(address)
        if channel is None:
            if self._credentials is None:
                channel = grpc.aio.insecure_channel(address)
            else:
                channel = grpc.aio.secure_channel(address, self._credentials)
            self._channels[address] = channel
        return channel
