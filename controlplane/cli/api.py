"""The admin API as the commands use it. Imports httpx only when a command speaks to a server."""

from __future__ import annotations

import getpass
import json
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

import click

from controlplane import __version__
from controlplane.cli.failure import Exit, Failure, of_problem

if TYPE_CHECKING:
    import httpx

DEFAULT_SERVER = "http://127.0.0.1:7070"
TIMEOUT_S = 10.0
SILENCE_S = 45.0  # a watch's server speaks every 15 s
PAGE_SIZE = 1000

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Server:
    """Where the API is and how to prove who asks."""

    url: str
    token: str | None
    ca: str | None
    cert: str | None
    key: str | None


def server_options(command: Command) -> Command:
    """Add the options that name the server; the command gets them as one ``server``."""

    def gather(context: click.Context, parameter: click.Parameter, value: str) -> Server:
        url = value if "//" in value else f"http://{value}"
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise click.BadParameter(f"{value!r} is no URL, as {DEFAULT_SERVER}", context, parameter)
        given = context.params
        return Server(url.rstrip("/"), *(given.pop(name) for name in ("token", "ca", "cert", "key")))

    def option(name: str, variable: str, text: str, **more: Any) -> Callable[[Command], Command]:
        return click.option(name, envvar=variable, show_envvar=True, help=text, **more)

    file = click.Path(exists=True, dir_okay=False)
    eager: dict[str, Any] = {"is_eager": True}  # gathered by --server's callback, which runs after these
    url = {"metavar": "URL", "default": DEFAULT_SERVER, "show_default": True, "callback": gather}
    for add in (
        option("--key", "TRIMTAB_KEY", "PEM key of that certificate.", type=file, **eager),
        option("--cert", "TRIMTAB_CERT", "PEM certificate to show to the server.", type=file, **eager),
        option("--ca", "TRIMTAB_CA", "PEM bundle that signed the server's certificate.", type=file, **eager),
        option("--token", "TRIMTAB_TOKEN", "Bearer token; better in the environment.", metavar="TOKEN", **eager),
        option("--server", "TRIMTAB_HTTP", "The control plane's HTTP address.", **url),
    ):
        command = add(command)
    return command


class Api:
    """Requests to one server. Every failure is a :class:`Failure` with the right exit code."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._http = _client(server)

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """One request; the answer's body. ``content`` is sent as it is, its type is among ``headers``."""
        with self._failures():
            answer = self._http.request(method, path, params=params, json=body, content=content, headers=headers)
        return self._checked(answer)

    def find(self, path: str) -> dict[str, Any] | None:
        """A resource, or None when there is none."""
        with self._failures():
            answer = self._http.get(path)
        return None if answer.status_code == 404 else self._checked(answer)

    def listing(self, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All pages of a listing as one."""
        whole = page = self.call("GET", path, params={**(params or {}), "page_size": PAGE_SIZE})
        while token := page.pop("next_page_token"):
            page = self.call("GET", path, params={**(params or {}), "page_size": PAGE_SIZE, "page_token": token})
            whole["items"] += page["items"]
        return whole

    def events(self, path: str, params: Mapping[str, Any] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Server-sent events of a watch, kind and body, until the server ends it."""
        import httpx

        timeout = httpx.Timeout(TIMEOUT_S, read=SILENCE_S)
        with (
            self._failures(),
            self._http.stream("GET", path, params={**(params or {}), "watch": "true"}, timeout=timeout) as answer,
        ):
            if not answer.is_success:
                answer.read()
                self._checked(answer)
            kind = ""
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    yield kind, json.loads(value)

    def _checked(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or (not answer.is_success and "code" not in body):
            raise Failure(
                Exit.FAILED,
                f"{self._server.url} answered HTTP {answer.status_code} with something that is not Trimtab's",
                hint="is this the control plane's HTTP port (7070 by default)?",
            )
        if not answer.is_success:
            raise of_problem(answer.status_code, body)
        return body

    @contextmanager
    def _failures(self) -> Iterator[None]:
        import httpx

        try:
            yield
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Failure(
                Exit.UNREACHABLE,
                f"cannot reach {self._server.url}: {reason}",
                hint="`trimtab dev` starts a control plane here; --server or TRIMTAB_HTTP names another",
            ) from None


def path(*parts: str) -> str:
    """A path below /v1, as ``path("namespaces", "default", "services")``."""
    return "/v1/" + "/".join(quote(part, safe=":") for part in parts)


def _client(server: Server) -> httpx.Client:
    import httpx

    secure = server.url.startswith("https:")
    headers = {"User-Agent": f"trimtab-cli/{__version__}", "Trimtab-Actor": _actor()}
    if server.token:
        headers["Authorization"] = f"Bearer {server.token}"
    local = urlsplit(server.url).hostname in {"127.0.0.1", "::1", "localhost"}  # no proxy leads back to this machine
    try:
        verify = _tls(server) if secure else False  # without TLS there is nothing to verify, and no store to load
        return httpx.Client(base_url=server.url, headers=headers, timeout=TIMEOUT_S, verify=verify, trust_env=not local)
    except (OSError, ValueError) as error:
        raise Failure(Exit.USAGE, f"cannot set up the connection: {error}") from None


def _tls(server: Server) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=server.ca)
    if server.cert:
        context.load_cert_chain(server.cert, server.key)
    return context


def _actor() -> str:
    """Who runs this, as far as the machine knows; shown beside what they change."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"[:128].encode("ascii", "replace").decode()
