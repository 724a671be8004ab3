"""Snapshots on disk: what a process that starts without any server goes on with.

One file per resource, so that processes of one user never overwrite what they do not know. Nothing here ever raises into a call:
a disk that is full, foreign or read-only costs the snapshot and a warning, nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from trimtab.core.snapshot import Snapshot, decode, encode, key_of_token
from trimtab.errors import SnapshotInvalid
from trimtab.settings import Settings
from trimtab.v1.types_pb2 import Resource

logger = logging.getLogger("trimtab")

QUIET = 0.5
LONGEST = 3.0
_KEY_SIZE = 32

ResourceKey = tuple[int, str]


class Disk:
    """The snapshot directory of one mesh. ``source`` returns a resource as it is now, None when it is to be forgotten."""

    def __init__(self, settings: Settings, source: Callable[[ResourceKey], Resource | None]) -> None:
        # Meshes are told apart by their servers: another cluster's endpoints must never be called by mistake.
        mesh = hashlib.sha256("\n".join(sorted(settings.servers)).encode()).hexdigest()[:16]
        base = settings.snapshot_dir
        self._base = base
        self._directory = base / mesh if base is not None else None
        self._token = settings.token
        self._source = source
        self.revive()

    def revive(self) -> None:
        """Begin without a thread, at first and in a forked child."""
        self._changed = threading.Condition(threading.Lock())
        self._dirty: set[ResourceKey] = set()
        self._first_change = 0.0
        self._last_change = 0.0
        self._thread: threading.Thread | None = None
        self._closing = False
        self._failing = False

    def load(self, key: ResourceKey) -> Snapshot | None:
        """Return what was saved of a resource, of any age; None when there is nothing that can be trusted."""
        if self._directory is None:
            return None
        path = self._path(key)
        try:
            content = path.read_bytes()
            snapshot = decode(content, self._key())
            if (int(snapshot.resource.kind), snapshot.resource.name) != key:
                raise SnapshotInvalid("the file holds another resource than its name says")
        except FileNotFoundError:
            return None
        except (SnapshotInvalid, OSError) as error:
            reason = error.message if isinstance(error, SnapshotInvalid) else str(error)
            logger.warning("snapshot.invalid: %s is ignored: %s", path, reason)
            return None
        return snapshot

    def changed(self, key: ResourceKey) -> None:
        """Have a resource saved, soon and in the background."""
        if self._directory is None:
            return
        now = time.monotonic()
        with self._changed:
            if self._closing:
                return
            if not self._dirty:
                self._first_change = now
            self._dirty.add(key)
            self._last_change = now
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="trimtab-snapshot", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self, timeout: float) -> None:
        """Save what is not saved yet and end the thread, within ``timeout`` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closing:
                    if not self._dirty:
                        self._changed.wait()
                        continue
                    due = min(self._last_change + QUIET, self._first_change + LONGEST)
                    left = due - time.monotonic()
                    if left <= 0:
                        break
                    self._changed.wait(left)
                keys, self._dirty = self._dirty, set()
                closing = self._closing
            for key in sorted(keys):
                self._save(key)
            if closing:
                return

    def _save(self, key: ResourceKey) -> None:
        path = self._path(key)
        try:
            resource = self._source(key)
            if resource is None:
                # Says nothing of whether the disk can be written to.
                path.unlink(missing_ok=True)
                return
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(path, encode(Snapshot(resource, time.time()), self._key()))
        except (OSError, SnapshotInvalid) as error:
            if not self._failing:
                logger.warning("snapshot.unwritable: %s: %s; going on without a snapshot on disk", path, error)
            self._failing = True
        else:
            if self._failing:
                logger.info("snapshots on disk are written again")
            self._failing = False

    def _path(self, key: ResourceKey) -> Path:
        assert self._directory is not None
        return self._directory / f"{key[0]}-{quote(key[1], safe='')}.snapshot"

    def _key(self) -> bytes:
        """Return the signing key: the token's, else the one of this directory. Raises OSError, SnapshotInvalid."""
        if self._token:
            return key_of_token(self._token)
        assert self._base is not None
        path = self._base / "key"
        try:
            with path.open("rb") as file:
                if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
                    raise SnapshotInvalid(f"{path} is open to other users", hint="chmod 600, and delete the snapshots")
                key = file.read(_KEY_SIZE + 1)
        except FileNotFoundError:
            return self._new_key(path)
        if len(key) != _KEY_SIZE:
            raise SnapshotInvalid(f"{path} is damaged", hint="delete it and the snapshots beside it")
        return key

    def _new_key(self, path: Path) -> bytes:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = secrets.token_bytes(_KEY_SIZE)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".key-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(key)
            # A link fails when another process was first; a rename would replace the key that it signs with.
            os.link(name, path)
        except FileExistsError:
            return path.read_bytes()
        finally:
            os.unlink(name)
        return key


def _replace(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 so that a reader sees the old or the new one, whole."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except OSError:
        os.unlink(name)
        raise
