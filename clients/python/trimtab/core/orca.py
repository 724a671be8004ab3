"""What an endpoint reports of its load with an answer, as Envoy and gRPC read and write it.

Source: ``xds.data.orca.v3.OrcaLoadReport`` (cncf/xds); Envoy's ``orca_parser`` for its form as text, which is
``TEXT cpu_utilization=0.3,rps_fractional=10``; gRFC A51 for the message itself in trailing metadata.
"""

from __future__ import annotations

import struct
from math import isfinite
from typing import NamedTuple

# What a caller asks by (some inference servers know it, too), and what its answer then says: over HTTP a header, in gRPC a key
# of the trailing metadata.
FORMAT_HEADER = "endpoint-load-metrics-format"
TEXT = "TEXT"
LOAD_HEADER = "endpoint-load-metrics"
# What gRPC's own clients listen for, without asking. Those of C++ and Python hide it from the programs that use them.
LOAD_TRAILER = "endpoint-load-metrics-bin"

_TEXT = f"{TEXT} "
# Fields of a report by their names in text and their numbers in the message, all of type double.
_NAMES = ("rps_fractional", "eps", "cpu_utilization", "mem_utilization", "application_utilization")
_NUMBERS = (6, 7, 1, 2, 9)
_OF_NAME = {name: index for index, name in enumerate(_NAMES)}

# A field as Protocol Buffers has it: number and type (64 bits) in one byte, and the value.
_FIELD = struct.Struct("<Bd")
_FIXED64 = 1


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
            _FIELD.pack(number << 3 | _FIXED64, value)
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


def _sound(values: list[float]) -> LoadReport | None:
    return LoadReport(*values) if all(isfinite(value) and value >= 0.0 for value in values) else None
