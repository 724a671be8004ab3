"""The command line against the living thing, as a person in a terminal would use it."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from tests.support.town.client import Client
from tests.support.town.plugin import Build
from tests.support.town.process import Process, until
from tests.support.town.town import Town, free_port


@pytest.fixture(scope="module")
def town(towns: Build) -> Town:
    town = towns()
    town.add_replicas()
    return town


@pytest.fixture(scope="module")
def members(town: Town) -> list[Client]:
    members = town.fleet("orders", 2)
    town.client("shopper").view("orders")
    return members


def said(program: Process, status: int = 0) -> str:
    """What a command printed, once it ended with this status."""
    assert program.popen.wait(30) == status, program.tail()
    return program.log.read_text()


def line(program: Process) -> str:
    """The next line of a command that goes on; pytest's timeout bounds it."""
    assert program.popen.stdout is not None
    return program.popen.stdout.readline().rstrip("\n")


def test_everything_on_one_machine_starts_and_stops_with_one_command(town: Town, tmp_path: Path) -> None:
    command = ("dev", "--data", str(tmp_path / "data"), "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0")
    for number, name in ((signal.SIGINT, "dev-int"), (signal.SIGTERM, "dev-term")):
        dev = town.trimtab(*command, name=name)
        until(lambda dev=dev: "Try, in another terminal" in dev.log.read_text(), "it tells what to try")  # type: ignore[misc]
        told = dev.log.read_text()
        http = re.search(r"^  HTTP +(\S+)", told, re.MULTILINE)
        assert http is not None
        [etcd] = psutil.Process(dev.pid).children()
        assert etcd.name().startswith("etcd")
        towards = {"TRIMTAB_HTTP": f"http://{http[1]}"}
        if number is signal.SIGINT:
            setting = town.trimtab("config", "set", "shop/a.txt", "--file", __file__, name="set", environment=towards)
            assert said(setting)
        # What was there before the stop is there after it.
        assert "shop/a.txt" in said(
            town.trimtab("config", "list", "-o", "name", name=f"list-{name}", environment=towards)
        )
        assert dev.end(number) == 0
        assert not etcd.is_running()
        assert "Traceback" not in dev.log.read_text()


def test_a_replica_stops_cleanly_when_interrupted(town: Town) -> None:
    serve = town.trimtab(
        *("serve", "--etcd", town.etcd.endpoint, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"),
        *("--mesh", "other", "--set", "drain_spread=0"),
    )
    until(lambda: "is ready" in serve.log.read_text(), "it is ready")
    assert serve.end(signal.SIGINT) == 0
    assert "Traceback" not in serve.log.read_text()


def test_data_comes_as_a_table_as_json_and_as_yaml(town: Town, members: list[Client]) -> None:
    table, as_json, as_yaml = (
        town.trimtab("get", "instances", "orders", "-o", form) for form in ("table", "json", "yaml")
    )
    header, first, second = said(table).splitlines()
    assert header.split()[:4] == ["SERVICE", "ID", "ADDRESS", "HEALTH"]
    assert [row.split()[1::2][:2] for row in (first, second)] == [["orders-0", "HEALTHY"], ["orders-1", "HEALTHY"]]
    found = json.loads(said(as_json))
    assert [item["reported"]["port"] for item in found["items"]] == [m.serves[m.name] for m in members]
    assert yaml.safe_load(said(as_yaml))["items"] == found["items"]
    services = said(town.trimtab("get", "services"))
    assert services.splitlines()[1].split()[:2] == ["orders", "2"]


def test_an_operator_steers_instances_and_a_watch_shows_it(town: Town, members: list[Client]) -> None:
    watch = town.trimtab("get", "instances", "orders", "-w", piped=True)
    shopper = town.clients["shopper"]
    assert [line(watch).split()[1] for _ in range(3)] == ["ID", "orders-0", "orders-1"]
    assert "now DRAINING" in said(town.trimtab("drain", "orders/orders-0"))
    assert line(watch).split()[1:4:2] == ["orders-0", "DRAINING"]
    until(lambda: shopper.view("orders")["endpoints"]["orders-0"]["health"] == 2, "the shopper sees the drain")
    assert {shopper.do("pick", service="orders") for _ in range(20)} == {"orders-1"}
    assert "now HEALTHY" in said(town.trimtab("drain", "orders/orders-0", "--undo"))
    assert line(watch).split()[1:4:2] == ["orders-0", "HEALTHY"]
    assert "with weight 7" in said(town.trimtab("weight", "orders/orders-1", "7"))
    assert line(watch).split()[4] == "7"
    until(lambda: shopper.view("orders")["endpoints"]["orders-1"]["weight"] == 7, "the shopper sees the weight")
    assert "with weight 100" in said(town.trimtab("weight", "orders/orders-1", "--reset"))
    assert line(watch).split()[4] == "100"
    assert watch.end(signal.SIGINT) == 130


def test_configuration_is_set_and_read_back(town: Town, tmp_path: Path) -> None:
    file = tmp_path / "app.yaml"
    file.write_text("greeting: grüß dich\n")
    assert "of yaml" in said(town.trimtab("config", "set", "shop/app.yaml", "--file", str(file)))
    assert said(town.trimtab("config", "get", "shop/app.yaml")) == "greeting: grüß dich\n"


def test_any_program_can_be_run_as_an_instance(town: Town, tmp_path: Path) -> None:
    """Its own server in Python's standard library: registered, started again when it dies, drained when it is stopped."""
    replica, port = town.replicas[0], free_port()
    (tmp_path / "index.html").write_text("here")
    server = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path))
    options = ("--service", "files", "--port", str(port), "--address", "127.0.0.1", "--interval", "100ms")
    run = town.trimtab("run", *options, "--check", "http:///", "--drain", "1s", "--restart", "always", "--", *server)

    def program() -> psutil.Process:
        return next(p for p in psutil.Process(run.pid).children(recursive=True) if "http.server" in p.cmdline())

    until(lambda: set(replica.healths("files").values()) == {"HEALTHY"}, "it is registered and healthy")
    caller = town.client("files-caller")
    caller.call("files", rate=20)
    assert {call.tried for call in caller.more_calls(5)} == {(f"127.0.0.1-{port}",)}
    first = program()
    first.kill()
    until(lambda: set(replica.healths("files").values()) == {"UNHEALTHY"}, "its death is told")
    until(lambda: set(replica.healths("files").values()) == {"HEALTHY"}, "it is started again")
    second = program()
    assert second.pid != first.pid
    run.send(signal.SIGTERM)
    until(lambda: "HEALTHY" not in replica.healths("files").values(), "it is drained")
    assert second.is_running()
    run.popen.wait(20)
    assert not second.is_running()
    until(lambda: not replica.instances("files"), "it is gone")


def test_refused_settings_name_the_setting_and_where_it_came_from(town: Town, tmp_path: Path) -> None:
    file = tmp_path / "trimtab.toml"
    file.write_text('grpc_address = "nowhere"\n')
    wrong = {"TRIMTAB_HEARTBEAT_INTERVAL": "often"}
    told = said(town.trimtab("serve", "--set", "grase=1", "--config", str(file), environment=wrong), 2)
    assert "settings.invalid" in told
    assert "grase: unknown setting (flag) (did you mean grace?)" in told
    assert re.search(r"heartbeat_interval: .*number.*\(environment\)", told)
    assert f"grpc_address: must be HOST:PORT, as 0.0.0.0:7071 or [::]:7071 (file {file})" in told


def test_an_address_that_somebody_else_has_is_told(town: Town) -> None:
    taken = town.replicas[0].address
    told = said(town.trimtab("serve", "--etcd", town.etcd.endpoint, "--grpc", taken, "--http", "127.0.0.1:0"), 2)
    assert ("settings.invalid" in told, taken in told) == (True, True)


def test_a_server_that_is_not_there_has_an_exit_code_of_its_own(town: Town) -> None:
    nowhere = {"TRIMTAB_HTTP": f"http://127.0.0.1:{free_port()}"}
    told = said(town.trimtab("get", "services", environment=nowhere), 3)
    assert "hint" in told
