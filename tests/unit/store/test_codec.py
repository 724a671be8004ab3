"""Records become keys and values that come back the same, that people can read, and that garbage cannot imitate."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.change import Absent, Change, Present, Unchanged, Write
from controlplane.core.model import (
    WATCHED,
    ConfigFile,
    Desired,
    Event,
    Instance,
    InstanceState,
    Kind,
    PolicyDocument,
    Protection,
    Record,
    Ref,
    Replica,
    SessionRecord,
    Stored,
)
from controlplane.core.validation import MAX_CONFIG_BYTES
from controlplane.errors import Code, TrimtabError
from controlplane.store.codec import Codec
from controlplane.store.port import Compare, Delete, KeyValue, Operator, Put, Target, Transaction, WatchEvent
from controlplane.store.record import decode, encode

CODEC = Codec("/trimtab/default/")
PATHS = {Kind.INSTANCE: 3, Kind.DESIRED: 3, Kind.PROTECTION: 2, Kind.CONFIG: 3, Kind.POLICY: 2}

segments = st.text(min_size=1, max_size=20)
texts = st.text(max_size=20)
weights = st.integers(0, 1_000_000)
times = st.floats(0, 2e9, allow_nan=False)


@st.composite
def stored(draw: st.DrawFn) -> Stored:
    """Any record that the core may hand over."""
    kind = draw(st.sampled_from(Kind))
    path = tuple(draw(segments) for _ in range(PATHS.get(kind, 1)))
    record: Record
    match kind:
        case Kind.INSTANCE:
            record = Instance(
                *path,
                address=draw(texts),
                port=draw(st.integers(0, 65535)),
                weight=draw(weights),
                zone=draw(texts),
                metadata=draw(st.dictionaries(texts, texts, max_size=4)),
                state=draw(st.sampled_from(InstanceState)),
            )
        case Kind.DESIRED:
            record = Desired(draw(st.booleans()), draw(st.none() | weights), draw(texts))
        case Kind.PROTECTION:
            record = Protection(draw(texts), tuple(draw(st.lists(texts, max_size=4))), draw(texts))
        case Kind.CONFIG:
            record = ConfigFile(draw(texts), draw(st.binary(max_size=40) | texts.map(str.encode)), draw(texts))
        case Kind.POLICY:
            record = PolicyDocument(draw(st.binary(max_size=40)))
        case Kind.REPLICA:
            record = Replica(path[0], draw(texts), draw(texts), draw(texts), draw(times))
        case Kind.SESSION:
            record = SessionRecord(draw(texts), draw(texts), draw(texts), draw(texts), draw(times))
    return Stored(Ref(kind, path), record, created=3, revision=7, lease=9)


@given(stored())
def test_every_record_comes_back_as_it_was(each: Stored) -> None:
    item = KeyValue(CODEC.key(each.ref), encode(each.record), each.created, each.revision, each.lease)
    assert CODEC.stored(item) == each
    assert CODEC.ref(item.key) == each.ref


@given(stored())
def test_keys_stay_in_their_branch_and_are_printable(each: Stored) -> None:
    key = CODEC.key(each.ref)
    rest = key.removeprefix(CODEC.kind_prefix(each.ref.kind))
    assert rest.count("/") == len(each.ref.path) - 1
    assert key.isascii()
    assert key.isprintable()
    assert key.startswith(CODEC.live_prefix) is (each.ref.kind in WATCHED)


@given(stored(), stored())
def test_different_records_have_different_keys(one: Stored, other: Stored) -> None:
    assert (CODEC.key(one.ref) == CODEC.key(other.ref)) is (one.ref == other.ref)


def test_ordinary_names_are_written_as_they_are() -> None:
    name = string.ascii_letters + string.digits + "._:-@"
    assert CODEC.key(Ref(Kind.INSTANCE, ("shop", name, "a"))) == f"/trimtab/default/live/instances/shop/{name}/a"
    assert CODEC.key(Ref(Kind.SESSION, ("7f",))) == "/trimtab/default/sessions/7f"


def test_a_slash_within_a_name_does_not_reach_into_another_branch() -> None:
    sly = Ref(Kind.CONFIG, ("shop", "orders/../..", "a/b.yaml"))
    assert CODEC.key(sly) == "/trimtab/default/live/configs/shop/orders%2F..%2F../a%2Fb.yaml"
    assert CODEC.ref(CODEC.key(sly)) == sly


@pytest.mark.parametrize("path", [(), ("",), ("shop", "", "a")])
def test_an_empty_name_is_refused(path: tuple[str, ...]) -> None:
    with pytest.raises(TrimtabError) as refused:
        CODEC.key(Ref(Kind.INSTANCE, path))
    assert refused.value.code is Code.INVALID


def test_values_are_compact_and_readable_and_always_the_same() -> None:
    one = Instance("n", "s", "i", "10.0.0.1", 80, metadata={"b": "2", "a": "ü"})
    two = Instance("n", "s", "i", "10.0.0.1", 80, metadata={"a": "ü", "b": "2"})
    assert encode(one) == encode(two)
    assert encode(one).decode() == (
        '{"v":1,"address":"10.0.0.1","port":80,"weight":100,"zone":"","state":"serving","metadata":{"a":"ü","b":"2"}}'
    )


def test_content_is_text_when_it_is_text_and_base64_when_it_is_not() -> None:
    assert json.loads(encode(ConfigFile("yaml", b"a: \xc3\xbc\n"))) == {
        "v": 1,
        "format": "yaml",
        "author": "",
        "text": "a: ü\n",
    }
    binary = {"v": 1, "author": "", "source": "", "base64": "/w=="}
    assert json.loads(encode(PolicyDocument(b"\xff"))) == binary


def item(kind: str, value: object, path: str = "n/s/i") -> KeyValue:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return KeyValue(f"/trimtab/default/live/{kind}/{path}", raw, 1, 1)


def test_unknown_fields_are_ignored_and_missing_ones_have_defaults() -> None:
    minimal = {"v": 1, "address": "a", "port": 1, "colour": "blue"}
    assert CODEC.stored(item("instances", minimal)).record == Instance("n", "s", "i", "a", 1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        ([1], "is a JSON list"),
        ({}, "'v' = None"),
        ({"v": 2}, "form 2"),
        ({"v": True}, "'v' = True"),
        ({"v": 1, "port": 1}, "'address'"),
        ({"v": 1, "address": 5, "port": 1}, "'address' = 5"),
        ({"v": 1, "address": "a", "port": 70_000}, "'port' = 70000"),
        ({"v": 1, "address": "a", "port": "80"}, "'port' = '80'"),
        ({"v": 1, "address": "a", "port": 80, "weight": -1}, "'weight' = -1"),
        ({"v": 1, "address": "a", "port": 80, "state": "asleep"}, "unknown state 'asleep'"),
        ({"v": 1, "address": "a", "port": 80, "metadata": {"a": 1}}, "'metadata'"),
    ],
)
def test_garbage_is_refused_naming_the_key_and_the_place(value: object, message: str) -> None:
    with pytest.raises(TrimtabError) as refused:
        CODEC.stored(item("instances", value))
    assert refused.value.code is Code.MALFORMED
    assert "/trimtab/default/live/instances/n/s/i" in refused.value.message
    assert message in refused.value.message


@pytest.mark.parametrize(
    ("kind", "value", "path"),
    [
        ("instances", {"v": 1, "address": "a", "port": 1}, "n/s"),
        ("policies", {"v": 1, "base64": "not base64!"}, "n/s"),
        ("protection", {"v": 1, "replica": "r", "suspects": [1]}, "n/s"),
        ("replicas", {"v": 1, "grpc_address": "", "http_address": "", "started_at": "noon"}, "r"),
    ],
)
def test_other_garbage_is_refused_too(kind: str, value: object, path: str) -> None:
    with pytest.raises(TrimtabError) as refused:
        CODEC.stored(item(kind, value, path))
    assert refused.value.code is Code.MALFORMED
    assert f"live/{kind}/{path}" in refused.value.message


def test_a_change_becomes_one_transaction() -> None:
    instance = Instance("n", "s", "i", "a", 1)
    session, desired = Ref(Kind.SESSION, ("5",)), Ref(Kind.DESIRED, ("n", "s", "i"))
    change = Change(
        expect=(Absent(instance.ref), Present(session), Unchanged(desired, 7)),
        write=(Write(instance.ref, instance, lease=5),),
        remove=(desired,),
    )
    assert CODEC.transaction(change) == Transaction(
        compare=(
            Compare(CODEC.key(instance.ref), Target.CREATE_REVISION, Operator.EQUAL, 0),
            Compare(CODEC.key(session), Target.CREATE_REVISION, Operator.GREATER, 0),
            Compare(CODEC.key(desired), Target.MOD_REVISION, Operator.EQUAL, 7),
        ),
        then=(Put(CODEC.key(instance.ref), encode(instance), 5), Delete(CODEC.key(desired))),
    )


def test_a_watch_event_becomes_what_happened() -> None:
    instance = Instance("n", "s", "i", "a", 1)
    key = CODEC.key(instance.ref)
    written = KeyValue(key, encode(instance), 2, 4, 5)
    assert CODEC.event(WatchEvent(key, written, 4)) == Event(
        instance.ref, Stored(instance.ref, instance, created=2, revision=4, lease=5), 4
    )
    assert CODEC.event(WatchEvent(key, None, 6)) == Event(instance.ref, None, 6)


def test_a_kind_of_a_later_version_is_no_event_and_no_record() -> None:
    later = item("teleports", {"v": 1})
    assert CODEC.event(WatchEvent(later.key, later, 4)) is None
    with pytest.raises(TrimtabError, match="does not know") as refused:
        CODEC.stored(later)
    assert refused.value.code is Code.MALFORMED


@pytest.mark.parametrize("key", ["/trimtab/other/live/instances/a", "/trimtab/default/live/instances", "x", ""])
def test_a_key_outside_the_mesh_is_refused(key: str) -> None:
    with pytest.raises(TrimtabError) as refused:
        CODEC.ref(key)
    assert refused.value.code is Code.MALFORMED


def test_a_mesh_without_a_name_is_refused() -> None:
    with pytest.raises(TrimtabError) as refused:
        Codec("/")
    assert refused.value.code is Code.SETTINGS


def test_the_largest_configuration_fits_one_value_whatever_its_bytes() -> None:
    for content in (b"\0" * MAX_CONFIG_BYTES, b"\x07\xc3\xbc" * (MAX_CONFIG_BYTES // 3), b"\xff" * MAX_CONFIG_BYTES):
        ref = Ref(Kind.CONFIG, ("shop", "orders", "app"))
        raw = encode(ConfigFile("text", content))
        assert len(raw) < 1_400_000, "etcd takes 1.5 MB"
        assert decode(ref, raw, key="k") == ConfigFile("text", content)
