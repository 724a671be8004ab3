"""The etcd that we start ourselves: found, kept running, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from controlplane.errors import Code, TrimtabError
from controlplane.store import embedded
from controlplane.store.embedded import EmbeddedEtcd, find_binary
from controlplane.store.etcd import EtcdOptions, EtcdStore
from controlplane.store.etcd.versions import hazard
from controlplane.store.port import Put, Transaction
from tests.conftest import EtcdFactory
from tests.support.etcd import default_binary, etcd_binaries, free_port


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)


async def test_what_was_written_is_there_after_a_stop_and_a_start(tmp_path: Path) -> None:
    for attempt in range(2):
        etcd = EmbeddedEtcd(tmp_path / "data")
        await etcd.start()
        store = EtcdStore(EtcdOptions((etcd.endpoint,)))
        if attempt == 0:
            await store.commit(Transaction(then=(Put("k", b"v"),)))
        found = await store.get("k")
        assert found is not None
        await store.close()
        pid = etcd.pid
        await etcd.stop()
        assert not psutil.pid_exists(pid)
    assert (tmp_path / "data" / "etcd.log").exists()


async def test_when_it_dies_it_comes_back_at_the_same_place_with_the_same_data(etcd_factory: EtcdFactory) -> None:
    etcd = await etcd_factory()
    store = EtcdStore(EtcdOptions((etcd.endpoint,), timeout=20))
    endpoint, pid = etcd.endpoint, etcd.pid
    await store.commit(Transaction(then=(Put("k", b"v"),)))
    os.kill(pid, signal.SIGKILL)
    assert await store.get("k") is not None
    assert etcd.endpoint == endpoint
    assert etcd.pid != pid
    await store.close()


async def test_a_temporary_directory_is_removed(etcd_factory: EtcdFactory) -> None:
    etcd = await etcd_factory()
    directory = etcd.log_file.parent
    assert directory.exists()
    await etcd.stop()
    assert not directory.exists()


async def test_a_frozen_etcd_is_stopped_all_the_same(
    etcd_factory: EtcdFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "STOP_TIMEOUT", 0.3)
    etcd = await etcd_factory()
    pid = etcd.pid
    os.kill(pid, signal.SIGSTOP)
    await etcd.stop()
    assert not psutil.pid_exists(pid)


async def test_stopping_twice_or_before_the_start_is_no_error() -> None:
    etcd = EmbeddedEtcd()
    await etcd.stop()
    await etcd.start()
    await etcd.stop()
    await etcd.stop()
    with pytest.raises(TrimtabError):
        _ = etcd.pid


PARENT = """
import asyncio, sys
from controlplane.store.embedded import EmbeddedEtcd

async def main():
    etcd = EmbeddedEtcd(sys.argv[1])
    await etcd.start()
    print(etcd.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the bond to the parent is Linux's")
async def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "data")], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(await asyncio.to_thread(parent.stdout.readline))
        assert psutil.pid_exists(pid)
        parent.kill()
    await until_gone(pid)


async def test_without_any_etcd_the_ways_out_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrimtabError) as missing:
        await EmbeddedEtcd().start()
    assert missing.value.code is Code.STORE_NO_BINARY
    for way in ("trimtab[embedded]", "install etcd", "TRIMTAB_ETCD_BINARY", "TRIMTAB_ETCD"):
        assert way in missing.value.hint


def test_an_explicit_program_comes_before_path_and_path_before_the_wheel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    explicit, on_path = tmp_path / "mine", tmp_path / "bin" / "etcd"
    on_path.parent.mkdir()
    for program in (explicit, on_path):
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert find_binary(explicit) == explicit
    assert find_binary() == on_path
    on_path.unlink()
    assert find_binary().parent.name == "etcdbin"


async def test_a_program_that_is_not_etcd_is_told(tmp_path: Path) -> None:
    for wrong, message in ((tmp_path / "none", "no program"), (sys.executable, "is not etcd")):
        with pytest.raises(TrimtabError, match=message) as refused:
            await EmbeddedEtcd(binary=wrong).start()
        assert refused.value.code is Code.STORE_NO_BINARY


async def test_a_port_that_is_taken_is_told_with_the_end_of_etcds_log(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    taken = int(etcd.endpoint.rpartition(":")[2])
    with pytest.raises(TrimtabError, match="address already in use") as refused:
        await EmbeddedEtcd(tmp_path / "data", client_port=taken).start()
    assert refused.value.code is Code.STORE_UNAVAILABLE
    assert "etcd.log" in refused.value.hint


async def test_a_directory_that_another_etcd_uses_is_told(
    etcd_factory: EtcdFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await etcd_factory(data=tmp_path / "data")
    monkeypatch.setattr(embedded, "READY_TIMEOUT", 1.5)
    second = EmbeddedEtcd(tmp_path / "data")
    with pytest.raises(TrimtabError, match="did not serve") as refused:
        await second.start()
    assert "another etcd" in refused.value.hint


async def test_given_ports_and_flags_are_used(etcd_factory: EtcdFactory) -> None:
    port = free_port()
    etcd = await etcd_factory(client_port=port, flags=("--max-txn-ops=200",))
    assert etcd.endpoint == f"127.0.0.1:{port}"
    store = EtcdStore(EtcdOptions((etcd.endpoint,)))
    assert (await store.commit(Transaction(then=tuple(Put(f"{i}", b"") for i in range(150))))).succeeded
    await store.close()


async def test_a_version_that_loses_writes_says_so(etcd_factory: EtcdFactory) -> None:
    for version, binary in etcd_binaries().items():
        etcd = await etcd_factory(binary=binary)
        assert etcd.version == version
        assert etcd.warning == hazard(version)
        assert bool(etcd.warning) == (version in {"3.5.0", "3.5.1", "3.5.2"})
    assert default_binary() in etcd_binaries().values()
