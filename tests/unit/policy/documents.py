"""Policies to test with: one as people write it, and any that the forms allow."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from trimtab.policy.forms import (
    REQUIRED,
    Anything,
    Choice,
    Count,
    Field,
    Form,
    ListOf,
    MapOf,
    Nested,
    Number,
    Text,
    fields_of,
)
from trimtab.policy.limits import Adaptive
from trimtab.policy.model import MAX_ROUTES, PATH, Match, Route, ServicePolicy
from trimtab.policy.quantities import Duration, Rate, Share, Span
from trimtab.policy.routing import HASHING, Balance
from trimtab.policy.sections import OFF, SECTIONS, Fallback, Mirror, OpenWhen, Sections
from trimtab.policy.shadows import shadows
from trimtab.policy.words import HEADER, METHOD, NAME, Condition

EXAMPLE = """\
apiVersion: trimtab/v1
kind: ServicePolicy
metadata: {name: orders, namespace: shop}
spec:
  default:
    timeout: {total: 3s, attempt: 1s}
    retry: {attempts: 3, on: [connect-failure, 503, UNAVAILABLE], backoff: 50ms..1s, budget: 20%}
    breaker: {scope: endpoint, open_when: "failures >= 50% of 20 in 10s", open_for: 15s}
    balance: {algorithm: p2c, locality: prefer-zone}
    concurrency: 200
  routes:
    - match: {method: Charge}
      retry: off
    - match: {caller: batch}
      limit: {rate: 50/s, burst: 100}
      priority: low
"""

_HEAD = "apiVersion: trimtab/v1\nkind: ServicePolicy\nmetadata: {name: orders, namespace: shop}\n"

_TEXTS: dict[int, st.SearchStrategy[str]] = {
    id(NAME): st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True),
    id(HEADER): st.from_regex(r"[a-z0-9_-]{1,12}", fullmatch=True),
    id(METHOD): st.from_regex(r"[A-Za-z.]{1,12}(/[A-Za-z]{1,8})?", fullmatch=True),
    id(PATH): st.from_regex(r"/[a-z0-9/._-]{0,12}\*?", fullmatch=True),
}
_CHARACTERS = st.characters(exclude_categories=("Cc", "Cs", "Cn"))
_WORDS = st.sampled_from(
    ["off", "on", "no", "true", "null", "~", "503", "1e5", "010", "1:30", "0x1f", "", " a", "- b", "é: #"]
)
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(_CHARACTERS, max_size=8) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(_CHARACTERS, max_size=4) | _WORDS, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def default(sections: str) -> str:
    """A document whose default says ``sections``, which begins in line 6, column 5."""
    return _HEAD + "spec:\n  default:\n    " + sections.replace("\n", "\n    ") + "\n"


def routes(*told: str) -> str:
    """A document with these routes, each in the flow style in a line of its own, from line 6 on."""
    return _HEAD + "spec:\n  routes:\n" + "".join(f"    - {{{one}}}\n" for one in told)


FITTING = 359  # the most padding with which a large document may be stored


def large(padding: int) -> str:
    """A document that is many times as large with all defaults written out, ``padding`` bytes for each route included."""
    wide = (
        "retry: 3, breaker: 5 in a row, outlier: {success_rate: {}, failure_percentage: {}}, limit: 5/s, throttle: 2,"
        " balance: {failover: {}, slow_start: {}}, server: {adaptive: {}, limit: 5/s}, fallback: {cache: {}},"
        " concurrency: {adaptive: {}}, fault: {abort: 503, delay: 1s}, split: {weights: {a: 1}}, mirror: b"
    )
    filler = "x" * padding
    return routes(*(f"match: {{method: c{n}, header: {{x: x{filler}}}}}, {wide}" for n in range(MAX_ROUTES)))


def held(form: Form) -> st.SearchStrategy[Any]:
    """Any setting that a form may hold."""
    match form:
        case Nested():
            return section(form.of)
        case ListOf():
            return st.lists(held(form.each), min_size=form.low, max_size=min(form.high, 4), unique=True).map(tuple)
        case MapOf():
            keys, values = held(form.key), held(form.each)
            pairs = st.dictionaries(keys, values, min_size=form.low, max_size=min(form.high, 3))
            return pairs.map(lambda found: tuple(sorted(found.items())))
        case Duration() | Share() | Rate():
            return st.floats(form.low, form.high)
        case Span():
            each = st.floats(form.low, form.high)
            return st.tuples(each, each).map(lambda pair: (min(pair), max(pair)))
        case Number():
            return st.floats(form.low, form.high) | st.integers(int(form.low) + 1, int(form.high)).map(float)
        case Count():
            return st.integers(form.low, form.high)
        case Choice():
            return st.sampled_from(form.words)
        case Condition():
            return st.sampled_from([*form.events, "429", "503", "UNAVAILABLE"])
        case Anything():
            return _JSON.filter(lambda value: value is not None).map(form.read)
        case Text():
            free = (st.text(_CHARACTERS, min_size=1, max_size=8) | _WORDS).filter(bool)
            return _TEXTS.get(id(form), free)
    raise AssertionError(f"no strategy for {form}")


def _field(field: Field) -> st.SearchStrategy[Any]:
    anything = held(field.form)
    if field.optional:
        anything = st.none() | anything
    return anything if field.default is REQUIRED else st.just(field.default) | anything


def _mended(of: type[Any], told: dict[str, Any]) -> dict[str, Any]:
    """Without the contradictions that would otherwise make most of what is generated useless."""
    if of is Adaptive:
        told["low"], told["initial"], told["high"] = sorted((told["low"], told["initial"], told["high"]))
    if of is Balance:
        if told["algorithm"] not in HASHING:
            told["hash"] = None
        elif told["hash"] is None:
            told["algorithm"] = "p2c"
        if told["algorithm"] != "round_robin":
            told["weights"] = "static"
    if of is OpenWhen:
        if told["slow"] is None or told["slow_after"] is None:
            told["slow"] = told["slow_after"] = None
        if told["calls"] is not None:
            told["seconds"] = None
            told["minimum"] = min(told["minimum"], told["calls"])
    return told


def section(of: type[Any]) -> st.SearchStrategy[Any]:
    """Any section of a kind that does not contradict itself."""
    told = st.fixed_dictionaries({name: _field(field) for name, field in fields_of(of).items()})
    built = told.map(lambda values: of(**_mended(of, values)))
    return built.filter(lambda one: not hasattr(one, "contradictions") or not list(one.contradictions()))


def _said(form: Form) -> st.SearchStrategy[Any]:
    return st.just(OFF) | held(form) if isinstance(form, Nested) else held(form)


def sections(at_least: int = 0) -> st.SearchStrategy[Sections]:
    """What one place may say."""
    some = st.lists(st.sampled_from(list(SECTIONS)), min_size=at_least, max_size=4, unique=True)
    # Strategies are checked and understood when they are drawn from first, which costs far more than drawing: once for all.
    said = {name: _said(form) for name, form in SECTIONS.items()}
    told = some.flatmap(lambda names: st.fixed_dictionaries({name: said[name] for name in names}))
    return told.map(lambda values: Sections(**values)).filter(lambda one: not list(one.contradictions()))


matches: st.SearchStrategy[Match] = section(Match).filter(lambda match: match != Match())
_routes = st.builds(Route, match=matches, sections=sections(at_least=1)).filter(
    lambda one: not list(one.contradictions())
)


def _sound(policy: ServicePolicy) -> bool:
    said = [policy.default, *(route.sections for route in policy.routes)]
    asked = [one for place in said for one in (place.mirror, place.fallback) if isinstance(one, (Mirror, Fallback))]
    return all(one.service != policy.name for one in asked) and not list(shadows(dict(enumerate(policy.routes))))


policies: st.SearchStrategy[ServicePolicy] = st.builds(
    ServicePolicy,
    namespace=held(NAME),
    name=st.just("*") | held(NAME),
    default=sections(),
    routes=st.lists(_routes, max_size=3).map(tuple),
).filter(_sound)


def as_json(text: str) -> str:
    """A YAML document without places, as JSON with one key in each line."""
    from trimtab.policy.canonical import encode
    from trimtab.policy.reading import read

    return json.dumps(json.loads(encode(read(text))), indent=1)
