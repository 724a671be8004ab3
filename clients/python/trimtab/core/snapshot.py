"""The format of a snapshot file: one resource as it was last known, signed.

``trimtab-snapshot VERSION\\n``, the time of writing (8 bytes, big-endian float, seconds since 1970), the HMAC-SHA256 over both
and the payload (32 bytes), the payload (a serialised ``trimtab.v1.Resource``).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import NamedTuple

from google.protobuf.message import DecodeError

from trimtab.errors import SnapshotInvalid
from trimtab.v1.types_pb2 import Resource

FORMAT = 1
_MAGIC = b"trimtab-snapshot "
_TIME = struct.Struct(">d")
_MAC_SIZE = 32


class Snapshot(NamedTuple):
    """A resource as it was ``saved_at`` seconds since 1970."""

    resource: Resource
    saved_at: float


def key_of_token(token: str) -> bytes:
    """Return the signing key of a mesh that has a token: whoever may talk to it may write its snapshots."""
    return hmac.new(token.encode(), b"trimtab disk snapshot", hashlib.sha256).digest()


def encode(snapshot: Snapshot, key: bytes) -> bytes:
    """Return the file's content."""
    head = b"%s%d\n" % (_MAGIC, FORMAT) + _TIME.pack(snapshot.saved_at)
    payload = snapshot.resource.SerializeToString()
    return head + _sign(head + payload, key) + payload


def decode(content: bytes, key: bytes) -> Snapshot:
    """Return what a file holds. Raises SnapshotInvalid, saying whether it is foreign, newer or damaged."""
    line, newline, rest = content.partition(b"\n")
    if not newline or not line.startswith(_MAGIC):
        raise SnapshotInvalid("not a snapshot file, or cut off")
    if line != b"%s%d" % (_MAGIC, FORMAT):
        version = line.removeprefix(_MAGIC)[:16].decode("ascii", "replace")
        raise SnapshotInvalid(f"format {version} is not {FORMAT}", hint="written by another version of the SDK")
    time, mac, payload = rest[:8], rest[8 : 8 + _MAC_SIZE], rest[8 + _MAC_SIZE :]
    if len(mac) < _MAC_SIZE:
        raise SnapshotInvalid("the file is cut off")
    if not hmac.compare_digest(mac, _sign(line + newline + time + payload, key)):
        raise SnapshotInvalid("the signature does not fit", hint="damaged, or written with another token or key")
    try:
        return Snapshot(Resource.FromString(payload), _TIME.unpack(time)[0])
    except DecodeError as error:
        raise SnapshotInvalid("the content cannot be read") from error


def _sign(content: bytes, key: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).digest()
