"""What is asked of clients' reports, and how much of an answer is told."""

from __future__ import annotations

from dataclasses import dataclass

# Of one replica's answer, worst first: 10,000 entries stay well below the 4 MiB that gRPC takes as one message.
MAX_TOLD = 10_000


@dataclass(frozen=True, slots=True)
class ReportFilter:
    """Which calls are asked about; an empty field asks for any. ``caller`` is the program's name, the namespace the callee's."""

    caller: str = ""
    namespace: str = ""
    service: str = ""

    def callee(self, namespace: str, service: str) -> bool:
        """Whether calls to this service are asked for."""
        return self.namespace in ("", namespace) and self.service in ("", service)
