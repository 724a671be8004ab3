"""What an endpoint reports of its load with an answer, as Envoy and gRPC read and write it.

Source: ``xds.data.orca.v3.OrcaLoadReport`` (cncf/xds); gRFC A51 for gRPC, where the message itself is in the trailing metadata;
Envoy's ``orca_parser`` for HTTP, where a header says ``TEXT cpu_utilization=0.3,rps_fractional=10``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import isfinite
from typing import NamedTuple

# The header of an HTTP answer; in gRPC the key in the trailing metadata, whose value is the message.
LOAD_HEADER = "endpoint-load-metrics"
LOAD_TRAILER = "endpoint-load-metrics-bin"
# With this a caller asks for a report. Some inference servers know it as well; nobody has to be asked by it.
FORMAT_HEADER = "endpoint-load-metrics-format"
TEXT, BINARY = "TEXT", "BIN"  # its values, over HTTP and in gRPC

_TEXT = f"{TEXT} "
# Fields of a report by their names in text and their numbers in the message, all of type double.
_NAMES = ("rps_fractional", "eps", "cpu_utilization", "mem_utilization", "application_utilization")
_NUMBERS = (6, 7, 1, 2, 9)
_OF_NAME = {name: index for index, name in enumerate(_NAMES)}
_OF_NUMBER = {number: index for index, number in enumerate(_NUMBERS)}

_DOUBLE = struct.Struct("<d")
_FIXED64 = 1  # the wire type of a double


class LoadReport(NamedTuple):
    """Calls and errors a second, and shares of the machine in use, above 1 beyond what it should bear. 0: not known."""

    qps: float = 0.0
    eps: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0
    application: float = 0.0

    @property
    def utilization(self) -> float:
        """What the application says of itself, else the CPU. Source: gRFC A58."""
        return self.application or self.cpu

    def to_text(self) -> str:
        """The value of ``LOAD_HEADER``."""
        told = [f"{name}={value:.6g}" for name, value in zip(_NAMES, self, strict=True) if value]
        # A report of nothing is no report: to Envoy it is an error.
        return _TEXT + (",".join(told) or f"{_NAMES[0]}=0")

    def to_bytes(self) -> bytes:
        """The value of ``LOAD_TRAILER``."""
        return b"".join(
            bytes((number << 3 | _FIXED64,)) + _DOUBLE.pack(value)
            for number, value in sorted(zip(_NUMBERS, self, strict=True))
            if value
        )

    @classmethod
    def from_text(cls, told: str) -> LoadReport | None:
        """Read the value of ``LOAD_HEADER``; None: it cannot be read. Metrics of other names are no business of ours."""
        if not told.startswith(_TEXT):
            return None
        values = [0.0] * len(_NAMES)
        for entry in told.removeprefix(_TEXT).split(","):
            # Envoy also takes the colon, which it wrote itself at first.
            name, _, value = entry.replace(":", "=", 1).partition("=")
            index = _OF_NAME.get(name.strip())
            if index is None:
                continue
            try:
                values[index] = float(value)
            except ValueError:
                return None
        return _sound(values)

    @classmethod
    def from_bytes(cls, told: bytes) -> LoadReport | None:
        """Read the value of ``LOAD_TRAILER``; None: it cannot be read."""
        values = [0.0] * len(_NAMES)
        try:
            for number, value in _doubles(told):
                index = _OF_NUMBER.get(number)
                if index is not None:
                    values[index] = value
        except (IndexError, ValueError, struct.error):
            return None
        return _sound(values)


def _sound(values: list[float]) -> LoadReport | None:
    return LoadReport(*values) if all(isfinite(value) and value >= 0.0 for value in values) else None


def _doubles(message: bytes) -> Iterator[tuple[int, float]]:
    """Fields of type double by their numbers, all others left out. Raises IndexError, ValueError, struct.error.

    Source: the encoding of Protocol Buffers.
    """
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        match key & 7:
            case 1:
                yield key >> 3, _DOUBLE.unpack_from(message, place)[0]
                place += 8
            case 0:
                _, place = _varint(message, place)
            case 2:
                size, place = _varint(message, place)
                place += size
            case 5:
                place += 4
            case other:
                raise ValueError(f"there is no wire type {other}")


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """Return a number and the place behind it."""
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place
        if shift >= 64:
            raise ValueError("a number has more than ten bytes")
