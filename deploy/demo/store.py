"""Where orders are kept: a Redis, or SQLite where there is none."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Protocol, cast

TIMEOUT = 2.0


class OrderStore(Protocol):
    """Orders by number. Thread-safe."""

    def add(self, order: Mapping[str, Any]) -> int:
        """Keep an order; its number, from 1."""
        ...

    def get(self, number: int) -> dict[str, Any] | None:
        """The order of this number, None when there is none."""
        ...


def open_store(url: str) -> OrderStore:
    """The store at ``redis://HOST:PORT`` or ``sqlite:PATH``."""
    scheme, _, rest = url.partition(":")
    return SqliteOrders(rest) if scheme == "sqlite" else RedisOrders(url)


class RedisOrders:
    """Orders in a Redis."""

    def __init__(self, url: str) -> None:
        from redis import Redis

        self._redis = Redis.from_url(url, socket_timeout=TIMEOUT)

    def add(self, order: Mapping[str, Any]) -> int:
        number = self._redis.incr("orders:last")
        self._redis.set(f"orders:{number}", json.dumps(order))
        return number

    def get(self, number: int) -> dict[str, Any] | None:
        kept = cast("bytes | None", self._redis.get(f"orders:{number}"))
        return None if kept is None else json.loads(kept)


class SqliteOrders:
    """Orders in a file that all instances on this machine share."""

    def __init__(self, path: str) -> None:
        self._path = path
        with closing(self._connect()) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, body TEXT NOT NULL)")

    def add(self, order: Mapping[str, Any]) -> int:
        with closing(self._connect()) as database:
            number = database.execute("INSERT INTO orders (body) VALUES (?)", (json.dumps(order),)).lastrowid
        assert number is not None
        return number

    def get(self, number: int) -> dict[str, Any] | None:
        with closing(self._connect()) as database:
            row = database.execute("SELECT body FROM orders WHERE number = ?", (number,)).fetchone()
        return None if row is None else json.loads(row[0])

    def _connect(self) -> sqlite3.Connection:
        # A connection belongs to its thread, and the server makes a thread for each of its clients.
        database = sqlite3.connect(self._path, timeout=TIMEOUT, isolation_level=None)
        database.execute("PRAGMA synchronous=NORMAL")
        return database
