"""A method of a service as a stub knows it: what all calls of it have in common."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Container, Hashable
from inspect import signature
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from trimtab.calling.heed import without
from trimtab.core.calling.call import Call
from trimtab.core.calling.fallbacks import Substitute, reason
from trimtab.core.calling.pipeline import Pipeline
from trimtab.discovery import Callee
from trimtab.grpc.meaning import DEADLINE, Entries, headers, marked

if TYPE_CHECKING:
    from trimtab.grpc.outgoing import Outgoing

logger = logging.getLogger("trimtab")

# Metadata that name a single call, or its place in a trace, and nothing that an answer depends on.
_OF_ONE_CALL = frozenset(
    {
        *("traceparent", "tracestate", "grpc-trace-bin", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid"),
        *("x-b3-sampled", "x-b3-flags", "x-request-id", "x-correlation-id", "idempotency-key"),
    }
)
_LIMIT = 1024  # of a service are few; whoever makes them up must not fill the memory
Deserializer = Callable[[bytes], Any] | None


class Instead(NamedTuple):
    """What a caller gets in place of an answer: what another ``service`` says, or ``value`` where none is named."""

    service: str = ""
    value: Any = None


class Kept(NamedTuple):
    """What calls of a method go through, from call to call."""

    pipeline: Pipeline
    callee: Callee


class Method:
    """One method. ``kind`` is that of its stubs, as ``unary_stream``; ``registered`` is the newer stubs' own option.

    ``told_apart``: what is known of a call's metadata is all that is sent, so users can be told apart by it.
    """

    __slots__ = (
        "_idempotent",
        "_told_apart",
        "deserialize",
        "kept",
        "kind",
        "lasting",
        "name",
        "path",
        "registered",
        "serialize",
        "takes_stream",
    )

    def __init__(
        self,
        kind: str,
        path: str,
        serialize: Callable[[Any], bytes] | None,
        deserialize: Deserializer,
        registered: bool,
        idempotent: Container[str],
        told_apart: bool = True,
    ) -> None:
        self.kind = kind
        self.kept: Kept | None = None
        self._told_apart = told_apart
        self.path = path
        self.name = path.removeprefix("/")
        self.serialize = serialize
        self.deserialize = deserialize
        self.registered = registered
        self.takes_stream = kind.startswith("stream")
        # A stream may go on for ever, which is no sign that its callee hangs.
        self.lasting = kind != "unary_unary"
        self._idempotent = self.name in idempotent or self.name.rpartition("/")[2] in idempotent

    def on(self, channel: Any) -> Any:
        """The method as a stub of a channel to one endpoint."""
        make = getattr(channel, self.kind)
        options = {}
        # Older releases of gRPC know nothing of registered methods. Newer stubs may still be used with them.
        if self.registered and "_registered_method" in signature(make).parameters:
            options["_registered_method"] = True
        return make(self.path, self.serialize, self.deserialize, **options)

    def pipeline(self, callee: Callee, metadata: Entries | None) -> Pipeline:
        """What a call goes through."""
        return callee.pipeline(self.name, self.path, headers(metadata))

    def keep_pipeline(self, callee: Callee | None) -> Kept | None:
        """Keep what calls to the channel's own service go through, if that is ready, plain, and says of no priority."""
        self.kept = None
        if callee is not None:
            pipeline = callee.pipelines.get(self.name)
            if pipeline is not None and pipeline.plain and not pipeline.priority:
                self.kept = Kept(pipeline, callee)
        return self.kept

    def repeatable(self, pipeline: Pipeline, metadata: Entries | None) -> bool:
        """Whether what the policy says of trying again holds for a call.

        gRFC A6 has no notion of idempotence: whoever writes down what is to be tried again permits it. What is built in was
        written down by nobody, so there the caller has to say that it does no harm.
        """
        return self._idempotent or "retry" in pipeline.documented or (metadata is not None and marked(metadata))

    def harmless(self, metadata: Entries | None) -> bool:
        """Whether the caller says that sending a call twice at the same time does no harm. A policy can only say so itself."""
        return self._idempotent or marked(metadata)

    # Fallbacks, for methods with a single answer

    def keep(self, out: Outgoing, answer: Any) -> None:
        """A good answer, to be given again when there is no new one. Only where the policy keeps some."""
        call = out.call
        fallbacks = call.pipeline.fallbacks
        if fallbacks is None or not fallbacks.keeps or call.fallback or self.kind != "unary_unary":
            return
        if not self._told_apart:
            without(call.pipeline, "gRPC channels with interceptors of asyncio", ("fallback.cache",))
            return
        # As bytes: whoever got the message may change it.
        kept = answer.SerializeToString() if isinstance(answer, Message) else answer
        size = len(kept) if isinstance(kept, bytes) else 0
        if size <= fallbacks.largest:
            fallbacks.keep(self._identity(out), kept, size, call.pipeline.now())

    def instead(self, out: Outgoing, call: Call, error: Exception) -> Instead | None:
        """What the policy has to offer to the caller of ``out``, whose ``call`` failed with ``error``; None: nothing."""
        fallbacks = call.pipeline.fallbacks
        if fallbacks is None or self.kind not in ("unary_unary", "stream_unary"):
            return None
        if call.outcome is not None and not call.outcome.failed:
            return None
        late = isinstance(error, grpc.RpcError) and error.code() is DEADLINE
        why = "timeout" if late else reason(error)
        # A stream of requests was read already.
        elsewhere = self.kind == "unary_unary"
        found = fallbacks.instead(why, self._identity(out), call.pipeline.now(), elsewhere=elsewhere)
        if found is None:
            return None
        if found.source == "service":
            return Instead(service=found.value)
        try:
            value = self._answer(found)
        except (ParseError, TypeError, ValueError) as unfit:
            logger.warning("fallback.unusable: %s: the fallback of its policy is no answer: %s", self.path, unfit)
            return None
        call.pipeline.substituted(call, found.source, found.age)
        return Instead(value=value)

    def _identity(self, out: Outgoing) -> Hashable:
        """What makes two calls ask for the same, for the same user: what was one's answer must never be another's.

        gRPC has no word for what an answer depends on, as HTTP has ``Vary``. So it is everything that was sent, and who sent
        it: a channel has credentials of its own.
        """
        if self.kind != "unary_unary":
            return self.path
        request = self.serialize(out.request) if self.serialize is not None else out.request
        told = ((key.lower(), value) for key, value in out.metadata or ())
        sent = sorted((entry for entry in told if entry[0] not in _OF_ONE_CALL), key=itemgetter(0))
        return self.path, request, tuple(sent), out.credentials, out.subchannels

    def _answer(self, found: Substitute) -> Any:
        """The message that a fallback stands for. Raises ParseError, TypeError or ValueError when it stands for none."""
        if found.source == "cache":
            held = found.value
            return self.deserialize(held) if isinstance(held, bytes) and self.deserialize is not None else held
        if self.deserialize is None:
            return json.dumps(found.value).encode()
        message = getattr(self.deserialize, "__self__", None)
        if not isinstance(message, type) or not issubclass(message, Message):
            raise TypeError("the type of the answer is not known")
        return ParseDict(found.value, message())


class Methods:
    """The methods of a channel, each once: interceptors ask for theirs anew with every call. ``told_apart`` as in Method."""

    def __init__(self, idempotent: Container[str], *, told_apart: bool = True) -> None:
        self._idempotent = idempotent
        self._told_apart = told_apart
        self._known: dict[Hashable, Method] = {}

    def get(
        self,
        kind: str,
        path: str,
        serialize: Callable[[Any], bytes] | None,
        deserialize: Deserializer,
        registered: bool | None,
    ) -> Method:
        """The method of this kind and path."""
        key = (kind, path, serialize, deserialize, registered)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _LIMIT:
                self._known.clear()
            found = Method(kind, path, serialize, deserialize, bool(registered), self._idempotent, self._told_apart)
            self._known[key] = found
        return found
