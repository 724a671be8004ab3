"""Reading documents: what is understood, and how everything else is refused, with its place and a way out."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import pytest
from trimtab.policy.forms import Json
from trimtab.policy.model import MAX_BYTES, MAX_ROUTES, Match, Route, ServicePolicy
from trimtab.policy.problems import PolicyInvalid, Problem
from trimtab.policy.reading import MAX_FILE_BYTES, read, read_all
from trimtab.policy.sections import (
    OFF,
    Balance,
    Breaker,
    Budget,
    Concurrency,
    Fallback,
    HashKey,
    Limit,
    OpenWhen,
    Outlier,
    Retry,
    Sections,
    Split,
    Timeout,
)

from tests.unit.policy.documents import EXAMPLE, FITTING, as_json, default, large, routes


def problems(text: str | bytes) -> tuple[Problem, ...]:
    with pytest.raises(PolicyInvalid) as refused:
        read(text)
    return refused.value.problems


def problem(text: str | bytes) -> Problem:
    (only,) = problems(text)
    return only


def said(sections: str) -> Sections:
    return read(default(sections)).default


def test_the_example_says_what_it_says() -> None:
    assert read(EXAMPLE) == ServicePolicy(
        namespace="shop",
        name="orders",
        default=Sections(
            timeout=Timeout(total=3.0, attempt=1.0),
            retry=Retry(
                attempts=3,
                on=("connect-failure", "503", "UNAVAILABLE"),
                backoff=(0.05, 1.0),
                budget=Budget(ratio=0.2),
            ),
            breaker=Breaker(open_when=OpenWhen(failures=0.5, minimum=20, seconds=10.0), open_for=15.0),
            balance=Balance(algorithm="p2c", locality="prefer-zone"),
            concurrency=Concurrency(limit=200),
        ),
        routes=(
            Route(match=Match(method=("Charge",)), sections=Sections(retry=OFF)),
            Route(match=Match(caller=("batch",)), sections=Sections(limit=Limit(rate=50.0, burst=100), priority="low")),
        ),
    )


def test_a_document_for_every_service_of_a_namespace_is_named_with_a_star() -> None:
    assert str(read(EXAMPLE.replace("orders", '"*"'))) == "shop/*"


def test_json_says_the_same() -> None:
    assert read(as_json(EXAMPLE)) == read(EXAMPLE)


@pytest.mark.parametrize("off", ["off", '"off"', "false", "False"])
def test_a_section_is_switched_off(off: str) -> None:
    assert said(f"retry: {off}").retry is OFF


@pytest.mark.parametrize("off", ['"off"', "false"])
def test_a_section_is_switched_off_in_json(off: str) -> None:
    head = '{"apiVersion":"trimtab/v1","kind":"ServicePolicy","metadata":{"name":"a","namespace":"b"}'
    assert read(f'{head},"spec":{{"default":{{"retry":{off}}}}}}}').default.retry is OFF


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ("timeout: 3s", Sections(timeout=Timeout(total=3.0))),
        ("retry: {}", Sections(retry=Retry())),
        ("retry: {on: 5xx}", Sections(retry=Retry(on=("5xx",)))),
        ("limit: 600/m", Sections(limit=Limit(rate=10.0))),
        ("breaker: 5 in a row", Sections(breaker=Breaker(open_when=OpenWhen(consecutive=5)))),
        ("breaker: {open_when: {slow: 80%, slow_after: 1s, calls: 50}}", Sections(
            breaker=Breaker(open_when=OpenWhen(slow=0.8, slow_after=1.0, calls=50)))),
        ("balance: {algorithm: ring_hash, hash: X-User}", Sections(
            balance=Balance(algorithm="ring_hash", hash=HashKey(header="x-user")))),
        ("split: {weights: {1.0: 90, off: 10}}", Sections(split=Split(weights=(("1.0", 90.0), ("off", 10.0))))),
        ("fallback: {value: {items: [1, null]}}", Sections(fallback=Fallback(value='{"items":[1,null]}'))),
        ("limit: {rate: 5/s, per: key, key: {argument: user}}", Sections(
            limit=Limit(rate=5.0, per="key", key=HashKey(argument="user")))),
    ],
)  # fmt: skip
def test_short_forms_stand_for_their_section(sections: str, expected: Sections) -> None:
    assert said(sections) == expected


def test_null_says_that_an_optional_field_is_not_there() -> None:
    outlier = said("outlier: {consecutive: null, success_rate: {}}").outlier
    assert isinstance(outlier, Outlier)
    assert outlier.consecutive is None


def test_words_that_yaml_1_1_takes_for_truth_values_are_texts() -> None:
    policy = read(routes("match: {header: {x-beta: on, x-old: no}}, retry: off"))
    assert policy.routes[0].match.header == (("x-beta", "on"), ("x-old", "no"))


def test_a_text_that_looks_like_a_number_is_kept_as_it_is_written() -> None:
    tiers = said("balance: {failover: {tiers: [010, 1:30, 503]}}").balance
    assert isinstance(tiers, Balance)
    assert tiers.failover is not None
    assert tiers.failover.tiers == ("010", "1:30", "503")


def test_full_method_names_may_begin_with_a_slash_and_headers_may_have_capitals() -> None:
    match = read(routes("match: {method: /shop.Orders/Charge, header: {X-User: a}}, retry: off")).routes[0].match
    assert match == Match(method=("shop.Orders/Charge",), header=(("x-user", "a"),))


# Everything that is wrong, at once


def test_all_problems_are_told_at_once_in_the_order_of_the_text() -> None:
    text = EXAMPLE.replace("attempts", "attemps").replace("low", "lo").replace("name: orders", "name: Orders")
    assert str(PolicyInvalid(problems(text))) == (
        'line 3, column 18: metadata.name: "Orders" does not fit here'
        " (a-z, 0-9 and '-', starting and ending with a letter or digit)\n"
        "line 7, column 13: spec.default.retry.attemps: unknown field (did you mean attempts?)\n"
        'line 16, column 17: spec.routes[1].priority: "lo" is none of low, normal, high, critical (did you mean low?)'
    )


def test_no_more_than_a_hundred_problems_are_told() -> None:
    assert len(problems(default("\n".join(f"section{index}: 1" for index in range(300))))) == 100


@pytest.mark.parametrize(
    ("sections", "path", "column", "words"),
    [
        ("retries: 3", "retries", 5, "unknown field (did you mean retry?)"),
        ("retry: null", "retry", 12, "says nothing (write off, or leave it out)"),
        ("retry: on", "retry", 12, "write {} for the defaults"),
        ("retry: [3]", "retry", 12, "a list is no mapping"),
        ("retry: {attempts: three}", "retry.attempts", 23, '"three" is no whole number'),
        ("retry: {attempts: 0}", "retry.attempts", 23, "0 is out of range (1 to 10)"),
        ("retry: {attempts: 99999999999999999999}", "retry.attempts", 23, "is no whole number"),
        ("retry: {attempts: 3, attempts: 4}", "retry.attempts", 26, "appears twice (first in line 6)"),
        ("retry: {on: [503, 503]}", "retry.on[1]", 23, "503 appears twice"),
        ("retry: {on: []}", "retry.on", 17, "0 entries"),
        ("retry: {on: UNAVALABLE}", "retry.on", 17, "did you mean UNAVAILABLE?"),
        ("retry: {on: 200}", "retry.on", 17, "an HTTP status of 400 to 599"),
        ("retry: {backoff: 1s..50ms}", "retry.backoff", 22, "goes backwards (write 50ms..1s)"),
        ("retry: {budget: 20%, throttle: {}}", "retry.throttle", 36, "there is a budget already (one of the two)"),
        ("retry: 3\nhedge: 100ms", "hedge", 5, "there is a retry in the same place (one of the two)"),
        ("priority: off", "priority", 15, "is none of low, normal, high, critical"),
        ("timeout: {}", "timeout", 14, "says nothing (say total or attempt, or off for no timeout)"),
        ("timeout: {total: 1s, attempt: 3s}", "timeout.attempt", 35, "3s is longer than the total of 1s"),
        ("timeout: 3 s", "timeout", 14, "write 250ms, 3s, 1.5m or 2h"),
        ("timeout: 2001-01-01", "timeout", 14, "is no duration"),
        ("breaker: {open_when: {}}", "breaker.open_when", 26, "says no condition"),
        ("breaker: {open_when: {slow: 80%}}", "breaker.open_when.slow", 33, "say slow_after: 1s"),
        ("breaker: {open_when: {slow_after: 1s, failures: 50%}}", "breaker.open_when.slow_after", 39, "say slow: 80%"),
        ("breaker: {open_when: {failures: 50%, calls: 100, seconds: 10s}}", "breaker.open_when.seconds", 63,
         "calls or seconds"),
        ("breaker: {open_when: {failures: 50%, calls: 10}}", "breaker.open_when.calls", 49, "never holds the minimum"),
        ("breaker: sometimes", "breaker", 14, "is not understood"),
        ("breaker: {open_when: 5 in a row or 6 in a row}", "breaker.open_when", 26, "consecutive is said twice"),
        ("breaker: failures >= 50% in 10s or slow(1s) >= 50% in last 100", "breaker", 14, "one circuit has one window"),
        ("balance: {algorithm: ring_hash}", "balance.algorithm", 26, "ring_hash needs a key"),
        ("balance: maglev", "balance.algorithm", 14, "maglev needs a key"),
        ("balance: {hash: x-user}", "balance.hash", 21, "for ring_hash and maglev"),
        ("balance: {hash: {}, algorithm: maglev}", "balance.hash", 21, "say header or argument"),
        ("balance: {weights: load}", "balance.weights", 24, "for round_robin"),
        ("split: {weights: {v1: 0, v2: 0}}", "split.weights", 22, "all weights are 0"),
        ("split: {weights: {v1: 1, v1: 2}}", "split.weights.v1", 30, "appears twice"),
        ("split: {weights: {v1: -1}}", "split.weights.v1", 27, "-1 is out of range"),
        ("split: {}", "split.weights", 12, "missing"),
        ("concurrency: {}", "concurrency", 18, "says nothing"),
        ("concurrency: {limit: 5, adaptive: {}}", "concurrency.adaptive", 39, "one of the two"),
        ("concurrency: {adaptive: {low: 300}}", "concurrency.adaptive.low", 35, "300 is more than high, 200"),
        ("concurrency: {adaptive: {low: 50}}", "concurrency.adaptive.initial", 29, "20 is not within 50 to 200"),
        ("limit: {per: key}", "limit.per", 18, "say key: {header: NAME}"),
        ("limit: {key: x-user}", "limit.key", 18, "say per: key"),
        ("outlier: null", "outlier", 14, "says nothing"),
        ("outlier: {consecutive: null}", "outlier.consecutive", 28, "nothing is judged"),
        ("fallback: {}", "fallback", 15, "there is nothing to fall back to"),
        ("fallback: {service: orders}", "fallback.service", 15, "orders itself"),
        ("mirror: orders", "mirror.service", 13, "orders itself"),
        ("mirror: {share: 10%}", "mirror.service", 13, "missing"),
        ("fault: {}", "fault", 12, "say delay or abort"),
        ("fault: {abort: 5xx}", "fault.abort", 20, "is no condition"),
        ("server: {queue: 5}", "server", 13, "says no limit"),
        ("server: {concurrency: 5, adaptive: {}}", "server.adaptive", 40, "one of the two"),
        ("fallback: {value: {a: 1, a: 2}}", "fallback.value.a", 30, "appears twice"),
        ("limit: {burst: 1.5}", "limit.burst", 20, "1.5 is no whole number"),
        ("balance: {failover: {tiers: [1.0]}}", "balance.failover.tiers[0]", 34, "quote it"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_section_is_told_with_its_place(sections: str, path: str, column: int, words: str) -> None:
    found = problem(default(sections))
    assert found.path == f"spec.default.{path}"
    assert (found.line, found.column) == (6 + sections.count("\n"), column)
    assert words in str(found)
    assert found.hint


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        (("trimtab/v1", "trimtab/v2"), "apiVersion", '"trimtab/v2" is not known here (write trimtab/v1)'),
        (("ServicePolicy", "Policy"), "kind", "write ServicePolicy"),
        (("kind: ServicePolicy\n", ""), "kind", "missing"),
        (("name: orders, ", ""), "metadata.name", "missing"),
        ((", namespace: shop", ""), "metadata.namespace", "missing"),
        (("namespace: shop", "namespace: Shop!"), "metadata.namespace", "does not fit here"),
        (("namespace: shop", 'namespace: "*"'), "metadata.namespace", "does not fit here"),
        (("namespace: shop", "namespace: shop, labels: {}"), "metadata.labels", "unknown field"),
        (("spec:", "specs:"), "specs", "did you mean spec?"),
        (("  routes:", "  route:"), "spec.route", "did you mean routes?"),
        (("{method: Charge}", "{}"), "spec.routes[0].match", "say so in spec.default instead"),
        (("match: {method: Charge}\n      retry: off", "retry: off"), "spec.routes[0].match", "missing"),
        (("\n      retry: off", ""), "spec.routes[0]", "says nothing about the calls"),
        (("method: Charge", "methods: Charge"), "spec.routes[0].match.methods", "did you mean method?"),
        (("method: Charge", "path: v1"), "spec.routes[0].match.path", "a path as /v1/orders"),
        (("method: Charge", "header: {x: a, X: b}"), "spec.routes[0].match.header.X", "appears twice"),
        (("method: Charge", "header: {é: a}"), "spec.routes[0].match.header.é", "the name of a header"),
        (("limit: {rate: 50/s, burst: 100}", "server: off"), "spec.routes[1].server", "do not know their callers"),
        (("method: Charge", "caller: true"), "spec.routes[0].match.caller", "true is no text (quote it)"),
    ],
)  # fmt: skip
def test_what_is_wrong_around_the_sections_is_told_too(change: tuple[str, str], path: str, words: str) -> None:
    found = problems(EXAMPLE.replace(*change))
    assert [words in str(one) for one in found if one.path == path] == [True]
    assert all(one.line and one.hint for one in found)


@pytest.mark.parametrize("spec", ["[]", "null", "5", "{default: []}", "{routes: {}}", "{routes: [5]}"])
def test_what_is_of_the_wrong_kind_is_refused(spec: str) -> None:
    assert problem(EXAMPLE.partition("spec:")[0] + f"spec: {spec}").path.startswith("spec")


def test_too_many_routes_are_refused() -> None:
    many = (f"match: {{method: m{index}}}, retry: off" for index in range(MAX_ROUTES + 1))
    assert problem(routes(*many)).hint == f"at most {MAX_ROUTES}"


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("method: Charge", "method: Charge"),
        ("method: Charge", "method: shop.Orders/Charge"),
        ("method: [GET, HEAD]", "method: GET, caller: batch"),
        ("path: /v1/*", "path: /v1/orders"),
        ("path: /v1/*", "path: [/v1/orders/*, /v1/items]"),
        ('header: {x-user: "*"}', "header: {x-user: a, x-team: b}"),
        ("caller: [a, b]", "caller: b"),
    ],
)
def test_a_route_that_can_never_decide_is_refused_with_both_places(earlier: str, later: str) -> None:
    found = problem(routes(f"match: {{{earlier}}}, retry: off", f"match: {{{later}}}, timeout: 1s, retry: 2"))
    assert (found.path, found.line) == ("spec.routes[1].retry", 7)
    assert "routes[0] matches all of these calls before and says retry, too" in found.message
    assert found.hint == "put routes[1] before it, or remove one"


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("method: shop.Orders/Charge", "method: Charge"),
        ("method: GET, caller: batch", "method: GET"),
        ("path: /v1/orders", "path: /v1/*"),
        ("path: /v1/*", "path: [/v1/orders, /v2]"),
        ("header: {x-user: a}", 'header: {x-user: "*"}'),
        ('header: {x-user: "*"}', "method: GET"),
        ("path: /v1/*", "path: /v1*"),
        ("caller: a", "caller: [a, b]"),
        ("path: /v1/*", "method: GET"),
    ],
)
def test_a_route_that_can_decide_for_some_calls_is_fine(earlier: str, later: str) -> None:
    text = routes(f"match: {{{earlier}}}, retry: off", f"match: {{{later}}}, retry: 2")
    assert len(read(text).routes) == 2


def test_routes_that_say_different_sections_are_no_conflict() -> None:
    text = routes("match: {method: Charge}, retry: off", "match: {method: Charge}, timeout: 1s")
    assert len(read(text).routes) == 2


# Texts that are no documents


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", (1, 1), "empty"),
        ("# nothing\n---\n", (1, 1), "empty"),
        ("a: [1\n", (2, 1), "no YAML"),
        ("\ta: 1", (1, 1), "no YAML"),
        ("a: 1\n---\nb: 2", (3, 1), "a second document"),
        ("a: &x {b: 1}", (1, 4), "an anchor"),
        ("a: *x", (1, 4), "an alias"),
        ("a: !!python/object/apply:os.system [ls]", (1, 4), "a tag"),
        ("? [a]\n: 1", (1, 3), "as a key"),
        ('a: "\\ud800"', (1, 7), "no YAML"),
        ('a: "\\x7f"', (1, 4), "U+007F"),
        ("a: 1e999", (1, 4), "too large"),
        ("a: \x00", (1, 4), "U+0000"),
        (b"a: 1\nb: \xff", (2, 4), "not UTF-8"),
        ("a: " + "[" * 40, (1, 35), "nested more than 32 deep"),
        ('{"a": ' + "[" * 40, (1, 38), "nested more than 32 deep"),
        ('{"a": 1,\n "b": }', (2, 7), "expected"),
        ('{"a": 1} x', (1, 10), "the document ended before this"),
        ('{"a": 123456789012345678901234567890}', (1, 7), "more than 18 digits"),
        ('{"a": 1e999}', (1, 7), "too large"),
        ('{"a": "\\ud800"}', (1, 7), "U+D800"),
        ('{"a": 1,}', (1, 9), "a key"),
        ('{"a" 1}', (1, 6), "':'"),
        ('{"a": 1 /* b */}', (1, 9), "','"),
        ('{"a": "\\x"}', (1, 8), "no JSON"),
        ("a: 1\n...\nb: 2", (3, 1), "no YAML"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_document_is_refused_at_its_place(
    text: str | bytes, place: tuple[int, int], words: str
) -> None:
    found = problem(text)
    assert (found.line, found.column) == place
    assert words in found.message
    assert found.hint


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a" * (MAX_BYTES + 1), (1, MAX_BYTES + 1)),
        ("ab\n\n" + "é" * MAX_BYTES, (3, MAX_BYTES // 2 - 1)),
        ("\ufeff" + "a" * MAX_BYTES, (1, MAX_BYTES - 2)),
        ("a" * (MAX_BYTES - 1) + "\n" * 5, (2, 1)),
        ("\udc00" * MAX_BYTES, (1, 1)),
    ],
)
def test_a_text_that_is_too_large_is_refused_where_it_passes_the_limit(text: str, place: tuple[int, int]) -> None:
    found = problem(text)
    assert (found.line, found.column) == place
    assert found.hint == f"at most {MAX_BYTES}, which end here"


def test_a_policy_that_is_too_large_with_its_defaults_is_refused() -> None:
    assert len(read(large(FITTING)).routes) == MAX_ROUTES
    text = large(FITTING + 1)
    assert len(text) < MAX_BYTES
    assert "with all defaults written out" in problem(text).message


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert read("\ufeff" + EXAMPLE) == read(b"\xef\xbb\xbf" + EXAMPLE.encode()) == read(EXAMPLE)


def test_yaml_in_its_flow_style_is_no_json() -> None:
    name = "metadata: {name: orders, namespace: shop}"
    assert str(read(f"{{apiVersion: trimtab/v1, kind: ServicePolicy, {name}, spec: {{}},}}")) == "shop/orders"


def test_places_in_json_are_told_as_well() -> None:
    text = as_json(EXAMPLE).replace('"attempts"', '"attemps"')
    found = problem(text)
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "attemps" in line)
    assert (found.line, found.column) == (line, text.splitlines()[line - 1].index('"') + 1)


# Without PyYAML


@pytest.fixture
def no_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def refuse(name: str, *told: Any) -> Json:
        if name == "yaml":
            raise ModuleNotFoundError(name)
        return importing(name, *told)

    monkeypatch.delitem(sys.modules, "yaml", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)


def test_without_pyyaml_json_is_read_all_the_same(request: pytest.FixtureRequest) -> None:
    text = as_json(EXAMPLE)
    expected = read(EXAMPLE)
    request.getfixturevalue("no_yaml")
    assert read(text) == expected
    assert problem(text.replace("}", "", 1)).line > 0


@pytest.mark.usefixtures("no_yaml")
def test_without_pyyaml_yaml_is_refused_clearly() -> None:
    assert str(problem(EXAMPLE)) == "YAML needs PyYAML, which is not installed here (pip install pyyaml, or JSON)"


def test_pyyaml_without_its_c_part_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yaml.__with_libyaml__", False)
    assert read(EXAMPLE) == read(as_json(EXAMPLE))
    assert problem(EXAMPLE.replace("attempts", "attemps")).line == 7
    assert problem('a: "\\UFFFFFFFF"').message.startswith("no YAML")


@pytest.mark.parametrize("c_part", [True, False])
@pytest.mark.parametrize(
    ("text", "way_out"),
    [
        ("a:\n\tb: 1", "indent with spaces"),
        ("a: {b: 1\n", "which begins in line 1, column 4"),
        ('a: 1\nb: "x\n', "which begins in line 2, column 4"),
        ("a: b: c", "quote a text that YAML may take for something else"),
        ("a: 1\n...\nb: 2", "another begins with ---"),
        ('a: 1\nb: "\\UFFFFFFFF"', ""),
    ],
)
def test_what_is_no_yaml_is_told_with_its_line_and_a_way_out(
    text: str, way_out: str, c_part: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yaml.__with_libyaml__", c_part)
    found = problem(text)
    assert found.line in (text.count("\n"), text.count("\n") + 1)
    assert found.column
    assert found.hint.endswith(way_out)
    assert found.hint


# Files of several documents


def test_a_file_may_hold_many_documents() -> None:
    second = EXAMPLE.replace("orders", "carts")
    assert read_all(f"---\n{EXAMPLE}---\n# only a comment\n---\n{second}") == [read(EXAMPLE), read(second)]
    assert read_all(as_json(EXAMPLE)) == [read(EXAMPLE)]
    assert read_all("") == []


def test_the_problems_of_all_documents_are_told_with_lines_of_the_file() -> None:
    bad = EXAMPLE.replace("attempts", "attemps")
    with pytest.raises(PolicyInvalid) as refused:
        read_all(f"{bad}---\n{EXAMPLE}---\n{bad.replace('orders', 'carts')}")
    lines = EXAMPLE.count("\n") + 1
    assert [one.line for one in refused.value.problems] == [7, 7 + 2 * lines]


def test_two_documents_for_the_same_callee_are_refused() -> None:
    with pytest.raises(PolicyInvalid, match=r"line 18.*a second document for shop/orders .*begins in line 1\)"):
        read_all(f"{EXAMPLE}---\n{EXAMPLE}")


def test_a_file_that_is_too_large_is_refused() -> None:
    with pytest.raises(PolicyInvalid, match=f"^line 1, column {MAX_FILE_BYTES + 1}: .* too many"):
        read_all("#" * (MAX_FILE_BYTES + 1))
