"""Small pure things: delays, documents, snapshot files, settings, errors."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trimtab import NoEndpoints, Refused, SettingsInvalid, SnapshotInvalid, TrimtabError
from trimtab.core.backoff import full_jitter
from trimtab.core.calling.rules import Caller
from trimtab.core.documents import parse
from trimtab.core.endpoints import Endpoint, Health, ServiceState
from trimtab.core.snapshot import Snapshot, decode, encode, key_of_token
from trimtab.discovery import Callee, explain
from trimtab.errors import Violation
from trimtab.settings import DEFAULT_SERVER, resolve
from trimtab.v1.types_pb2 import KIND_ENDPOINTS, Resource

KEY = b"k" * 32
RESOURCE = Resource(kind=KIND_ENDPOINTS, name="default/orders", version=3)


# Delays


@settings(max_examples=50, deadline=None)
@given(attempt=st.integers(0, 10_000), seed=st.integers(0, 999))
def test_a_delay_never_exceeds_its_cap_nor_the_doubled_base(attempt: int, seed: int) -> None:
    delay = full_jitter(attempt, 0.1, 2.0, random.Random(seed))
    assert 0 <= delay <= min(2.0, 0.1 * 2 ** min(attempt, 10))


# Documents


@pytest.mark.parametrize(
    ("format_", "content", "value"),
    [
        ("text", b"hello\n", "hello\n"),
        ("text", b"\xef\xbb\xbfhello", "hello"),
        ("json", b'{"a": [1, true]}', {"a": [1, True]}),
        ("yaml", b"a:\n  - 1\n  - two\n", {"a": [1, "two"]}),
        ("toml", b"[a]\nb = 1\n", {"a": {"b": 1}}),
        ("properties", b"# c\n! d\n\na.b = 1\nc: x=y\nlong = one \\\n  two\nempty=\n", None),
    ],
)
def test_each_format_is_read(format_: str, content: bytes, value: object) -> None:
    expected = {"a.b": "1", "c": "x=y", "long": "one two", "empty": ""} if format_ == "properties" else value
    assert parse(format_, content) == expected


@pytest.mark.parametrize(
    ("format_", "content", "reason"),
    [
        ("json", b"{", "Expecting property name"),
        ("yaml", b"a: [", "expected"),
        ("toml", b"= 1", "Invalid"),
        ("text", b"\xff", "not UTF-8 at byte 0"),
        ("properties", b"ok=1\nnothing here", "line 2"),
        ("ini", b"", "format 'ini' is none of"),
    ],
)
def test_what_cannot_be_read_says_why(format_: str, content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(format_, content)


# Snapshot files


def test_a_snapshot_file_holds_what_was_put_into_it() -> None:
    assert decode(encode(Snapshot(RESOURCE, 12.5), KEY), KEY) == Snapshot(RESOURCE, 12.5)


@settings(max_examples=80, deadline=None)
@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_any_damaged_byte_is_noticed(at: int, flip: int) -> None:
    content = bytearray(encode(Snapshot(RESOURCE, 12.5), KEY))
    content[at % len(content)] ^= flip
    with pytest.raises(SnapshotInvalid):
        decode(bytes(content), KEY)


@settings(max_examples=40, deadline=None)
@given(length=st.integers(0, 100))
def test_a_file_that_was_cut_off_is_noticed(length: int) -> None:
    content = encode(Snapshot(RESOURCE, 12.5), KEY)
    with pytest.raises(SnapshotInvalid):
        decode(content[: min(length, len(content) - 1)], KEY)


def test_a_file_signed_with_another_token_is_foreign() -> None:
    content = encode(Snapshot(RESOURCE, 12.5), key_of_token("one"))
    with pytest.raises(SnapshotInvalid, match="another token"):
        decode(content, key_of_token("two"))


def test_a_file_of_another_format_says_so() -> None:
    content = encode(Snapshot(RESOURCE, 12.5), KEY).replace(b"snapshot 1\n", b"snapshot 2\n")
    with pytest.raises(SnapshotInvalid, match="format 2 is not 1"):
        decode(content, KEY)


# Settings


def test_arguments_beat_the_environment() -> None:
    environ = {"TRIMTAB_SERVERS": "a:1, b:2", "TRIMTAB_NAMESPACE": "env", "TRIMTAB_TOKEN": "t", "TRIMTAB_ZONE": "z"}
    told = resolve(None, namespace="arg", environ=environ)
    assert (told.servers, told.namespace, told.token, told.zone) == (("a:1", "b:2"), "arg", "t", "z")


def test_without_anything_said_there_is_a_local_server() -> None:
    told = resolve(None, environ={"HOME": "/nowhere"})
    assert (told.servers, told.namespace, told.tls) == ((DEFAULT_SERVER,), "default", None)


def test_the_snapshot_lies_in_the_users_cache_unless_told_otherwise(tmp_path: Path) -> None:
    assert resolve(None, environ={"XDG_CACHE_HOME": "/c"}).snapshot_dir == Path("/c/trimtab")
    assert resolve(None, environ={"TRIMTAB_SNAPSHOT_DIR": "/d"}).snapshot_dir == Path("/d")
    assert resolve(None, snapshot_dir=tmp_path, environ={"TRIMTAB_SNAPSHOT_DIR": "/d"}).snapshot_dir == tmp_path
    assert resolve(None, snapshot=False, environ={"TRIMTAB_SNAPSHOT_DIR": "/d"}).snapshot_dir is None


@pytest.mark.parametrize("servers", ["nonsense", "host:", ":1", "host:70000", "http://host/path:1", "host:1/x"])
def test_a_server_that_is_no_address_is_refused(servers: str) -> None:
    with pytest.raises(SettingsInvalid, match="not HOST:PORT"):
        resolve(servers, environ={})


def test_tls_is_spoken_when_asked_for() -> None:
    assert resolve("https://mesh.example:443", environ={}).tls is not None
    assert resolve(["http://mesh.example:80"], environ={}).tls is None
    with pytest.raises(SettingsInvalid, match="mix"):
        resolve(["http://a:1", "https://b:1"], environ={})


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    pem = tmp_path / "cert.pem"
    pem.write_bytes(b"cert")
    with pytest.raises(SettingsInvalid, match="belong together"):
        resolve(None, cert=pem, environ={})
    with pytest.raises(SettingsInvalid, match="ca cannot be read"):
        resolve(None, environ={"TRIMTAB_CA": str(tmp_path / "absent.pem")})


def test_an_argument_that_nobody_knows_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="colour"):
        resolve(None, colour="red")  # type: ignore[call-arg]


# Errors


def test_errors_say_code_message_hint_and_places() -> None:
    error = Refused(
        "request.invalid", "wrong", hint="do this", violations=[Violation("instance.port", "too large", "≤ 65535")]
    )
    assert str(error) == "request.invalid: wrong (do this)\n  instance.port: too large (≤ 65535)"
    assert isinstance(error, TrimtabError)
    assert issubclass(SettingsInvalid, ValueError)


def callee(*healths: tuple[Health, int], version: int = 1, confirmed: bool = True) -> Callee:
    endpoints = {f"e{n}": Endpoint(f"e{n}", "h", 1, w, int(h), "", {}) for n, (h, w) in enumerate(healths)}
    caller = Caller("tests", "", "tests", "p2c", lambda: None)
    known = Callee(
        "default/orders",
        caller,
        lambda callee: NoEndpoints(callee.name),
        ServiceState("default/orders", version, 1, endpoints),
    )
    known.confirmed = confirmed
    return known


@pytest.mark.parametrize(
    ("known", "connected", "said"),
    [
        (callee(version=0), True, "the mesh has never heard of it"),
        (callee(), True, "all its instances are gone"),
        (callee((Health.DRAINING, 100), (Health.UNHEALTHY, 100)), True, "2 instances: 1 draining, 1 unhealthy"),
        (callee((Health.HEALTHY, 0)), True, "1 instance: 1 with weight 0"),
        (callee(version=0, confirmed=False), True, "the server has not answered yet"),
        (callee(version=0, confirmed=False), False, "no connection to s:1 (refused), and there is no snapshot"),
        (callee((Health.SUSPECT, 1)), False, "1 instance: 1 suspect; no connection to s:1 (refused)"),
    ],
)
def test_a_call_without_endpoints_says_what_is_known(known: Callee, connected: bool, said: str) -> None:
    error = explain(known, connected, ("s:1",), "refused")
    assert isinstance(error, NoEndpoints)
    assert error.service == "default/orders"
    assert said in str(error)
