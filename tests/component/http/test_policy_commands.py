"""Policies from the command line: applied, compared, explained, shown and withdrawn."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab.policy import reading
from trimtab.policy.model import MAX_BYTES, MAX_ROUTES

from controlplane.core import policies
from controlplane.core.model import PolicyDocument
from controlplane.core.resource import ResourceKind, ResourceName
from controlplane.errors import Code, TrimtabError, Violation
from controlplane.runtime.breakers import BreakerInfo, BreakerState
from tests.component.http.commands import Run, trimtab, watching
from tests.component.http.conftest import Served
from tests.unit.http.house import Stream, client_info
from tests.unit.http.test_policies_api import NAMESPACE, ORDERS
from tests.unit.http.test_traffic_api import CALLS

__all__ = ["trimtab"]

STOCK = ORDERS.replace("name: orders", "name: stock")
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write("a.yaml", ORDERS, STOCK)``: a file of these documents; its path."""

    def written(name: str, *documents: str) -> str:
        path = tmp_path / name
        path.write_text("---\n".join(documents))
        return str(path)

    return written


def connect(served: Served, *nodes: str, refusing: str = "", behind: bool = False) -> None:
    """Clients that follow shop/orders and have got all there is."""
    resource = ResourceName(ResourceKind.POLICY, "shop/orders")

    async def add() -> None:
        for node in nodes:
            nacks = ((str(resource), refusing),) if refusing else ()
            info = client_info(node, acked=10**9, followed=((resource, behind),), nacks=nacks)
            served.house.clients.add(Stream(info))

    served.do(add())


def test_a_policy_is_applied_once_and_unchanged_the_second_time(
    trimtab: Run, served: Served, write: Write, capsys: Any
) -> None:
    file = write("orders.yaml", ORDERS)
    assert trimtab("apply", "-f", file) == 0
    revision = served.house.view.policy("shop", "orders").revision  # type: ignore[union-attr]
    assert capsys.readouterr().out == f"shop/orders: policy applied at revision {revision}\n"
    assert trimtab("apply", "-f", file) == 0
    assert capsys.readouterr().out == "shop/orders: policy unchanged\n"


def test_several_documents_come_from_one_file_a_directory_or_stdin(
    trimtab: Run, served: Served, write: Write, tmp_path: Path, capsys: Any
) -> None:
    write("all.yaml", "# the shop's\n", ORDERS, NAMESPACE)
    write("stock.yml", STOCK)
    write("readme.txt", "nothing of this")
    assert trimtab("apply", "-f", str(tmp_path)) == 0
    told = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == ["shop/orders", "shop/*", "shop/stock"]
    assert trimtab("apply", "-f", "-", stdin=ORDERS.encode()) == 0
    assert capsys.readouterr().out == "shop/orders: policy unchanged\n"


def test_one_bad_document_keeps_all_from_being_written_and_every_place_is_told(
    trimtab: Run, served: Served, write: Write, capsys: Any
) -> None:
    bad = STOCK.replace("attempts: 3", "attemps: 3")
    file = write("all.yaml", ORDERS, bad)
    assert trimtab("apply", "-f", file) == 1
    out, err = capsys.readouterr()
    line = [number for number, text in enumerate(Path(file).read_text().splitlines(), 1) if "attemps" in text]
    assert f"{file}:{line[0]}:13: spec.default.retry.attemps:" in err
    assert "did you mean attempts?" in err
    assert "policy.invalid" in err
    assert (out, served.house.view.policies("shop")) == ("", [])


def test_what_is_too_large_is_refused_by_its_file_and_place(
    trimtab: Run, served: Served, write: Write, capsys: Any
) -> None:
    file = write("long.yaml", ORDERS + "#" * MAX_BYTES)
    assert trimtab("apply", "-f", file) == 1
    kept = (ORDERS + "#" * MAX_BYTES)[:MAX_BYTES]
    place = f"{file}:{kept.count(chr(10)) + 1}:{len(kept) - kept.rfind(chr(10))}"
    told = f"{place}: {len(ORDERS) + MAX_BYTES} bytes are too many (at most {MAX_BYTES}, which end here)"
    assert told in capsys.readouterr().err
    routes = "".join(f"    - {{match: {{method: m{number}}}, retry: off}}\n" for number in range(MAX_ROUTES + 1))
    file = write("many.yaml", STOCK.partition("  routes:\n")[0] + "  routes:\n" + routes)
    line = next(n for n, text in enumerate(Path(file).read_text().splitlines(), 1) if f"m{MAX_ROUTES}}}" in text)
    assert trimtab("apply", "-f", file) == 1
    told = f"{file}:{line}:7: spec.routes: {MAX_ROUTES + 1} routes (at most {MAX_ROUTES})"
    assert told in capsys.readouterr().err
    assert served.house.view.policies("shop") == []


def test_what_only_the_server_finds_wrong_is_told_with_its_place_in_the_file_and_nothing_is_written(
    trimtab: Run, served: Served, write: Write, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a server of another version might."""
    checked = policies.checked

    def stricter(namespace: str, name: str, text: bytes, **more: Any) -> PolicyDocument:
        if name == "stock":
            place = Violation("spec.default.timeout", "too long", "at most 1s", 7, 5)
            raise TrimtabError(Code.POLICY_INVALID, "refused", violations=[place])
        return checked(namespace, name, text, **more)

    monkeypatch.setattr(policies, "checked", stricter)
    file = write("all.yaml", ORDERS, STOCK)
    assert trimtab("apply", "-f", file) == 1
    line = len(ORDERS.splitlines()) + 1 + 7
    assert f"{file}:{line}:5: spec.default.timeout: too long (at most 1s)" in capsys.readouterr().err
    assert served.house.view.policies("shop") == []


def test_what_only_the_server_finds_too_large_is_told_with_its_place_in_the_file(
    trimtab: Run, served: Served, write: Write, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "MAX_BYTES", 30)
    file = write("all.yaml", "# the shop's\n", ORDERS)
    assert trimtab("apply", "-f", file) == 1
    kept = ORDERS[:30]
    line, column = kept.count("\n") + 3, len(kept) - kept.rfind("\n")
    assert f"{file}:{line}:{column}: {len(ORDERS)} bytes are too many" in capsys.readouterr().err
    assert served.house.view.policies("shop") == []


@pytest.mark.parametrize(
    "text",
    [
        f"%YAML 1.2\n---\n{ORDERS}",
        f"# the shop's\n%YAML 1.2\n# and\n---\n{ORDERS}...\n%YAML 1.2\n---\n{STOCK}",
        f"--- # first\n{ORDERS}--- # nothing more\n",
        f"{ORDERS}...\n",
        f"---\n{ORDERS}...\n---\n...\n",
        f"\ufeff# the shop's\n---\n{ORDERS}",
    ],
)
def test_directives_ends_and_comments_are_no_documents(
    trimtab: Run, served: Served, tmp_path: Path, text: str, capsys: Any
) -> None:
    file = tmp_path / "orders.yaml"
    file.write_text(text)
    assert trimtab("apply", "-f", str(file)) == 0, capsys.readouterr().err
    assert len(served.house.view.policies("shop")) == text.count("kind:")


def test_lines_are_counted_as_editors_count_them(trimtab: Run, served: Served, write: Write, capsys: Any) -> None:
    file = write("all.yaml", f"# one\x0cstill\x1cone\x85\n{ORDERS}", STOCK.replace("attempts", "attemps"))
    assert trimtab("apply", "-f", file) == 1
    line = next(n for n, text in enumerate(Path(file).read_text().split("\n"), 1) if "attemps" in text)
    err = capsys.readouterr().err
    assert f"{file}:1:6: a character that is no text, U+000C (remove it)" in err
    assert f"{file}:{line}:13: spec.default.retry.attemps:" in err


def test_a_name_that_is_empty_is_not_this_directory(
    trimtab: Run, served: Served, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(write("orders.yaml", ORDERS)).parent)
    assert trimtab("apply", "-f", "") == 2
    assert served.house.view.policies("shop") == []


def test_the_same_service_twice_is_a_mistake(trimtab: Run, served: Served, write: Write, capsys: Any) -> None:
    one, two = write("one.yaml", ORDERS), write("two.yaml", STOCK, ORDERS)
    assert trimtab("apply", "-f", one, "-f", two) == 1
    assert f"shop/orders is here for the second time (the first is {one}:1:1)" in capsys.readouterr().err
    assert served.house.view.policies("shop") == []


def test_a_dry_run_tells_what_would_happen_and_writes_nothing(
    trimtab: Run, served: Served, write: Write, capsys: Any
) -> None:
    trimtab("apply", "-f", write("orders.yaml", ORDERS))
    capsys.readouterr()
    file = write("next.yaml", ORDERS.replace("3s", "4s"), STOCK)
    assert trimtab("apply", "--dry-run", "-f", file) == 0
    assert capsys.readouterr().out.splitlines() == [
        "shop/orders: policy would be changed (dry run)",
        "shop/stock: policy would be created (dry run)",
    ]
    assert trimtab("apply", "--dry-run", "-f", write("orders.yaml", ORDERS)) == 0
    assert "would stay as it is" in capsys.readouterr().out
    assert [stored.ref.path[1] for stored in served.house.view.policies("shop")] == ["orders"]


def test_what_is_applied_as_json_is_the_same_policy(trimtab: Run, served: Served, write: Write, capsys: Any) -> None:
    trimtab("apply", "-f", write("orders.yaml", ORDERS))
    capsys.readouterr()
    assert trimtab("get", "policy", "orders", "-n", "shop", "-o", "json") == 0
    assert trimtab("apply", "-f", write("orders.json", capsys.readouterr().out)) == 0
    assert capsys.readouterr().out == "shop/orders: policy unchanged\n"


def test_files_that_hold_no_policy_are_told(trimtab: Run, served: Served, write: Write, tmp_path: Path) -> None:
    assert trimtab("apply", "-f", str(tmp_path)) == 2
    assert trimtab("apply", "-f", write("empty.yaml", "# nothing\n", "\n")) == 2
    assert trimtab("apply", "-f", str(tmp_path / "missing.yaml")) == 2


def test_waiting_ends_when_every_client_has_acknowledged(
    trimtab: Run, served: Served, write: Write, capsys: Any
) -> None:
    connect(served, "n1", "n2")
    assert trimtab("apply", "--wait", "-f", write("orders.yaml", ORDERS)) == 0
    out, err = capsys.readouterr()
    assert "applied" in out
    assert err == "shop/orders: 2 of 2 clients have acknowledged\n"
    assert trimtab("apply", "--wait", "-f", write("stock.yaml", STOCK)) == 0
    assert capsys.readouterr().err == "shop/stock: no client follows it\n"


def test_waiting_ends_with_the_reason_of_a_client_that_refuses(
    trimtab: Run, served: Served, write: Write, capsys: Any
) -> None:
    connect(served, "n1", refusing="spec.default.teleport: unknown field")
    assert trimtab("apply", "--wait", "-f", write("orders.yaml", ORDERS)) == 1
    assert "checkout n1: spec.default.teleport: unknown field" in capsys.readouterr().err


def test_waiting_ends_in_time_and_names_who_did_not_answer(
    trimtab: Run, served: Served, write: Write, capsys: Any
) -> None:
    connect(served, "n1", behind=True)
    assert trimtab("apply", "--wait", "--timeout", "0", "-f", write("orders.yaml", ORDERS)) == 1
    err = capsys.readouterr().err
    assert "it is in force" in err
    assert "checkout n1: has not answered yet" in err


def test_a_difference_is_shown_in_the_same_words_on_both_sides(
    trimtab: Run, served: Served, write: Write, capsys: Any
) -> None:
    trimtab("apply", "-f", write("orders.yaml", ORDERS))
    capsys.readouterr()
    commented = ORDERS.replace("retry: {attempts: 3,", "retry: { # thrice\n      attempts: 3,")
    assert trimtab("diff", "-f", write("same.yaml", commented)) == 0
    assert capsys.readouterr().out == ""
    file = write("next.yaml", ORDERS.replace("total: 3s", "total: 4s"), STOCK)
    assert trimtab("diff", "-f", file) == 1
    out = capsys.readouterr().out
    assert "-    timeout: {total: 3s, attempt: 1s}\n+    timeout: {total: 4s, attempt: 1s}" in out
    assert "--- shop/stock (none)" in out
    assert "+kind: ServicePolicy" in out


def test_a_diff_that_cannot_be_made_does_not_look_like_a_difference(
    trimtab: Run, served: Served, write: Write, capsys: Any
) -> None:
    assert trimtab("diff", "-f", write("bad.yaml", ORDERS.replace("total", "totel"))) == 2
    assert "totel" in capsys.readouterr().err


def test_what_holds_for_a_call_is_explained_with_its_origin(
    trimtab: Run, served: Served, write: Write, capsys: Any
) -> None:
    connect(served, *(f"n{number}" for number in range(23)))
    trimtab("apply", "-f", write("all.yaml", ORDERS, NAMESPACE))
    capsys.readouterr()
    call = ("explain", "-n", "shop", "--from", "checkout", "--to", "orders", "--method", "Charge")
    assert trimtab(*call) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert rows["SECTION"].split() == ["SECTION", "VALUE", "FROM", "PLACE", "REVISION"]
    assert rows["retry"].split()[1:4] == ["off", "shop/orders", "routes[0]"]
    assert "{total: 3s, attempt: 1s}" in rows["timeout"]
    assert "shop/*" in rows["concurrency"]
    assert "built-in" in rows["balance"]
    assert "23 acknowledged" in rows["shop/orders"]
    assert "and 3 more" in out
    assert "ACKNOWLEDGED  checkout n1" in out
    assert "no client follows it" in rows["shop/*"]
    assert trimtab(*call, "--header", "x-tenant=acme", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["headers"] == {"x-tenant": "acme"}


def test_policies_are_listed_and_printed_as_they_were_written(
    trimtab: Run, served: Served, write: Write, capsys: Any
) -> None:
    trimtab("apply", "-f", write("all.yaml", ORDERS, NAMESPACE))
    capsys.readouterr()
    assert trimtab("get", "policies", "-n", "shop") == 0
    header, every, orders = capsys.readouterr().out.splitlines()
    assert header.split() == ["SERVICE", "SECTIONS", "ROUTES", "REVISION", "AUTHOR"]
    assert every.split()[:3] == ["*", "concurrency,timeout", "0"]
    assert orders.split()[:3] == ["orders", "breaker,retry,timeout", "2"]
    assert trimtab("get", "policy", "orders", "-n", "shop") == 0
    assert capsys.readouterr().out == ORDERS
    assert trimtab("get", "policy", "orders", "-n", "shop", "-o", "canonical") == 0
    assert reading.read(capsys.readouterr().out) == reading.read(ORDERS)
    assert trimtab("get", "policies", "*", "-n", "shop", "-o", "yaml") == 0
    assert yaml.safe_load(capsys.readouterr().out)["service"] == "*"


def test_a_watch_of_policies_shows_each_change(served: Served, trimtab: Run, write: Write) -> None:
    trimtab("apply", "-f", write("orders.yaml", ORDERS))
    with watching("get", "policies", "-n", "shop", "-w", "-o", "json", url=served.url) as watch:
        assert json.loads(watch.line())["object"]["service"] == "orders"
        trimtab("apply", "-f", write("stock.yaml", STOCK))
        assert json.loads(watch.line())["object"]["service"] == "stock"
        trimtab("delete", "policy", "orders", "-n", "shop")
        gone = json.loads(watch.line())
        assert (gone["event"], gone["object"]["service"]) == ("removed", "orders")


def test_a_policy_is_withdrawn_if_it_is_still_the_one_that_was_seen(
    trimtab: Run, served: Served, write: Write, capsys: Any
) -> None:
    trimtab("apply", "-f", write("orders.yaml", ORDERS))
    assert trimtab("delete", "policy", "orders", "-n", "shop", "--expect", "1") == 1
    assert "resource.precondition_failed" in capsys.readouterr().err
    assert trimtab("delete", "policy", "orders", "-n", "shop") == 0
    assert "shop/orders: policy withdrawn at revision" in capsys.readouterr().out
    assert trimtab("delete", "policy", "orders", "-n", "shop") == 1
    assert "there is no policy shop/orders" in capsys.readouterr().err


OPEN = BreakerInfo(
    node="n1",
    caller="checkout",
    caller_namespace="shop",
    replica="r1",
    namespace="shop",
    service="orders",
    endpoint="10.0.0.7-8000",
    method="",
    state=BreakerState.OPEN,
    age=3.0,
    calls=20,
    failure_ratio=0.6,
    slow_ratio=0.0,
    retry_after=12.0,
)


def test_breakers_are_a_table_worst_first(trimtab: Run, served: Served, capsys: Any) -> None:
    closed = OPEN._replace(state=BreakerState.CLOSED, endpoint="", retry_after=None, failure_ratio=0.05, age=90.0)

    async def add() -> None:
        served.house.clients.add(Stream(client_info("n1"), (closed, OPEN)))

    served.do(add())
    assert trimtab("get", "breakers", "orders", "-n", "shop") == 0
    header, worst, best = capsys.readouterr().out.splitlines()
    assert header.split() == ["CALLER", "CALLEE", "SCOPE", "STATE", "SINCE", "FAILURES", "RETRY", "AFTER"]
    assert worst.split()[:4] == ["checkout", "shop/orders", "10.0.0.7-8000", "OPEN"]
    assert worst.split()[5:] == ["60%", "12s"]
    assert best.split()[2:] == ["service", "CLOSED", "90s", "5%", "-"]
    assert trimtab("get", "breakers", "stock") == 0
    assert "no breakers in calls to any namespace/stock" in capsys.readouterr().err


def test_a_watch_of_breakers_shows_a_change_of_state(served: Served) -> None:
    stream = Stream(client_info("n1"), (OPEN,))

    async def change(state: BreakerState) -> None:
        stream.circuits = (OPEN._replace(state=state),)
        served.house.clients.add(stream)

    served.do(change(BreakerState.OPEN))
    with watching("get", "breakers", "-w", "-o", "json", url=served.url) as watch:
        assert json.loads(watch.line())["object"]["state"] == "OPEN"
        served.do(change(BreakerState.HALF_OPEN))
        shown = json.loads(watch.line())["object"]
        assert (shown["state"], abs(time.time() - shown["since"]) < 60) == ("HALF_OPEN", True)


def test_calls_are_a_table_by_endpoint_or_by_caller(trimtab: Run, served: Served, capsys: Any) -> None:
    idle = CALLS._replace(
        node="n2", caller="", endpoint="b", calls=0.0, failures=0.0, seconds=0.0, ejecting=0, ejected_by=()
    )

    async def add() -> None:
        served.house.clients.add(Stream(client_info("n1"), calls=(CALLS,)))
        served.house.clients.add(Stream(client_info("n2"), calls=(CALLS._replace(node="n2"), idle)))

    served.do(add())
    assert trimtab("get", "traffic", "orders", "-n", "shop") == 0
    header, both, one = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "CALLEE"
    assert both.split() == ["shop/orders", "a", "40.0", "25%", "20.0ms", "6", "2", "2", "(checkout)", "2.0s"]
    assert one.split() == ["shop/orders", "b", "0.0", "0%", "-", "3", "1", "-", "2.0s"]
    assert trimtab("get", "traffic", "orders", "--by", "caller", "-o", "wide") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [
        ["checkout", "shop/orders", "a", "20.0", "25%", "20.0ms", "3", "yes", "2.0s", "n1", "r1"],
        ["checkout", "shop/orders", "a", "20.0", "25%", "20.0ms", "3", "yes", "2.0s", "n2", "r1"],
        ["n2", "shop/orders", "b", "0.0", "0%", "-", "3", "-", "2.0s", "n2", "r1"],
    ]
    assert trimtab("get", "traffic", "orders", "-o", "name") == 0
    assert capsys.readouterr().out.split() == ["orders/a", "orders/b"]
    assert trimtab("get", "traffic", "stock") == 0
    assert "no traffic in calls to any namespace/stock" in capsys.readouterr().err


def test_a_watch_of_calls_shows_news_and_no_ageing(served: Served) -> None:
    stream = Stream(client_info("n1"))

    async def report(**news: Any) -> None:
        stream.calls = (CALLS._replace(**news),)
        served.house.clients.add(stream)

    served.do(report())
    with watching("get", "traffic", "-w", "-o", "json", url=served.url) as watch:
        assert json.loads(watch.line())["object"]["calls_per_second"] == 20.0
        served.do(report(age=9.0))
        served.do(report(calls=30.0, age=0.0))
        assert json.loads(watch.line())["object"]["calls_per_second"] == 30.0
