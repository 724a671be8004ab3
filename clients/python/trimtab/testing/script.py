"""What endpoints answer that do not exist."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from trimtab.core.endpoints import Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer over HTTP, after ``latency`` seconds of virtual time. ``json``: any value, instead of a ``body``."""

    status: int = 200
    body: bytes | str = b""
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    latency: float = 0.0

    def wire(self) -> tuple[dict[str, str], bytes]:
        """Headers and body as they would be sent."""
        body = self.body.encode() if isinstance(self.body, str) else self.body
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.json is not None:
            body = json.dumps(self.json).encode()
            headers.setdefault("content-type", "application/json")
        headers.setdefault("content-length", str(len(body)))
        return headers, body


class Request(NamedTuple):
    """What an endpoint is asked. ``path`` with its query; ``headers`` by their names in lower case."""

    service: str
    endpoint: Endpoint
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Answer: TypeAlias = "int | Reply | BaseException | type[BaseException] | Callable[[Request], Answer]"


class NobodyAnswers(BaseException):
    """A call was about to leave the test. Not an Exception: no fallback and no ``except`` may hide a mistake in a test."""


class Outcome(NamedTuple):
    """What comes of a request after ``seconds``: a reply, or an error that means what Python's own errors of its kind mean."""

    seconds: float
    reply: Reply | BaseException


class Script:
    """Answers in their order; the last one stays."""

    def __init__(self, answers: Answer | Sequence[Answer]) -> None:
        self._answers = list(answers) if isinstance(answers, Sequence) else [answers]
        if not self._answers:
            raise ValueError("a script needs at least one answer")

    def perform(self, request: Request, patience: float | None) -> Outcome:
        """The next answer. ``patience``: seconds that the caller waits for it; None: without end."""
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        while not isinstance(answer, (int, Reply, BaseException, type)):
            answer = answer(request)
        if isinstance(answer, int):
            answer = Reply(status=answer)
        elif isinstance(answer, type):
            answer = answer()
        latency = answer.latency if isinstance(answer, Reply) else 0.0
        if patience is not None and (latency >= patience or isinstance(answer, TimeoutError)):
            return Outcome(patience, TimeoutError(f"no answer within {patience:.3g} s"))
        return Outcome(latency, answer)


class Scripts:
    """The scripts of all services, by full name, and those of single endpoints, by id."""

    def __init__(self) -> None:
        self._scripts: dict[tuple[str, str], Script | None] = {}

    def put(self, service: str, endpoint: str, script: Script | None) -> None:
        """Have a service, or one endpoint of it, answer by a script from now on; None: over the network, for itself."""
        self._scripts[service, endpoint] = script

    def find(self, service: str, endpoint: Endpoint) -> Script | None:
        """The script for an endpoint; None: it answers for itself. Raises NobodyAnswers."""
        for key in ((service, endpoint.id), (service, "")):
            if key in self._scripts:
                return self._scripts[key]
        name = service.partition("/")[2]
        raise NobodyAnswers(
            f"nobody answers for {service} at {endpoint.target}: say what with fake_mesh.respond({name!r}, 200), "
            f"or let calls go over the network with fake_mesh.pass_through({name!r})"
        )
