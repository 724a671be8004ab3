"""The test's side of a citizen: its commands as methods."""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.town import citizen
from tests.support.town.load import Call
from tests.support.town.process import PATIENCE, Process, until


class Failed(Exception):
    """The citizen's command raised: the name of the exception's class, its code, and its text."""

    def __init__(self, type: str, code: str, message: str, hint: str, text: str) -> None:
        super().__init__(text)
        self.type = type
        self.code = code
        self.message = message
        self.hint = hint


class Client(Process):
    """A client process. Commands raise Failed with what was raised there."""

    def __init__(
        self, name: str, settings: Mapping[str, Any], *, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        command = (sys.executable, "-m", citizen.__name__, json.dumps({"face": "sync", "name": name, **settings}))
        super().__init__(name, command, log=log, environment=environment, piped=True)
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name=f"read {name}", daemon=True)
        self._reader.start()
        self._seen = 0
        self._ready = False
        self.serves: dict[str, int] = {}

    def ready(self) -> None:
        """Until it takes commands."""
        if not self._ready:
            self._ready = True
            self._answer()

    def serve(self, service: str, id: str, port: int, **said: Any) -> str:
        self.serves[id] = port
        return str(self.do("serve", service=service, id=id, port=port, **said))

    def register(self, service: str, id: str, port: int, **said: Any) -> str:
        return str(self.do("register", service=service, id=id, port=port, **said))

    def call(self, service: str, *, rate: float, pause: float = 0.0, timeout: float = 10.0) -> None:
        """Call from now on, once somebody can be called."""
        self.do("wait_ready", service=service, timeout=PATIENCE)
        self.do("call", service=service, rate=rate, pause=pause, timeout=timeout)

    def calls(self) -> list[Call]:
        """Calls that ended since this was asked last."""
        found = [
            Call(began, ended, tuple(tried), error) for began, ended, tried, error in self.do("calls", since=self._seen)
        ]
        self._seen += len(found)
        return found

    def more_calls(self, number: int) -> list[Call]:
        """Wait for as many further calls."""
        found: list[Call] = []

        def enough() -> bool:
            found.extend(self.calls())
            return len(found) >= number

        until(enough, f"{number} more calls of {self.name}")
        return found

    def rest(self) -> list[Call]:
        """Call no more; the calls that ended since ``calls`` was asked last."""
        self.do("rest")
        return self.calls()

    def view(self, service: str) -> dict[str, Any]:
        return dict(self.do("view", service=service))

    def status(self) -> dict[str, Any]:
        return dict(self.do("status"))

    def do(self, what: str, **arguments: Any) -> Any:
        """Have a command done; what it returned."""
        self.ready()
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self.popen.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        try:
            line = self._answers.get(timeout=2 * PATIENCE)
        except queue.Empty:
            line = ""
        assert line, f"{self.name} does not answer; its log ends with\n{self.tail()}"
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(**answer["error"])
        return answer["ok"]

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._answers.put(line)
        self._answers.put("")

    def clear(self) -> None:
        super().clear()
        self._reader.join(PATIENCE)
