"""Bad input to the living thing: a clear error with its stable code, and nothing else disturbed."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.authority import Authority
from tests.support.town.client import Client, Failed
from tests.support.town.plugin import Build
from tests.support.town.process import until
from tests.support.town.town import Town

TOKEN = "open-sesame"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def town(towns: Build, authority: Authority) -> Town:
    """Guarded by a token and by client certificates."""
    cert, key = authority.issue("server")
    town = towns(token=TOKEN, tls_cert=cert, tls_key=key, tls_client_ca=authority.ca)
    town.environment = member(authority, "member")
    replica = town.new_replica()
    certificate, its_key = authority.issue("operator")
    replica.show_certificate(certificate, its_key)
    replica.ready()
    return town


def member(authority: Authority, name: str) -> dict[str, str]:
    """The environment of a client that may enter."""
    cert, key = authority.issue(name)
    return {
        "TRIMTAB_TOKEN": TOKEN,
        "TRIMTAB_CA": str(authority.ca),
        "TRIMTAB_CERT": str(cert),
        "TRIMTAB_KEY": str(key),
    }


@pytest.fixture(scope="module")
def callers(town: Town) -> list[Client]:
    """Somebody calls all the time, through whatever is tried here."""
    town.fleet("orders", 2)
    caller = town.client("caller")
    caller.call("orders", rate=20)
    return [caller]


@pytest.fixture
def nobody_else_is_disturbed(town: Town, callers: list[Client]) -> Iterator[None]:
    before = town.archive.instances("orders")
    sessions = callers[0].status()["connects"]
    yield
    for caller in callers:
        assert [call for call in caller.more_calls(5) if call.error] == []
    assert callers[0].status()["connects"] == sessions
    after = town.archive.instances("orders")
    assert {id: (s.record, s.created) for id, s in after.items()} == {
        id: (s.record, s.created) for id, s in before.items()
    }


pytestmark = pytest.mark.usefixtures("nobody_else_is_disturbed")


def refusal(client: Client, what: str, **arguments: object) -> Failed:
    with pytest.raises(Failed) as caught:
        client.do(what, **arguments)
    return caught.value


def test_registrations_that_cannot_be_are_refused_by_code_and_place(town: Town) -> None:
    clumsy = town.client("clumsy")
    large = refusal(clumsy, "register", service="odd", id="a", port=1, metadata={"note": "x" * 100_000})
    assert (large.type, large.code) == ("Refused", "request.invalid")
    assert "instance.metadata" in str(large)
    named = refusal(clumsy, "register", service="No Name!", id="a", port=1)
    assert (named.code, "instance.service" in str(named)) == ("request.invalid", True)
    ported = refusal(clumsy, "register", service="odd", id="a", port=65_536)
    assert (ported.code, "65535" in str(ported)) == ("settings.invalid", True)
    twin = refusal(clumsy, "register", service="orders", id="orders-0", port=1)
    assert (twin.type, twin.code, bool(twin.hint)) == ("Refused", "instance.duplicate", True)
    assert clumsy.register("odd", "good", 1) == "good"
    assert set(town.archive.instances("odd")) == {"good"}
    clumsy.do("deregister", id="good")


def test_a_wrong_token_and_a_missing_one_are_refused(town: Town) -> None:
    for name, token in (("forger", "open-barley"), ("pauper", "")):
        outsider = town.client(name, token=token)
        refused = refusal(outsider, "register", service="orders", id=name, port=1, timeout=1)
        assert "access.unauthenticated" in str(refused)
        assert name not in town.replicas[0].clients()
        assert town.replicas[0].status_for(token) == 401
        outsider.clear()


def test_a_strangers_certificate_and_none_at_all_do_not_get_in(
    town: Town, authority: Authority, tmp_path: Path
) -> None:
    foreign_cert, foreign_key = Authority(tmp_path, "foreign").issue("stranger")
    shown = {"stranger": {"cert": str(foreign_cert), "key": str(foreign_key)}, "faceless": {"cert": "", "key": ""}}
    for name, settings in shown.items():
        outsider = town.client(name, **settings)
        refused = refusal(outsider, "register", service="orders", id=name, port=1, timeout=1)
        assert (refused.type, refused.code) == ("NotConnected", "sdk.not_connected")
        assert name not in town.replicas[0].clients()
        outsider.clear()


def test_garbage_on_both_ports_ends_the_connection_and_nothing_else(town: Town) -> None:
    replica = town.replicas[0]
    rng = random.Random(7)
    for address in (replica.address, replica.http_address):
        host, _, port = address.rpartition(":")
        for garbage in (
            rng.randbytes(4096),
            b"GET / HTTP/9.9\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rng.randbytes(512),
        ):
            hang_up = contextlib.suppress(ConnectionError)  # before it heard all of it
            with socket.create_connection((host, int(port)), timeout=10) as raw, hang_up:
                raw.sendall(garbage)
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(4096):
                    continue
    assert replica.is_ready()
    assert "Traceback" not in replica.log.read_text()


def test_a_record_that_is_garbage_is_ignored_and_told(town: Town) -> None:
    key = f"{town.archive.root}live/instances/default/orders/garbage"
    town.archive.put(key, b"\xff not a record")
    replica = town.replicas[0]
    until(lambda: "instances/default/orders/garbage" in replica.log.read_text(), "the key is named in the log")
    assert set(replica.instances("orders")) == {"orders-0", "orders-1"}
    town.archive.remove(key)


def test_snapshots_that_are_damaged_are_ignored_and_told(town: Town, tmp_path: Path) -> None:
    services = [f"saved-{number}" for number in range(4)]
    owner = town.client("owner")
    for service in services:
        owner.register(service, "kept", 1)
    reader = town.client("reader", snapshot_dir=str(tmp_path))
    for service in services:
        assert set(reader.view(service)["endpoints"]) == {"kept"}
    assert reader.end() == 0
    files = sorted(tmp_path.rglob("*.snapshot"))
    assert len(files) == len(services)
    content = bytearray(files[0].read_bytes())
    content[len(content) // 2] ^= 0xFF
    damages = (bytes(content), files[1].read_bytes()[:50], b"", files[2].read_bytes())  # flipped, cut, empty, another's
    for file, damaged in zip(files, damages, strict=True):
        file.write_bytes(damaged)
    again = town.client("again", snapshot_dir=str(tmp_path))
    for service in services:
        assert set(again.view(service)["endpoints"]) == {"kept"}  # from the server
    warnings = again.do("warnings")
    assert [sum(f"snapshot.invalid: {file} is ignored" in told for told in warnings) for file in files] == [1] * 4


def test_a_snapshot_directory_that_cannot_be_written_costs_the_snapshot_and_nothing_else(
    town: Town, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a directory")
    blocked = town.client("blocked", snapshot_dir=str(in_the_way))
    full = town.client("full", snapshot_dir=str(tmp_path / "full"))
    full.do("fill_disk", full=True)
    for client in (blocked, full):
        client.call("orders", rate=20)
        until(lambda client=client: "snapshot.unwritable" in str(client.do("warnings")), f"{client.name} says so")  # type: ignore[misc]
        assert [call for call in client.more_calls(10) if call.error] == []
        client.rest()
    assert list((tmp_path / "full").rglob("*.snapshot")) == []
    full.do("fill_disk", full=False)
    town.clients["orders-0"].do("update", id="orders-0", weight=90)
    until(lambda: list((tmp_path / "full").rglob("*.snapshot")), "it is written when there is room again")
    town.clients["orders-0"].do("update", id="orders-0", weight=100)
