"""The order service as a FastAPI application, served by uvicorn, alone or under gunicorn."""

from __future__ import annotations

import asyncio
import os

from fastapi import FastAPI
from trimtab import Mesh
from trimtab.servers.fastapi import MeshServer

PORT = int(os.environ["PORT"])
mesh = Mesh(snapshot=False)
app = FastAPI(lifespan=mesh.fastapi("orders", port=PORT, address="127.0.0.1", drain="5s"))
app.add_middleware(MeshServer, readiness="/readyz")


@app.get("/v1/{order}")
async def order(order: str, pause: float = 0.0) -> dict[str, object]:
    await asyncio.sleep(pause)
    return {"order": order, "port": PORT, "pid": os.getpid(), "serving": int(mesh.serving)}
