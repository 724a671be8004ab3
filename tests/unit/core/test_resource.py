"""Endpoint sets and their history: a difference applied to an old copy is the whole, whatever happened."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.health import endpoint
from controlplane.core.model import ConfigFile, Endpoint, PolicyDocument
from controlplane.core.resource import EndpointSet, document_digest, endpoint_digest
from tests.unit.core.nouns import instance


def an_endpoint(id: str, weight: int = 100) -> Endpoint:
    return endpoint(instance(id, weight=weight), None, suspect=False)


def applied(copy: dict[str, Endpoint], endpoints: EndpointSet, version: int) -> dict[str, Endpoint]:
    """What a client makes of the difference since the version that it holds."""
    difference = endpoints.since(version)
    result = {} if difference.full else dict(copy)
    for id in difference.removed:
        result.pop(id, None)
    result.update((changed.id, changed) for changed in difference.changed)
    return result


CHANGES = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.none() | st.integers(1, 3), st.integers(0, 2)), min_size=1, max_size=60
)


@given(changes=CHANGES, floor=st.integers(0, 3))
def test_a_difference_from_any_version_leads_to_the_whole(
    changes: list[tuple[str, int | None, int]], floor: int
) -> None:
    endpoints, revision = EndpointSet(floor), floor
    copies: dict[int, dict[str, Endpoint]] = {floor: {}}
    for id, weight, step in changes:
        revision += step
        endpoints.put(id, None if weight is None else an_endpoint(id, weight), revision)
        copies[revision] = dict(endpoints.endpoints)
    for version, copy in copies.items():
        assert applied(copy, endpoints, version) == endpoints.endpoints


@given(changes=CHANGES, start=st.integers(1, 20), length=st.integers(2, 10))
def test_a_holder_from_a_time_that_was_not_seen_gets_the_whole(
    changes: list[tuple[str, int | None, int]], start: int, length: int
) -> None:
    endpoints, revision = EndpointSet(0), 0
    for id, weight, step in changes:
        revision += step
        if start < revision < start + length:
            revision = start + length
        endpoints.put(id, None if weight is None else an_endpoint(id, weight), revision)
    endpoints.overlooked(start, start + length)
    assert all(endpoints.since(version).full for version in range(start + 1, start + length))
    endpoints.overlooked(start + 30, start + 32)
    assert all(endpoints.since(version).full for version in range(start + 1, start + 32))


def test_two_revisions_in_a_row_leave_nothing_unseen() -> None:
    endpoints = EndpointSet(0)
    endpoints.put("a", an_endpoint("a"), 5)
    endpoints.overlooked(4, 5)
    assert not endpoints.since(4).full


def test_a_log_that_overflows_forgets_the_oldest_and_says_so() -> None:
    endpoints, copies = EndpointSet(0), {}
    for revision in range(1, 3001):
        endpoints.put("a", an_endpoint("a", revision), revision)
        copies[revision] = dict(endpoints.endpoints)
    assert endpoints.since(1).full
    assert not endpoints.since(2999).full
    oldest = min(version for version in copies if not endpoints.since(version).full)
    assert 3000 - 1100 < oldest < 3000 - 1000
    for version in (1, oldest - 1, oldest, oldest + 1, 2999, 3000):
        assert applied(copies[version], endpoints, version) == endpoints.endpoints


def test_the_log_grows_with_the_service_and_not_beyond() -> None:
    endpoints = EndpointSet(0)
    for number in range(3000):
        endpoints.put(str(number), an_endpoint(str(number)), number + 1)
    assert not endpoints.since(1500).full
    for round_ in range(3):
        for number in range(3000):
            endpoints.put(str(number), an_endpoint(str(number), round_ + 1), 3001 + round_)
    assert len(endpoints._log) <= 3001


def test_a_difference_larger_than_the_whole_is_sent_as_the_whole() -> None:
    endpoints = EndpointSet(0)
    for number in range(20):
        endpoints.put(str(number), an_endpoint(str(number)), 1)
    for number in range(1, 20):
        endpoints.put(str(number), None, 2)
    assert endpoints.since(1).full
    assert len(endpoints.since(1).changed) == 1


def test_a_change_of_nothing_is_no_change() -> None:
    endpoints = EndpointSet(0)
    assert endpoints.put("a", an_endpoint("a"), 1)
    assert not endpoints.put("a", an_endpoint("a"), 2)
    assert not endpoints.put("b", None, 3)
    assert not endpoints.protect(False, 4)
    assert endpoints.version == 1


@given(st.permutations("abcdef"), st.permutations("abcdef"))
def test_equal_content_has_an_equal_digest_whatever_its_history(one: list[str], other: list[str]) -> None:
    first, second = EndpointSet(0), EndpointSet(7)
    for revision, id in enumerate(one, 1):
        first.put(id, an_endpoint(id), revision)
    for revision, id in enumerate(other, 10):
        second.put(id, an_endpoint(id, 5), revision)
        second.put(id, an_endpoint(id), revision)
    assert first.digest == second.digest != 0
    second.protect(True, 50)
    assert first.digest != second.digest
    second.protect(False, 51)
    assert first.digest == second.digest


@settings(max_examples=50)
@given(st.integers(1, 60_000), st.integers(1, 60_000))
def test_different_content_has_a_different_digest(one: int, other: int) -> None:
    assert (endpoint_digest(an_endpoint("a", one)) == endpoint_digest(an_endpoint("a", other))) is (one == other)


def test_an_empty_service_has_the_digest_of_one_that_never_was() -> None:
    endpoints = EndpointSet(0)
    endpoints.put("a", an_endpoint("a"), 1)
    endpoints.put("a", None, 2)
    assert endpoints.digest == 0


def test_a_document_never_has_the_digest_of_nothing() -> None:
    assert document_digest(ConfigFile("text", b"")) != 0
    assert document_digest(ConfigFile("json", b"1")) != document_digest(ConfigFile("text", b"1"))
    assert document_digest(ConfigFile("text", b"1", "me")) == document_digest(ConfigFile("text", b"1", "you"))
    assert document_digest(PolicyDocument(b"{}")) == document_digest(PolicyDocument(b"{}"))
