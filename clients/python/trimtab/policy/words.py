"""The words of a policy that several sections share: names, headers, and what an attempt may come to."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.policy.forms import Json, Leaf, Misfit, Text, did_you_mean, shown

NAME = Text(63, r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", "a-z, 0-9 and '-', starting and ending with a letter or digit")
# Header names are compared in lower case, as HTTP/2 and gRPC send them.
HEADER = Text(64, r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", "the name of a header, as x-user", tidy=str.lower)
LABEL = Text(256)


def _method(text: str) -> str:
    return text.removeprefix("/")


METHOD = Text(256, r"/?[^\s/]+(/[^\s/]+)?", "GET, Charge or shop.Orders/Charge", tidy=_method)

GRPC_CODES = (
    "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
# Not a status of the callee, but what became of the attempt: no connection, a connection that broke before an answer, the
# attempt's own timeout, an exception of a guarded function. 5xx stands for every HTTP status of 500 to 599.
EVENTS = ("connect-failure", "reset", "timeout", "exception", "5xx")


@dataclass(frozen=True, slots=True)
class Condition:
    """What an attempt came to: one of the ``events``, an HTTP status of a failure, or a gRPC code."""

    events: tuple[str, ...] = EVENTS

    def read(self, value: Json) -> str:
        """Raises Misfit, guessing which was meant."""
        word = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
        known = (*self.events, *GRPC_CODES)
        if word in known or (len(word) == 3 and word[0] in "45" and word.isascii() and word.isdigit()):
            return word
        raise Misfit(f"{shown(value)} is no condition", f"an HTTP status of 400 to 599, or {did_you_mean(word, known)}")

    def write(self, value: str) -> Json:
        """Itself, a status as a number."""
        return int(value) if value.isdigit() else value

    def schema(self) -> dict[str, Json]:
        """An enumeration, or a status."""
        statuses = [
            {"type": "integer", "minimum": 400, "maximum": 599},
            {"type": "string", "pattern": "^[45][0-9]{2}$"},
        ]
        return {"anyOf": [{"enum": [*self.events, *GRPC_CODES]}, *statuses]}


CONDITION: Leaf = Condition()
FAILURE: Leaf = Condition(events=("connect-failure",))  # what a callee can be made to look like
