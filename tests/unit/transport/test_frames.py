"""Frames as bytes, checked by an independent reader."""

from __future__ import annotations

import pytest
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from controlplane.transport import frames
from controlplane.transport.frames import ConnectionFault, Fault, Kind, Setting

STREAMS = st.integers(1, 2**31 - 1)


def read(raw: bytes) -> Frame:
    frame, length = Frame.parse_frame_header(memoryview(raw[:9]))
    assert length == len(raw) - 9
    frame.parse_body(memoryview(raw[9:]))
    return frame


@given(STREAMS, st.binary(max_size=300), st.booleans())
def test_frames_are_read_as_they_were_meant(stream: int, payload: bytes, last: bool) -> None:
    data = read(frames.frame(Kind.DATA, frames.END_STREAM if last else 0, stream, payload))
    assert isinstance(data, DataFrame)
    assert (data.stream_id, data.data, "END_STREAM" in data.flags) == (stream, payload, last)
    headers = read(frames.frame(Kind.HEADERS, frames.END_HEADERS, stream, payload))
    assert isinstance(headers, HeadersFrame)
    assert (headers.data, set(headers.flags)) == (payload, {"END_HEADERS"})


def test_the_largest_frame_keeps_its_length() -> None:
    data = read(frames.frame(Kind.DATA, 0, 1, bytes(2**24 - 1)))
    assert isinstance(data, DataFrame)
    assert len(data.data) == 2**24 - 1


@given(STREAMS, st.integers(1, 2**31 - 1), st.sampled_from(Fault))
def test_controls_are_read_as_they_were_meant(stream: int, credit: int, fault: Fault) -> None:
    window = read(frames.window_update(stream, credit))
    assert isinstance(window, WindowUpdateFrame)
    assert (window.stream_id, window.window_increment) == (stream, credit)
    reset = read(frames.reset(stream, fault))
    assert isinstance(reset, RstStreamFrame)
    assert (reset.stream_id, reset.error_code) == (stream, fault)
    away = read(frames.go_away(stream, fault, "ä" * 200))
    assert isinstance(away, GoAwayFrame)
    assert (away.last_stream_id, away.error_code, len(away.additional_data)) == (stream, fault, 128)
    ping = read(frames.frame(Kind.PING, frames.ACK, 0, b"12345678"))
    assert isinstance(ping, PingFrame)
    assert (ping.opaque_data, set(ping.flags)) == (b"12345678", {"ACK"})


def test_settings_are_read_as_they_were_meant() -> None:
    settings = read(frames.settings({Setting.MAX_CONCURRENT_STREAMS: 7, Setting.MAX_FRAME_SIZE: 2**24 - 1}))
    assert isinstance(settings, SettingsFrame)
    assert dict(settings.settings) == {3: 7, 5: 2**24 - 1}


@given(st.binary(max_size=50), st.integers(0, 255))
def test_padding_is_taken_off(payload: bytes, padding: int) -> None:
    padded = bytes([padding]) + payload + bytes(padding)
    assert frames.unpadded(frames.PADDED, padded) == payload
    assert frames.unpadded(0, padded) == padded


@pytest.mark.parametrize("payload", [b"", b"\1", b"\3ab", b"\xff" * 255])
def test_more_padding_than_frame_is_a_breach(payload: bytes) -> None:
    with pytest.raises(ConnectionFault) as caught:
        frames.unpadded(frames.PADDED, payload)
    assert caught.value.fault is Fault.PROTOCOL_ERROR
