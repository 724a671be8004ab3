"""A replica of the control plane as a process, and its HTTP API as seen from outside."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.support.town.process import Process, until


class Replica:
    """``trimtab serve`` at fixed ports, so that it can be started again in the same place."""

    def __init__(
        self, name: str, etcd: str, grpc_port: int, http_port: int, settings: Mapping[str, object], *, log: Path
    ) -> None:
        self.name = name
        self.address = f"127.0.0.1:{grpc_port}"
        self.http_address = f"127.0.0.1:{http_port}"
        self.log = log
        self._url = f"{'https' if 'tls_cert' in settings else 'http'}://{self.http_address}"
        token = settings.get("token")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._context = (
            ssl.create_default_context(cafile=str(settings["tls_client_ca"])) if "tls_cert" in settings else None
        )
        self.http = self._new_http(self._headers)
        self._command = [
            *(sys.executable, "-m", "controlplane", "serve", "--etcd", etcd),
            *("--grpc", self.address, "--http", self.http_address),
            *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")),
            *("--set", f"replica={name}"),
        ]
        self.process = self.start()

    def start(self) -> Process:
        """Start it (again); it is not ready yet."""
        self.process = Process(self.name, self._command, log=self.log)
        return self.process

    def show_certificate(self, cert: Path, key: Path) -> None:
        """From now on, ask with this certificate."""
        assert self._context is not None
        self._context.load_cert_chain(cert, key)

    def status_for(self, token: str) -> int:
        """HTTP status for somebody with this token."""
        with self._new_http({"Authorization": f"Bearer {token}"} if token else {}) as http:
            return http.get("/v1/clients").status_code

    def _new_http(self, headers: Mapping[str, str]) -> httpx.Client:
        verify = self._context or False
        return httpx.Client(base_url=self._url, timeout=10, trust_env=False, verify=verify, headers=headers)

    def ready(self) -> None:
        """Until it is ready."""
        until(self.is_ready, f"{self.name} is ready")

    def is_ready(self) -> bool:
        assert self.process.alive, f"{self.name} ended with {self.process.popen.returncode}\n{self.process.tail()}"
        try:
            return self.http.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def instances(self, service: str) -> dict[str, dict[str, Any]]:
        """Instances of a service of the default namespace, by id."""
        items = self.items(f"/v1/namespaces/default/services/{service}/instances")
        return {item["id"]: item for item in items}

    def healths(self, service: str) -> dict[str, str]:
        """Health of the instances of a service, by id."""
        return {id: item["health"]["value"] for id, item in self.instances(service).items()}

    def service(self, service: str) -> dict[str, Any]:
        answer = self.http.get(f"/v1/namespaces/default/services/{service}").raise_for_status()
        return dict(answer.json())

    def clients(self) -> dict[str, dict[str, Any]]:
        """Connected clients of all replicas, by the name of their program."""
        return {item["program"]: item for item in self.items("/v1/clients")}

    def items(self, path: str) -> list[dict[str, Any]]:
        """A listing, whole."""
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            answer = self.http.get(path, params={"page_token": token} if token else {}).raise_for_status().json()
            found += answer["items"]
            token = answer["next_page_token"]
            if not token:
                return found

    def publish(self, app: str, file: str, content: str) -> None:
        """Publish a configuration file, whatever was there before."""
        path = f"/v1/namespaces/default/configs/{app}/{file}"
        exists = self.http.get(path).is_success
        condition = {"If-Match": "*"} if exists else {"If-None-Match": "*"}
        body = {"format": "yaml", "content": content}
        self.http.put(path, json=body, headers=condition).raise_for_status()

    def clear(self) -> None:
        self.http.close()
        self.process.clear()
