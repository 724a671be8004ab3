"""What HTTP says, in the terms of the call path, and what the call path says over HTTP."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab.calling.context import MIRRORED_HEADER, PRIORITY_HEADER, TIMEOUT_HEADER, marks
from trimtab.core.calling.call import Call
from trimtab.core.retrying.conditions import OK, Outcome, outcome_of
from trimtab.errors import TrimtabError

# No connection, so nothing was sent.
REFUSED = Outcome("connect-failure", sent=False)
RESET = Outcome("reset")
TIMEOUT = Outcome("timeout")
# The caller's own doing: it gave up, or asked for what cannot be sent.
CALLERS = Outcome("cancelled", failed=False, counted=False)


_DIGITS = 9  # of seconds: what is longer is no time that anybody means


def judge(status: int, headers: Mapping[str, str]) -> Outcome:
    """What an answer means. The headers of a good one are not looked at: to find one, libraries decode them all."""
    return OK if status < 400 else outcome_of(str(status), _seconds(headers.get("retry-after")))


def _seconds(retry_after: str | None) -> float | None:
    # A date would need both clocks to agree; what is no number asks for nothing.
    if retry_after is None:
        return None
    told = retry_after.strip()
    return float(told) if told.isascii() and told.isdecimal() and len(told) <= _DIGITS else None


def onward(call: Call, timeout: float | None) -> list[tuple[str, str]]:
    """The headers that tell the callee how long it has, how important the call is, whether it is a mirrored one, and hooks'.

    ``timeout``: seconds that this attempt may take.
    """
    told = []
    if timeout is not None:
        told.append((TIMEOUT_HEADER, milliseconds(timeout)))
    inherited = marks.get()
    if priority := call.pipeline.priority or inherited.priority:
        told.append((PRIORITY_HEADER, priority))
    if inherited.mirrored:
        told.append((MIRRORED_HEADER, "1"))
    if call.dispatch is not None:
        told += call.dispatch.headers.items()
    return told


def milliseconds(timeout: float) -> str:
    """Seconds as the header has them; 0 would be no time at all."""
    return str(int(timeout * 1000) or 1)


def name_endpoint(error: BaseException, call: Call) -> None:
    """Say in a library's own error which endpoint it was, and leave the trace on it as ``error.trimtab``."""
    error.__dict__["trimtab"] = call
    where = f"[{call.service} at {call.endpoint.target}]" if call.endpoint is not None else f"[{call.service}]"
    if len(error.args) == 1 and isinstance(error.args[0], str):
        if where not in error.args[0]:
            error.args = (f"{error.args[0]} {where}",)
    elif where not in getattr(error, "__notes__", ()):
        error.add_note(where)


# An error of the mesh that is also one of a library's own: made once, so that it can be caught by its class.
_kinds: dict[tuple[type[TrimtabError], type[Exception]], type[TrimtabError]] = {}


def adopt(error: TrimtabError, base: type[Exception], **attributes: object) -> Exception:
    """``error`` as one that users of the library with ``base`` catch too: same message, same attributes."""
    kind = type(error)
    if not issubclass(kind, base):
        kind = _kinds.get((kind, base)) or _kinds.setdefault(
            (kind, base), type(kind.__name__, (kind, base), {"__doc__": kind.__doc__})
        )
    adopted = kind.__new__(kind)
    adopted.args = error.args
    adopted.__dict__.update(error.__dict__, **attributes)
    return adopted


def exhausted(call: Call) -> str:
    """The message of a call whose every attempt failed."""
    tried = "; ".join(map(str, call.attempts))
    return f"{call.service}: none of {len(call.attempts)} attempts succeeded: {tried}"


def too_late(call: Call, now: float) -> str:
    """The message of a call whose time was over before it had an answer."""
    return f"{call.service}: no answer within {now - call.began:.3g} s, after {len(call.attempts)} attempt(s)"
