"""The view: what the store said, whether told event by event or all at once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.model import (
    Desired,
    Event,
    Health,
    Kind,
    Protection,
    Ref,
    Replica,
    Stored,
)
from controlplane.core.resource import Document, EndpointSet, ResourceName
from controlplane.core.view import View
from tests.unit.core import nouns
from tests.unit.core.nouns import APP_CONFIG, ORDERS, ORDERS_ENDPOINTS, drained, gone, instance, registered

IDS = st.sampled_from(["a", "b", "c"])
SERVICES = st.sampled_from(["orders", "payments"])


@st.composite
def events(draw: st.DrawFn) -> list[tuple[Ref, object, int]]:
    """What may happen to a few records: (ref, record or None, lease)."""
    instances = st.builds(
        lambda id, service, weight, lease: (
            instance(id, service=service, weight=weight).ref,
            instance(id, service=service, weight=weight),
            lease,
        ),
        IDS,
        SERVICES,
        st.integers(1, 3),
        st.integers(1, 3),
    )
    intents = st.builds(
        lambda id, service, drain, weight: (nouns.desired_ref(id, service), Desired(drain, weight), 0),
        IDS,
        SERVICES,
        st.booleans(),
        st.none() | st.integers(0, 2),
    )
    claims = st.builds(
        lambda replica, service, ids: (
            nouns.protection_ref(replica, service),
            Protection(replica, tuple(sorted(ids)), "many broke"),
            9,
        ),
        st.sampled_from(["one", "two"]),
        SERVICES,
        st.sets(IDS),
    )
    files = st.builds(
        lambda content: (nouns.config_ref(), nouns.released(content, 1).stored.record, 0),  # type: ignore[union-attr]
        st.binary(max_size=1),
    )
    removals = st.builds(
        lambda put: (put[0], None, 0),
        st.one_of(instances, intents, claims, files),
    )
    return draw(st.lists(st.one_of(instances, instances, intents, claims, files, removals), max_size=40))


def resources(view: View) -> dict[str, object]:
    """Everything that a subscriber can be told, without versions: those depend on when a replica listed."""
    told: dict[str, object] = {}
    for service in ("default/orders", "default/payments"):
        endpoints = view.endpoints(service)
        if endpoints is not None and endpoints.endpoints:
            told[service] = (endpoints.endpoints, endpoints.protected, endpoints.digest)
    document = view.resource(APP_CONFIG)
    if document is not None:
        assert isinstance(document, Document)
        told[str(APP_CONFIG)] = (document.content, document.digest)
    return told


@settings(deadline=None)
@given(history=events(), cut=st.integers(0, 40))
def test_events_one_by_one_and_one_listing_make_the_same_view(history: list[tuple[Ref, object, int]], cut: int) -> None:
    followed, late, store = View(), View(), dict[Ref, Stored]()
    followed.load(1, [])
    for revision, (ref, record, lease) in enumerate(history, 2):
        event = Event(ref, None, revision)
        if record is None:
            store.pop(ref, None)
        else:
            event = nouns.put(record, ref, revision, lease)  # type: ignore[arg-type]
            assert event.stored is not None
            store[ref] = event.stored
        followed.apply(revision, [event])
        if revision == cut:
            late.load(revision, list(store.values()))
        elif revision > cut:
            late.apply(revision, [event])
    end = len(history) + 1
    listed = View()
    listed.load(end, list(store.values()))
    late.load(end + 5, list(store.values()))
    assert resources(followed) == resources(listed) == resources(late)
    for view in (followed, listed, late):
        assert {stored.ref: stored for stored in view.records()} == store
        for lease in (1, 2, 3):
            hanging = {ref for ref, item in store.items() if item.lease == lease and ref.kind is Kind.INSTANCE}
            assert view.on_lease(lease) == hanging


@settings(deadline=None)
@given(history=events())
def test_what_changed_is_named_exactly(history: list[tuple[Ref, object, int]]) -> None:
    view = View()
    view.load(1, [])
    for revision, (ref, record, lease) in enumerate(history, 2):
        before = resources(view)
        event = Event(ref, None, revision) if record is None else nouns.put(record, ref, revision, lease)  # type: ignore[arg-type]
        changed = view.apply(revision, [event])
        after = resources(view)
        differ = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        # A flag on a service without endpoints is told as well: it makes no difference to what can be called.
        assert differ <= {_shown(name) for name in changed}
        assert all(_version(view, name) == revision for name in changed if view.resource(name) is not None)


def _shown(name: ResourceName) -> str:
    return name.name if name.kind == 1 else str(name)


def _version(view: View, name: ResourceName) -> int:
    resource = view.resource(name)
    assert isinstance(resource, EndpointSet | Document)
    return resource.version


def loaded(*happened: Event) -> View:
    view = View()
    view.load(1, [])
    for event in happened:
        view.apply(event.revision, [event])
    return view


def test_a_write_that_alters_no_endpoint_changes_nothing() -> None:
    view = loaded(registered(instance("a"), 2, lease=7))
    assert view.apply(3, [registered(instance("a"), 3, lease=8)]) == set()
    assert view.on_lease(8) == {instance("a").ref}
    assert view.on_lease(7) == frozenset()
    assert view.revision == 3


def test_intent_outlives_its_instance() -> None:
    view = loaded(registered(instance("a"), 2), drained("a", 3), gone(instance("a").ref, 4))
    assert view.instances(ORDERS) == []
    view.apply(5, [registered(instance("a"), 5)])
    (listed,) = view.instances(ORDERS)
    assert listed.endpoint.health is Health.DRAINING
    assert listed.desired is not None


def test_a_claim_marks_what_it_names_and_its_end_unmarks_it() -> None:
    view = loaded(registered(instance("a"), 2), registered(instance("b"), 3))
    assert view.apply(4, [nouns.suspected("a", revision=4)]) == {ORDERS_ENDPOINTS}
    assert [listed.endpoint.health for listed in view.instances(ORDERS)] == [Health.SUSPECT, Health.HEALTHY]
    assert view.protected(ORDERS)
    view.apply(5, [nouns.suspected("a", "b", revision=5, replica="two")])
    view.apply(6, [gone(nouns.protection_ref("one"), 6)])
    assert [listed.endpoint.health for listed in view.instances(ORDERS)] == [Health.SUSPECT, Health.SUSPECT]
    view.apply(7, [gone(nouns.protection_ref("two"), 7)])
    assert not view.protected(ORDERS)
    assert [listed.endpoint.health for listed in view.instances(ORDERS)] == [Health.HEALTHY, Health.HEALTHY]


def test_a_service_that_appears_under_protection_is_protected() -> None:
    view = loaded(nouns.suspected("a", revision=2), registered(instance("a"), 3))
    endpoints = view.endpoints("default/orders")
    assert endpoints is not None
    assert endpoints.protected
    assert endpoints.endpoints["a"].health is Health.SUSPECT


def test_a_second_listing_counts_its_differences_as_new() -> None:
    view = loaded(registered(instance("a"), 2), registered(instance("b"), 3))
    listing = [nouns.held(instance("b"), revision=3), nouns.held(instance("c"), revision=40)]
    assert view.load(50, listing) == {ORDERS_ENDPOINTS}
    endpoints = view.endpoints("default/orders")
    assert endpoints is not None
    difference = endpoints.since(3)
    assert (difference.full, [e.id for e in difference.changed], list(difference.removed)) == (False, ["c"], ["a"])
    assert endpoints.since(40).full, "what happened between 3 and 50 was not seen one by one"
    assert view.load(60, listing) == set()


def test_a_service_that_lived_and_died_unseen_is_not_guessed_at() -> None:
    view = loaded(registered(instance("a"), 2))
    view.load(50, [nouns.held(instance("a"), revision=2)])
    view.apply(60, [registered(instance("x", service="brief"), 60)])
    brief = view.endpoints("default/brief")
    assert brief is not None
    assert brief.since(30).full


def test_a_configuration_changes_with_its_content_only() -> None:
    view = loaded(nouns.released(b"1", 2))
    assert view.apply(3, [nouns.released(b"1", 3)]) == set()
    assert view.apply(4, [nouns.released(b"2", 4)]) == {APP_CONFIG}
    assert view.apply(5, [gone(nouns.config_ref(), 5)]) == {APP_CONFIG}
    assert view.resource(APP_CONFIG) is None
    assert view.apply(6, [gone(nouns.config_ref(), 6)]) == set()


def test_people_find_what_is_there() -> None:
    view = loaded(
        registered(instance("b", service="zoo"), 2, lease=1),
        registered(instance("a", service="zoo"), 3, lease=2),
        registered(instance("c", service="zoo"), 4, lease=2),
        nouns.released(b"1", 5),
        nouns.put(Replica("r1", "h:1", "h:2", "0", 0.0), Ref(Kind.REPLICA, ("r1",)), 6),
    )
    assert [str(name) for name in view.services("default")] == ["default/zoo"]
    assert view.namespaces() == ["default"]
    (zoo,) = view.services("default")
    assert [listed.instance.id for listed in view.instances(zoo)] == ["a", "b", "c"]
    assert view.session_count(zoo) == 2
    assert view.session_count(ORDERS) == 0
    assert [replica.id for replica in view.replicas()] == ["r1"]
    assert [stored.ref for stored in view.configs("default")] == [nouns.config_ref()]
    assert view.config("default", "orders", "app.yaml") is not None
    assert view.endpoints("default/never") is None
    assert view.instance(ORDERS, "a") is None
