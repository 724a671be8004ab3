"""What etcd refuses for want of room, and strangers on its port."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controlplane.errors import Code, TrimtabError
from controlplane.store.embedded import EmbeddedEtcd
from controlplane.store.etcd import EtcdOptions, EtcdStore
from controlplane.store.port import Put, Transaction
from tests.support.etcd import Member


async def test_a_value_too_large_is_refused_with_the_way_out(etcd: EmbeddedEtcd, mesh_prefix: str) -> None:
    store = EtcdStore(EtcdOptions((etcd.endpoint,)))
    for size in (1_800_000, 5_000_000):
        with pytest.raises(TrimtabError, match="max-request-bytes") as refused:
            await store.commit(Transaction(then=(Put(mesh_prefix, bytes(size)),)))
        assert refused.value.code is Code.STORE_REFUSED
    await store.close()


async def test_at_the_quota_writes_are_refused_reads_go_on_and_the_alarm_shows(tmp_path: Path) -> None:
    member = Member(tmp_path, flags=("--quota-backend-bytes=4000000",))
    member.start()
    await member.listening()
    store = EtcdStore(EtcdOptions((member.endpoint,)))
    with pytest.raises(TrimtabError, match="database space exceeded") as full:
        for i in range(20):
            await store.commit(Transaction(then=(Put(f"q/{i}", bytes(1_000_000)),)))
    assert full.value.code is Code.STORE_REFUSED
    assert "quota" in full.value.hint
    assert (await store.status()).alarms == ("NOSPACE",)
    assert await store.get("q/0") is not None
    with pytest.raises(TrimtabError) as full:
        await store.grant(60)
    assert full.value.code is Code.STORE_REFUSED
    await store.close()
    member.stop()


async def test_a_stranger_on_the_port_is_no_store() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    endpoint = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    store = EtcdStore(EtcdOptions((endpoint,), timeout=1.0))
    with pytest.raises(TrimtabError, match=endpoint) as refused:
        await store.get("k")
    assert refused.value.code is Code.STORE_UNAVAILABLE
    await store.close()
    server.close()


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"endpoints": ()}, "endpoints"),
        ({"endpoints": ("localhost",)}, "endpoints[0]"),
        ({"endpoints": ("a:1", "b:99999")}, "endpoints[1]"),
        ({"endpoints": ("http://a:1", "https://b:1")}, "endpoints"),
        ({"endpoints": ("http://a:1",), "ca": "ca.pem"}, "endpoints"),
        ({"cert": "client.pem"}, "key"),
        ({"key": "client.key"}, "cert"),
        ({"password": "secret"}, "user"),
        ({"timeout": 0}, "timeout"),
        ({"silence": -1}, "silence"),
    ],
)
def test_wrong_settings_are_refused_by_name(wrong: dict[str, object], path: str) -> None:
    with pytest.raises(TrimtabError) as refused:
        EtcdOptions(**wrong)  # type: ignore[arg-type]
    assert refused.value.code is Code.SETTINGS
    assert path in {violation.path for violation in refused.value.violations}


def test_a_certificate_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrimtabError, match=r"none\.pem") as refused:
        EtcdStore(EtcdOptions(ca=tmp_path / "none.pem"))
    assert refused.value.code is Code.SETTINGS


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(EtcdOptions(user="ann", password="secret"))
