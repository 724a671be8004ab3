"""What goes on beside calls. The core never does: it hands a crew on to those who drive its calls."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol


class Crew(Protocol):
    """Does what goes on beside calls, or beside each other for one call."""

    @property
    def free(self) -> bool:
        """A thread could take on more."""
        ...

    def start(self, work: Callable[[], object]) -> bool:
        """Have ``work`` done by a thread. Returns False when none is free."""
        ...

    def spawn(
        self,
        work: Coroutine[Any, Any, object],
        done: Callable[[], object] | None = None,
        context: Context | None = None,
        *,
        awaited: bool = True,
    ) -> Any:
        """Have ``work`` done by a task of the running loop, which is returned. ``done`` is called at its end in any case.

        ``awaited``: by a call, so that it outlives the mesh with that.
        """
        ...
