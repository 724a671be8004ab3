"""What an operator asks of the control plane, over its HTTP API."""

from __future__ import annotations

from typing import Any, NamedTuple

import httpx

from deploy.demo.program import DemoError

_SERVICE = "/v1/namespaces/default/services/orders"
_CONFIG = "/v1/namespaces/default/configs/orders/shop.yaml"


class Seat(NamedTuple):
    """An instance's place in the registry. A new registration is a new ``created`` revision, a new session a new name."""

    session: str
    created: int


class Admin:
    """The admin API at ``address``, HOST:PORT. Raises DemoError when it does not do what it is asked."""

    def __init__(self, address: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=f"http://{address}", timeout=2.0, trust_env=False, headers={"Trimtab-Actor": "demo"}
        )

    async def ready(self) -> bool:
        """The control plane answers, and has everything."""
        try:
            return (await self._http.get("/readyz")).is_success
        except httpx.TransportError:
            return False

    async def seats(self) -> dict[str, Seat]:
        """The instances of the order service, by id."""
        items = await self._items(f"{_SERVICE}/instances")
        return {item["id"]: Seat(item["session"], item["created"]) for item in items}

    async def healthy(self) -> set[str]:
        """Ids of the instances that clients may call."""
        items = await self._items(f"{_SERVICE}/instances")
        return {item["id"] for item in items if item["health"]["value"] == "HEALTHY"}

    async def sessions(self) -> set[str]:
        """Sessions of the clients that are connected; a client without an instance has none."""
        return {client["session"] for client in await self._items("/v1/clients")} - {""}

    async def refusals(self) -> list[str]:
        """Reasons of the clients that refused what they were sent."""
        clients = await self._items("/v1/clients")
        return [refusal["reason"] for client in clients for refusal in client["refusals"]]

    async def breakers(self) -> list[str]:
        """States of the circuits towards the order service, as its callers reported them."""
        return [item["state"] for item in await self._items("/v1/breakers?service=orders")]

    async def drain(self, instance: str) -> None:
        """Take an instance out of traffic; what ``trimtab drain`` does."""
        await self._ask("POST", f"{_SERVICE}/instances/{instance}:drain")

    async def publish(self, content: str) -> bool:
        """Publish the shop's configuration, as ``trimtab config set`` does; False while the store is away."""
        exists = (await self._http.get(_CONFIG)).is_success
        condition = {"If-Match": "*"} if exists else {"If-None-Match": "*"}
        try:
            answer = await self._http.put(_CONFIG, json={"format": "yaml", "content": content}, headers=condition)
        except httpx.TimeoutException:
            return False
        return answer.is_success

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _items(self, path: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self._ask("GET", path)).json()["items"]
        return items

    async def _ask(self, method: str, path: str) -> httpx.Response:
        try:
            answer = await self._http.request(method, path)
        except httpx.TransportError as error:
            raise DemoError(f"{method} {path}: {error!r}") from error
        if answer.is_error:
            raise DemoError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer
