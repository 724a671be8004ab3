"""The shop's order service: Flask, in the mesh. One process is one instance: ``python -m deploy.demo.orders NAME VERSION``.

Its port is any free one: nobody needs to know it, the mesh does.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from flask import Flask, abort, request
from pydantic import BaseModel, Field
from trimtab import Mesh
from trimtab.servers.flask import MeshFlask
from werkzeug.serving import WSGIRequestHandler, make_server

from deploy.demo.ailment import Health
from deploy.demo.store import OrderStore, open_store

PRICES = {"teapot": 48_00, "lamp": 32_00, "chair": 129_00}


class Shop(BaseModel):
    """``orders/shop.yaml`` in the config centre."""

    discount: int = Field(default=0, ge=0, le=90, description="Percent off every price.")


def build(mesh: Mesh, store: OrderStore, health: Health) -> Flask:
    """The application: ``POST /orders``, ``GET /orders/ID`` and ``GET /catalogue``."""
    app = Flask("orders")
    shop = mesh.config("orders/shop.yaml", Shop, default=Shop())

    @app.before_request
    def suffer() -> None:
        if not health.endure():
            abort(500)

    @app.post("/orders")
    def place() -> tuple[dict[str, Any], int]:
        item = request.get_json()["item"]
        discount = shop.value.discount
        order = {"item": item, "discount": discount, "cents": price(item, discount)}
        return {"id": store.add(order), **order}, 201

    @app.get("/orders/<int:number>")
    def show(number: int) -> dict[str, Any]:
        return store.get(number) or abort(404)

    @app.get("/catalogue")
    def catalogue() -> dict[str, int]:
        return {item: price(item, shop.value.discount) for item in PRICES}

    return app


def price(item: str, discount: int) -> int:
    """What an item costs now, in cents."""
    return PRICES[item] * (100 - discount) // 100


class _KeepAlive(WSGIRequestHandler):
    """Connections stay open between calls, and a call is no line in a log."""

    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object) -> None:
        """Says nothing."""


def main() -> None:
    """Serve until SIGTERM: the mesh drains the instance first, then lets the server have the signal."""
    mesh = Mesh(name="orders")
    app = build(mesh, open_store(os.environ["ORDERS_STORE"]), Health())
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_KeepAlive)
    # `shutdown` waits for the loop that this thread runs, so another one must call it.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    MeshFlask(
        app,
        mesh,
        service="orders",
        port=server.port,
        address="127.0.0.1",
        id=sys.argv[1],
        metadata={"version": sys.argv[2]},
        drain="5s",
    )
    server.serve_forever()
    mesh.close()


if __name__ == "__main__":
    main()
