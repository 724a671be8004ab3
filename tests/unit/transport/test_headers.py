"""What we say in headers is understood by an independent decoder, and what clients say is understood by us."""

from __future__ import annotations

import base64
from urllib.parse import unquote

import grpc
import pytest
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from controlplane.transport import headers

GOOD = [(b":method", b"POST"), (b":path", b"/a.B/C"), (b"content-type", b"application/grpc"), (b"te", b"trailers")]
NAMES = st.from_regex(r"[a-z][a-z0-9_.-]{0,200}", fullmatch=True).filter(lambda name: not name.endswith("-bin"))
TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=400)


def decoded(block: bytes) -> list[tuple[bytes, bytes]]:
    return [(bytes(name), bytes(value)) for name, value in Decoder(2**22).decode(block, raw=True)]


def opened(*more: tuple[bytes, bytes]) -> headers.Request:
    return headers.request([*GOOD, *more])


@given(
    st.sampled_from(grpc.StatusCode),
    st.text(max_size=300),
    st.lists(st.tuples(NAMES, TEXTS) | st.tuples(NAMES.map(lambda name: name + "-bin"), st.binary(max_size=400))),
)
def test_trailers_are_decoded_to_what_was_meant(
    code: grpc.StatusCode, details: str, metadata: list[tuple[str, str | bytes]]
) -> None:
    (name, status), *rest = decoded(headers.trailers(code, details, metadata))
    assert (name, int(status)) == (b"grpc-status", code.value[0])
    if details:
        (name, text), *rest = rest
        assert name == b"grpc-message"
        assert unquote(text.decode("ascii"), errors="strict") == details
    assert [entry for name, value in rest for entry in headers._entries(name.decode(), value)] == metadata


@given(st.text())
def test_details_are_printable_on_the_wire(details: str) -> None:
    fields = dict(decoded(headers.trailers(grpc.StatusCode.OK, details, ())))
    assert all(0x20 <= byte < 0x7F for byte in fields.get(b"grpc-message", b""))


@pytest.mark.parametrize("length", [0, 1, 126, 127, 128, 254, 255, 256, 16_383, 16_384, 65_535, 2**20])
def test_long_values_keep_their_length(length: int) -> None:
    assert decoded(headers._field("name", b"v" * length)) == [(b"name", b"v" * length)]


def test_an_answer_opens_with_status_and_type() -> None:
    assert decoded(headers.response("identity,gzip")) == [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-accept-encoding", b"identity,gzip"),
    ]
    assert decoded(headers.plain_answer(415)) == [(b":status", b"415")]


def test_no_block_needs_the_one_before() -> None:
    block = headers.response("identity") + headers.trailers(grpc.StatusCode.OK, "fine", (("a", "b"),))
    decoder = Decoder()
    assert decoder.decode(block) == decoder.decode(block)
    assert decoder.header_table.dynamic_entries == type(decoder.header_table.dynamic_entries)()


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"250m", 0.25), (b"5u", 5e-6), (b"7n", 7e-9), (b"0S", 0),
        (b"99999999H", 99_999_999 * 3600), (b"00000001S", 1),
    ],
)  # fmt: skip
def test_timeouts_are_in_seconds(given: bytes, seconds: float) -> None:
    assert opened((b"grpc-timeout", given)).timeout == pytest.approx(seconds)


@pytest.mark.parametrize(
    "given", [b"", b"1", b"S", b"1s", b"-1S", b"1.5S", b"1 S", b" 1S", b"1S\n", b"100000000S", "٣S".encode(), b"1SS"]
)
def test_timeouts_that_are_none_are_refused(given: bytes) -> None:
    with pytest.raises(headers.BadRequest) as caught:
        opened((b"grpc-timeout", given))
    assert caught.value.status == 400


def test_a_call_without_a_timeout_has_none() -> None:
    assert opened() == headers.Request("/a.B/C", None, "identity", ())
    assert opened((b"grpc-encoding", b"gzip")).encoding == "gzip"


@given(st.binary(max_size=100))
def test_binary_metadata_needs_no_padding(value: bytes) -> None:
    padded = base64.b64encode(value)
    for sent in (padded, padded.rstrip(b"=")):
        assert opened((b"key-bin", sent)).metadata == (("key-bin", value),)


def test_binary_values_that_were_joined_are_taken_apart() -> None:
    assert opened((b"key-bin", b"AQ==,Ag,AwM=")).metadata == (
        ("key-bin", b"\1"),
        ("key-bin", b"\2"),
        ("key-bin", b"\3\3"),
    )


@pytest.mark.parametrize("value", [b"?", b"A", b"AQ==AQ", b"A Q=", "ä".encode(), b"=" * 5])
def test_binary_metadata_that_is_no_base64_is_refused(value: bytes) -> None:
    with pytest.raises(headers.BadRequest, match="key-bin is not base64") as caught:
        opened((b"key-bin", value))
    assert caught.value.status == 400


def test_metadata_is_what_is_neither_http2s_nor_grpcs() -> None:
    given = ((b"user-agent", b"x"), (b"grpc-foo", b"y"), (b":authority", b"z"), (b"a", b"caf\xe9"), (b"a", b"2"))
    assert opened(*given).metadata == (("user-agent", "x"), ("a", "café"), ("a", "2"))


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=40))))
def test_every_list_of_fields_is_a_call_or_a_bad_request(fields: list[tuple[bytes, bytes]]) -> None:
    for all_fields in (fields, GOOD + fields):
        try:
            assert headers.request(all_fields).method is not None
        except headers.BadRequest as error:
            assert error.status in (400, 405, 415)
