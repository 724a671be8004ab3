"""The commands against a served admin API: what they print, where, and how they end."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.component.http.commands import Run, trimtab, watching
from tests.component.http.conftest import Served, Thread
from tests.unit.http.house import Stream, client_info

__all__ = ["trimtab"]


@pytest.fixture
def orders(served: Served) -> Served:
    served.do(served.house.register(id="a"))
    served.do(served.house.register(id="b", address="fd00::8", metadata={"version": "1.4"}))
    return served


def test_instances_are_a_table(trimtab: Run, orders: Served, capsys: Any) -> None:
    assert trimtab("get", "instances", "orders") == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["SERVICE", "ID", "ADDRESS", "HEALTH", "WEIGHT", "ZONE", "INTENT"]
    assert first.split() == ["orders", "a", "10.0.0.7:8000", "HEALTHY", "100", "z1"]
    assert second.split()[2] == "[fd00::8]:8000"
    assert header.index("HEALTH") == first.index("HEALTHY") == second.index("HEALTHY")


def test_wide_tells_why(trimtab: Run, orders: Served, capsys: Any) -> None:
    trimtab("drain", "orders/a")
    capsys.readouterr()
    assert trimtab("get", "instances", "-o", "wide") == 0
    out = capsys.readouterr().out
    assert "drained by" in out
    assert "version=1.4" in out


def test_data_formats_hold_everything_and_can_be_read_back(trimtab: Run, orders: Served, capsys: Any) -> None:
    assert trimtab("get", "instances", "-o", "json") == 0
    as_json = json.loads(capsys.readouterr().out)
    assert trimtab("get", "instances", "-o", "yaml") == 0
    assert yaml.safe_load(capsys.readouterr().out) == as_json
    assert [item["id"] for item in as_json["items"]] == ["a", "b"]


def test_names_feed_other_commands(trimtab: Run, orders: Served, capsys: Any) -> None:
    assert trimtab("get", "instances", "-o", "name") == 0
    names = capsys.readouterr().out.split()
    assert names == ["orders/a", "orders/b"]
    for name in names:
        assert trimtab("drain", name) == 0
    assert capsys.readouterr().out.count("now DRAINING") == 2


def test_a_single_instance_is_shown_whole(trimtab: Run, orders: Served, capsys: Any) -> None:
    assert trimtab("get", "instances", "orders/b", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["reported"]["address"] == "fd00::8"
    assert trimtab("get", "services", "orders", "-o", "yaml") == 0
    assert yaml.safe_load(capsys.readouterr().out)["instances"] == 2


def test_an_empty_table_says_so_beside_the_data(trimtab: Run, served: Served, capsys: Any) -> None:
    assert trimtab("get", "services", "-n", "shop") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "no services in namespace shop\n"


def test_listings_longer_than_a_page_are_complete(
    trimtab: Run, served: Served, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.cli.api.PAGE_SIZE", 2)
    for number in range(5):
        served.do(served.house.register(service=f"s{number}"))
    assert trimtab("get", "services", "-o", "name") == 0
    assert capsys.readouterr().out.split() == ["s0", "s1", "s2", "s3", "s4"]


def test_a_drain_is_done_told_and_undone(trimtab: Run, orders: Served, capsys: Any) -> None:
    assert trimtab("drain", "orders/a") == 0
    assert capsys.readouterr().out.startswith("orders/a: drained at revision ")
    assert trimtab("drain", "orders/a", "--undo", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["instance"]["health"]["value"] == "HEALTHY"


def test_a_weight_is_set_and_reset(trimtab: Run, orders: Served, capsys: Any) -> None:
    assert trimtab("weight", "orders/a", "0") == 0
    assert "with weight 0" in capsys.readouterr().out
    assert trimtab("weight", "orders/a", "--reset") == 0
    assert "with weight 100" in capsys.readouterr().out


def test_clients_are_shown_with_their_refusals(trimtab: Run, served: Served, capsys: Any) -> None:
    hostile = client_info("n\x1b[2J1", nacks=(("config/default/shop/app.yaml", "port: not a number"),))
    served.do(_connect(served, hostile))
    assert trimtab("get", "clients", "-o", "wide") == 0
    out = capsys.readouterr().out
    assert "NACK" in out
    assert "port: not a number" in out
    assert "\x1b[2J" not in out  # what a client calls itself never steers the terminal


def test_a_configuration_goes_in_and_out_byte_for_byte(
    trimtab: Run, served: Served, capsysbinary: Any, tmp_path: Path
) -> None:
    for name, raw, told in (("app.yaml", "grüße: ja\r\n".encode(), b"yaml"), ("blob", bytes(range(256)), b"text")):
        source = tmp_path / name
        source.write_bytes(raw)
        assert trimtab("config", "set", f"shop/{name}", "--file", str(source)) == 0
        assert b" bytes of " + told in capsysbinary.readouterr().out
        assert trimtab("config", "get", f"shop/{name}") == 0
        assert capsysbinary.readouterr().out == raw


def test_a_configuration_is_read_from_stdin_listed_and_deleted(trimtab: Run, served: Served, capsys: Any) -> None:
    assert trimtab("config", "set", "shop/a.toml", stdin=b"a = 1\n") == 0
    assert trimtab("config", "set", "shop/a.toml", stdin=b"a = 2\n") == 0
    assert trimtab("config", "list", "-o", "name") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "shop/a.toml"
    assert trimtab("config", "get", "shop/a.toml", "-o", "json") == 0
    release = json.loads(capsys.readouterr().out)
    assert (release["format"], release["content"]) == ("toml", "a = 2\n")
    assert trimtab("config", "delete", "shop/a.toml", "--expect", str(release["revision"])) == 0
    assert trimtab("config", "get", "shop/a.toml") == 1


def test_a_stale_expectation_changes_nothing(trimtab: Run, served: Served, capsys: Any) -> None:
    assert trimtab("config", "set", "shop/f", "--expect", "0", stdin=b"one") == 0
    for expected in ("0", "1"):
        assert trimtab("config", "set", "shop/f", "--expect", expected, stdin=b"two") == 1
        assert "resource.precondition_failed" in capsys.readouterr().err
    assert trimtab("config", "delete", "shop/f", "--expect", "1") == 1
    assert trimtab("config", "get", "shop/f") == 0
    assert capsys.readouterr().out == "one"


def test_a_refusal_shows_code_places_and_hint_on_stderr(trimtab: Run, orders: Served, capsys: Any) -> None:
    assert trimtab("drain", "orders/zzz") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "instance.not_found" in err
    assert "hint: " in err
    assert trimtab("get", "services", "-n", "Not A Name") == 1
    assert "  namespace: 'Not A Name' is not a valid name (1 to 63 of" in capsys.readouterr().err


def test_exit_codes_tell_apart_what_a_script_must(guarded: Served, served: Served, trimtab: Run, capsys: Any) -> None:
    assert trimtab("get", "services", "--server", guarded.url) == 4
    assert trimtab("get", "services", "--server", guarded.url, "--token", "wrong") == 4
    assert trimtab("get", "services", "--server", guarded.url, "--token", "s3cret") == 0
    served.house.readiness.started = False
    assert trimtab("get", "services") == 3
    served.house.readiness.started = True
    assert trimtab("get", "services", "--server", "127.0.0.1:1") == 3
    assert "trimtab dev" in capsys.readouterr().err
    assert trimtab("get", "services", "--server", f"{served.url}/metrics") == 1
    assert trimtab("get", "nonsense") == 2


def test_a_watch_prints_rows_as_they_change_until_interrupted(orders: Served) -> None:
    with watching("get", "instances", "orders", "-w", url=orders.url) as watch:
        header, _, _ = watch.line(), watch.line(), watch.line()
        assert header.split()[:4] == ["SERVICE", "ID", "ADDRESS", "HEALTH"]
        orders.do(orders.house.register(id="c", address="10.0.0.9"))
        assert watch.line().split()[:4] == ["orders", "c", "10.0.0.9:8000", "HEALTHY"]
        [gone] = [stored for stored in orders.house.view.records() if stored.ref.path[-1] == "a"]
        orders.do(orders.house.ledger.store.revoke(gone.lease))
        assert watch.line().split()[:4] == ["orders", "a", "10.0.0.7:8000", "GONE"]
        watch.process.send_signal(signal.SIGINT)
        assert watch.process.wait(10) == 130


def test_a_watch_as_json_is_one_document_a_line(orders: Served) -> None:
    with watching("get", "instances", "-w", "-o", "json", url=orders.url) as watch:
        first = json.loads(watch.line())
        assert (first["event"], first["object"]["id"]) == ("changed", "a")


def test_a_watch_outlives_a_restart_of_its_server() -> None:
    first = Thread()
    served = first.begin()
    served.do(served.house.register(id="a"))
    with watching("get", "instances", "-w", "-o", "name", url=served.url) as watch:
        assert watch.line() == "orders/a"
        first.stop()
        second = Thread(port=served.port)
        again = second.begin()
        try:
            again.do(again.house.register(id="b"))
            assert watch.line() == "orders/b"
        finally:
            second.stop()


async def _connect(served: Served, info: Any) -> None:
    served.house.clients.add(Stream(info))
