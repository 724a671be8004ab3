"""Starting without any server: what was known last is on disk, and nothing about the disk disturbs a call."""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path

import pytest
from trimtab import Mesh, NoEndpoints

from tests.component.sdk.conftest import MakeMesh, until
from tests.support.fake_mesh import FakeMesh, endpoint

ORDERS = "default/orders"


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*/*.snapshot"))


@pytest.fixture
def known(make_mesh: MakeMesh, tmp_path: Path) -> FakeMesh:
    """A server, gone now, of which a snapshot is on disk."""
    with FakeMesh() as server:
        server.store.put(ORDERS, endpoint("a"), endpoint("b", weight=7))
        mesh = make_mesh(server)
        mesh.wait_ready("orders")
        mesh.close()
    assert len(files(tmp_path / "snapshots")) == 1
    return server


def cold(make_mesh: MakeMesh, known: FakeMesh, **options: object) -> Mesh:
    return make_mesh(known, discovery_timeout=30, **options)


def test_a_cold_start_without_a_server_calls_what_was_known(make_mesh: MakeMesh, known: FakeMesh) -> None:
    mesh = cold(make_mesh, known)
    assert {mesh.pick("orders").endpoint.id for _ in range(60)} == {"a", "b"}
    assert mesh.service("orders").stale
    assert [e.weight for e in mesh.endpoints("orders")] == [100, 7]
    assert mesh.status().stale


def test_a_snapshot_of_any_age_will_do(make_mesh: MakeMesh, known: FakeMesh, tmp_path: Path) -> None:
    for file in files(tmp_path / "snapshots"):
        os.utime(file, (0, 0))
    assert cold(make_mesh, known).pick("orders").endpoint.id in "ab"


def test_what_a_server_says_replaces_what_was_on_disk(make_mesh: MakeMesh, known: FakeMesh) -> None:
    mesh = cold(make_mesh, known)
    mesh.pick("orders").done()
    known.store.remove(ORDERS, "a")
    with FakeMesh(known.store, port=known.port):
        until(lambda: not mesh.service("orders").stale)
        assert [e.id for e in mesh.endpoints("orders")] == ["b"]
        mesh.close()
    again = cold(make_mesh, known)
    assert again.pick("orders").endpoint.id == "b"


def test_snapshots_are_written_while_running_and_only_for_their_owner(
    make_mesh: MakeMesh, server: FakeMesh, tmp_path: Path
) -> None:
    server.store.put(ORDERS, endpoint("a"))
    mesh = make_mesh(server)
    mesh.wait_ready("orders")
    until(lambda: files(tmp_path / "snapshots"))
    for path in (*files(tmp_path / "snapshots"), tmp_path / "snapshots" / "key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not list((tmp_path / "snapshots").rglob(".*"))


def test_another_mesh_in_the_same_directory_is_another_mesh(make_mesh: MakeMesh, known: FakeMesh) -> None:
    with pytest.raises(NoEndpoints, match="no snapshot on disk"):
        make_mesh("127.0.0.1:1").pick("orders")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text", "foreign name"])
def test_a_damaged_snapshot_is_a_warning_and_nothing_else(
    make_mesh: MakeMesh, known: FakeMesh, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    (file,) = files(tmp_path / "snapshots")
    content = file.read_bytes()
    match damage:
        case "flip":
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "cut":
            file.write_bytes(content[:40])
        case "empty":
            file.write_bytes(b"")
        case "text":
            file.write_text("hello")
        case "foreign name":
            file.rename(file.with_name("1-default%2Fpayments.snapshot"))
    service = "payments" if damage == "foreign name" else "orders"
    with pytest.raises(NoEndpoints, match="no snapshot on disk"):
        cold(make_mesh, known).pick(service)
    assert [r.getMessage() for r in caplog.records if "snapshot.invalid" in r.getMessage()]


def test_a_snapshot_signed_with_another_token_is_not_trusted(
    make_mesh: MakeMesh, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeMesh() as server:
        server.store.put(ORDERS, endpoint("a"))
        mesh = make_mesh(server, token="one")
        mesh.wait_ready("orders")
        mesh.close()
    assert not (tmp_path / "snapshots" / "key").exists()
    with pytest.raises(NoEndpoints):
        cold(make_mesh, server, token="two").pick("orders")
    assert "the signature does not fit" in caplog.text
    assert cold(make_mesh, server, token="one").pick("orders").endpoint.id == "a"


def test_a_key_that_others_can_read_is_not_trusted(
    make_mesh: MakeMesh, known: FakeMesh, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "snapshots" / "key").chmod(0o644)
    with pytest.raises(NoEndpoints):
        cold(make_mesh, known).pick("orders")
    assert "open to other users" in caplog.text


@pytest.mark.parametrize("obstacle", ["a file in its place", "a full disk"])
def test_a_directory_that_cannot_be_written_costs_one_warning_and_no_call(
    make_mesh: MakeMesh,
    server: FakeMesh,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    obstacle: str,
) -> None:
    directory = tmp_path / "blocked"
    if obstacle == "a full disk":

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("trimtab.disk.os.fsync", full)
    else:
        directory.write_text("not a directory")
    server.store.put(ORDERS, endpoint("a"))
    with caplog.at_level(logging.WARNING, "trimtab"):
        mesh = make_mesh(server, snapshot_dir=directory)
        mesh.wait_ready("orders")
        until(lambda: "snapshot.unwritable" in caplog.text)
        for weight in range(1, 4):
            server.store.put(ORDERS, endpoint("a", weight=weight))
            until(lambda expected=weight: mesh.endpoints("orders")[0].weight == expected)  # type: ignore[misc]
        mesh.close()
    assert caplog.text.count("snapshot.unwritable") == 1
    assert not list(tmp_path.rglob(".tmp-*"))


def test_without_snapshots_nothing_is_written(make_mesh: MakeMesh, server: FakeMesh, tmp_path: Path) -> None:
    server.store.put(ORDERS, endpoint("a"))
    mesh = make_mesh(server, snapshot=False)
    mesh.wait_ready("orders")
    mesh.close()
    assert not (tmp_path / "snapshots").exists()
