"""Live configuration: the last good value of each file, replaced when a release arrives that everybody here can use."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from trimtab.callbacks import Callbacks, Watch
from trimtab.core.documents import parse
from trimtab.errors import ConfigInvalid, SettingsInvalid
from trimtab.v1.mesh_pb2 import Refusal
from trimtab.v1.types_pb2 import Kind, Resource

logger = logging.getLogger("trimtab")

T = TypeVar("T")
MISSING: Any = object()
_REASON_LIMIT = 1024


class LiveConfig(Generic[T]):
    """A configuration value that follows its releases. Attributes are the value's; ``value`` is the value itself.

    A field of the value that is named like something here (``version``, ``error``, …) is reached as ``config.value.version``.

    A release that does not parse or does not fit the model is refused: the last good value stays, ``error`` says why.
    """

    def __init__(
        self, file: str, read: Callable[[Any], T], default: Any, callbacks: Callbacks, touch: Callable[[], None]
    ) -> None:
        self.file = file
        self.version = 0
        self.error = ""
        self.stale = False
        self._read = read
        self._default = default
        self._value: Any = MISSING
        self._callbacks = callbacks
        self._touch = touch
        self._watches: list[Watch] = []

    @property
    def value(self) -> T:
        """The newest good value, else the default. Raises ConfigInvalid when there is neither."""
        self._touch()
        value = self._default if self._value is MISSING else self._value
        if value is MISSING:
            why = f": {self.error}" if self.error else ", no release was published"
            raise ConfigInvalid(f"{self.file} has no value{why}", hint="publish one, or give default=")
        return value  # type: ignore[no-any-return]

    @property
    def published(self) -> bool:
        """A good release is held."""
        return self._value is not MISSING

    def on_change(self, callback: Callable[[T], object]) -> Watch:
        """Have ``callback`` told of every new good value, by a thread of its own."""
        watch = Watch(self._callbacks, callback)
        watch.stop = lambda: self._unwatch(watch)
        self._watches.append(watch)
        return watch

    def read(self, parsed: Any) -> T:
        """Return what a parsed file means to this reader. Raises ValueError."""
        return self._read(parsed)

    def take(self, value: Any, version: int, stale: bool) -> None:
        """Hold a value (MISSING: none). Called by the stream's thread."""
        changed = version != self.version
        self._value, self.version, self.error, self.stale = value, version, "", stale
        if changed and value is not MISSING:
            for watch in list(self._watches):
                watch.offer(value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.value, name)

    def __getitem__(self, key: Any) -> Any:
        return self.value[key]  # type: ignore[index]

    def __repr__(self) -> str:
        return f"<LiveConfig {self.file} version {self.version}>"

    def _unwatch(self, watch: Watch) -> None:
        if watch in self._watches:
            self._watches.remove(watch)


class ConfigFile:
    """One followed file, NAMESPACE/APP/FILE, and everybody here who reads it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._readers: list[LiveConfig[Any]] = []
        self._good: Resource | None = None
        self._stale = False
        self._error = ""
        self.revive()

    def revive(self) -> None:
        """Begin to wait anew, at first and in a forked child."""
        self._lock = threading.Lock()
        self.settled = False
        self._waiting: list[Future[None]] = []

    def add(self, reader: LiveConfig[Any]) -> Future[None]:
        """Have one more reader. The future is done when a server answered, or cannot."""
        future: Future[None] = Future()
        with self._lock:
            self._readers.append(reader)
            if self._good is not None:
                refusal = _spread([reader], self._good, self._stale)
                reader.error = refusal or ""
            elif self._error:
                reader.error = self._error
            if self.settled:
                future.set_result(None)
            else:
                self._waiting.append(future)
        return future

    def apply(self, resource: Resource, *, stale: bool = False) -> Refusal | None:
        """Give a release to all readers, or to none when one of them cannot use it."""
        with self._lock:
            reason = _spread(self._readers, resource, stale)
            if reason is None:
                self._good, self._stale, self._error = resource, stale, ""
            else:
                self._error = reason
                for reader in self._readers:
                    reader.error = reason
        if not stale:
            self.settle()
        if reason is None:
            return None
        logger.warning("config.invalid: %s version %d is refused: %s", self.name, resource.version, reason)
        return Refusal(kind=Kind.KIND_CONFIG, name=self.name, reason=reason[:_REASON_LIMIT])

    @property
    def error(self) -> str:
        """Why the newest release cannot be used; empty: it can."""
        return self._error

    @property
    def good(self) -> Resource | None:
        """The release that is in use."""
        return self._good

    def settle(self) -> None:
        """Whoever waits goes on with what there is."""
        with self._lock:
            self.settled = True
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(None)


class ConfigFiles:
    """All files that are followed, by full name. ``load`` returns what was saved of one."""

    def __init__(self, load: Callable[[str], Resource | None]) -> None:
        self._load = load
        self._files: dict[str, ConfigFile] = {}
        self._lock = threading.Lock()

    def revive(self) -> None:
        """Begin to wait anew in a forked child."""
        self._lock = threading.Lock()
        for file in self._files.values():
            file.revive()

    def file(self, name: str) -> tuple[ConfigFile, bool]:
        """Return a file, and whether it is followed only from now on."""
        known = self._files.get(name)
        if known is not None:
            return known, False
        # Read outside the lock: a slow disk must not hold up other files.
        saved = self._load(name)
        with self._lock:
            fresh = name not in self._files
            file = self._files.setdefault(name, ConfigFile(name))
        if fresh and saved is not None:
            file.apply(saved, stale=True)
        return file, fresh

    def find(self, name: str) -> ConfigFile | None:
        """Return a file that is followed."""
        return self._files.get(name)

    def files(self) -> list[ConfigFile]:
        """Return all that are followed."""
        return list(self._files.values())


def reader_of(model: Any) -> Callable[[Any], Any]:
    """Return how a parsed file becomes a ``model`` (anything pydantic validates). Raises SettingsInvalid without pydantic."""
    if model is None:
        return lambda parsed: parsed
    try:
        from pydantic import TypeAdapter
    except ModuleNotFoundError as error:
        raise SettingsInvalid("a model needs pydantic", hint="pip install 'trimtab[config]'") from error
    # pydantic's ValidationError is a ValueError.
    return TypeAdapter(model).validate_python


def _spread(readers: list[LiveConfig[Any]], resource: Resource, stale: bool) -> str | None:
    """Give a release to readers. Returns why one of them cannot use it; then none was given it."""
    if not resource.HasField("config"):
        for reader in readers:
            reader.take(MISSING, resource.version, stale)
        return None
    try:
        parsed = parse(resource.config.format, resource.config.content)
        values = [reader.read(parsed) for reader in readers]
    except Exception as error:
        # A model's validators are the program's own code: whatever they raise means that this release is no good.
        return f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
    for reader, value in zip(readers, values, strict=True):
        reader.take(value, resource.version, stale)
    return None
