"""The order service as a Flask application, served by gunicorn or by Werkzeug's development server."""

from __future__ import annotations

import os
import time

from flask import Flask, request
from trimtab import Mesh
from trimtab.servers.flask import MeshFlask

PORT = int(os.environ["PORT"])
mesh = Mesh(snapshot=False)
app = Flask(__name__)
MeshFlask(app, mesh, service="orders", port=PORT, address="127.0.0.1", drain="5s", readiness="/readyz")


@app.get("/v1/<order>")
def order(order: str) -> dict[str, object]:
    time.sleep(float(request.args.get("pause", "0")))
    return {"order": order, "port": PORT, "pid": os.getpid(), "serving": int(mesh.serving)}


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=PORT)
