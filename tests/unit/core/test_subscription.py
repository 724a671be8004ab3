"""One stream's slot: coalescing, resuming, refusing. The client here is a model that holds what it was told."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.model import Endpoint
from controlplane.core.resource import Document, EndpointSet, ResourceName
from controlplane.core.subscription import Outgoing, Subscriptions
from controlplane.core.view import View
from tests.unit.core import nouns
from tests.unit.core.nouns import APP_CONFIG, ORDERS_ENDPOINTS, gone, instance, registered


def replica(listed_at: int = 1) -> View:
    view = View()
    view.load(listed_at, [])
    return view


def following(name: ResourceName = ORDERS_ENDPOINTS, version: int = 0, digest: int = 0) -> Subscriptions:
    subscriptions = Subscriptions()
    subscriptions.subscribe(name, version, digest)
    return subscriptions


def digest_of(view: View, name: ResourceName = ORDERS_ENDPOINTS) -> int:
    resource = view.resource(name)
    assert isinstance(resource, EndpointSet | Document)
    return resource.digest


def test_a_new_subscription_is_answered_also_when_there_is_nothing() -> None:
    view = replica(10)
    nonce, outgoing = following().take(view, 0.0)
    assert (nonce, outgoing) == (1, [Outgoing(ORDERS_ENDPOINTS, 0, 0)])


def test_many_changes_while_the_client_is_busy_are_one_delta() -> None:
    view, subscriptions = replica(), following()
    subscriptions.take(view, 0.0)
    for revision in range(2, 12):
        view.apply(revision, [registered(instance("a", weight=revision), revision)])
        subscriptions.enqueue(ORDERS_ENDPOINTS, float(revision))
    assert subscriptions.pending
    nonce, outgoing = subscriptions.take(view, 20.0)
    assert (nonce, outgoing) == (2, [Outgoing(ORDERS_ENDPOINTS, 1, 1)])
    assert not subscriptions.pending
    sent = subscriptions.ack(2)
    assert sent is not None
    assert sent.changed_at == 2.0, "lag is measured from the first change that waited"


def test_a_change_that_was_taken_along_already_is_not_sent_again() -> None:
    view, subscriptions = replica(), following()
    view.apply(2, [registered(instance("a"), 2)])
    assert subscriptions.take(view, 0.0)[1]
    assert subscriptions.enqueue(ORDERS_ENDPOINTS, 0.0)
    assert subscriptions.take(view, 0.0)[1] == []


def test_a_client_that_holds_the_same_is_sent_nothing_and_later_differences_carry_its_base() -> None:
    elsewhere, view = replica(), replica(40)
    elsewhere.apply(30, [registered(instance("a"), 30)])
    view.apply(41, [registered(instance("a"), 41)])
    assert digest_of(view) == digest_of(elsewhere)
    subscriptions = following(version=30, digest=digest_of(elsewhere))
    assert subscriptions.take(view, 0.0)[1] == []
    view.apply(50, [registered(instance("b"), 50)])
    subscriptions.enqueue(ORDERS_ENDPOINTS, 0.0)
    assert subscriptions.take(view, 0.0)[1] == [Outgoing(ORDERS_ENDPOINTS, 41, 30)]


def test_a_client_that_is_ahead_of_this_replica_waits_and_is_never_taken_back() -> None:
    ahead, view = replica(), replica()
    for revision in (2, 3):
        ahead.apply(revision, [registered(instance(str(revision)), revision)])
    view.apply(2, [registered(instance("2"), 2)])
    subscriptions = following(version=3, digest=digest_of(ahead))
    assert subscriptions.take(view, 0.0)[1] == []
    assert subscriptions.pending
    view.apply(3, [registered(instance("3"), 3)])
    assert subscriptions.take(view, 0.0)[1] == []
    assert not subscriptions.pending, "it holds exactly this"
    view.apply(4, [registered(instance("4"), 4)])
    subscriptions.enqueue(ORDERS_ENDPOINTS, 0.0)
    assert subscriptions.take(view, 0.0)[1] == [Outgoing(ORDERS_ENDPOINTS, 3, 3)]


def test_a_client_ahead_of_the_store_itself_is_told_the_whole_because_its_history_is_void() -> None:
    view = replica(5)
    view.apply(6, [registered(instance("a"), 6)])
    subscriptions = following(version=9000, digest=1234)
    assert subscriptions.take(view, 0.0)[1] == []
    assert subscriptions.ahead(view.revision)
    subscriptions.rewind(9001)
    assert subscriptions.take(view, 0.0)[1] == [], "the store has got that far: it is the view that lags"
    subscriptions.rewind(6)
    _, [(name, since, base)] = subscriptions.take(view, 0.0)
    assert (name, base) == (ORDERS_ENDPOINTS, 9000)
    endpoints = view.resource(name)
    assert isinstance(endpoints, EndpointSet)
    assert endpoints.since(since).full


def test_a_stream_that_waits_for_one_resource_is_still_woken_for_another() -> None:
    subscriptions = following(version=100, digest=1)
    subscriptions.subscribe(APP_CONFIG, 0, 0)
    view = replica()
    assert [item.name for item in subscriptions.take(view, 0.0)[1]] == [APP_CONFIG]
    assert subscriptions.pending
    view.apply(2, [nouns.released(b"1", 2)])
    assert subscriptions.enqueue(APP_CONFIG, 0.0), "news, though the slot was not empty"
    assert not subscriptions.enqueue(APP_CONFIG, 0.0)
    assert [item.name for item in subscriptions.take(view, 0.0)[1]] == [APP_CONFIG]


def test_a_refused_version_is_never_sent_again_and_the_next_one_is_whole() -> None:
    view, subscriptions = replica(), following()
    view.apply(2, [registered(instance("a"), 2)])
    nonce, _ = subscriptions.take(view, 0.0)
    assert subscriptions.nack(nonce, [(ORDERS_ENDPOINTS, "no", False)]) is not None
    assert subscriptions.nacks == {ORDERS_ENDPOINTS: "no"}
    assert not subscriptions.pending
    subscriptions.enqueue(ORDERS_ENDPOINTS, 0.0)
    assert subscriptions.take(view, 0.0)[1] == []
    view.apply(3, [registered(instance("b"), 3)])
    subscriptions.enqueue(ORDERS_ENDPOINTS, 0.0)
    nonce, outgoing = subscriptions.take(view, 0.0)
    assert outgoing[0].since < 0
    endpoints = view.endpoints("default/orders")
    assert endpoints is not None
    assert endpoints.since(outgoing[0].since).full, "the client kept an older version, and did not say which"
    subscriptions.ack(nonce)
    assert subscriptions.nacks == {}


def test_a_refused_difference_is_followed_by_the_whole() -> None:
    view, subscriptions = replica(), following()
    view.apply(2, [registered(instance("a"), 2)])
    subscriptions.take(view, 0.0)
    view.apply(3, [registered(instance("b"), 3)])
    subscriptions.enqueue(ORDERS_ENDPOINTS, 0.0)
    nonce, outgoing = subscriptions.take(view, 0.0)
    assert outgoing == [Outgoing(ORDERS_ENDPOINTS, 2, 2)]
    subscriptions.nack(nonce, [(ORDERS_ENDPOINTS, "other base", True)])
    assert subscriptions.pending
    assert subscriptions.take(view, 0.0)[1] == [Outgoing(ORDERS_ENDPOINTS, 0, 0)]


def test_a_client_that_saw_what_this_replica_slept_through_gets_the_whole() -> None:
    elsewhere, view = replica(), replica()
    for each in (elsewhere, view):
        each.apply(10, [registered(instance("a", weight=1), 10)])
    elsewhere.apply(30, [registered(instance("a", weight=2), 30)])
    # Back to what it was at 40; this replica lists at 50 and sees no difference at all.
    assert view.load(50, [nouns.held(instance("a", weight=1), revision=40)]) == set()
    (outgoing,) = following(version=30, digest=digest_of(elsewhere)).take(view, 0.0)[1]
    endpoints = view.endpoints("default/orders")
    assert endpoints is not None
    assert endpoints.since(outgoing.since).full


def test_a_listing_that_mends_content_without_a_new_revision_is_sent_whole() -> None:
    view, subscriptions = replica(), following()
    view.apply(5, [registered(instance("a", weight=1), 5)])
    subscriptions.take(view, 0.0)
    assert view.load(5, [nouns.held(instance("a", weight=2), revision=5)]) == {ORDERS_ENDPOINTS}
    subscriptions.enqueue(ORDERS_ENDPOINTS, 0.0)
    (outgoing,) = subscriptions.take(view, 0.0)[1]
    endpoints = view.endpoints("default/orders")
    assert endpoints is not None
    assert endpoints.since(outgoing.since).full


def test_acknowledgements_count_once_and_in_order() -> None:
    view, subscriptions = replica(), following()
    nonces = []
    for revision in (2, 3, 4):
        view.apply(revision, [registered(instance("a", weight=revision), revision)])
        subscriptions.enqueue(ORDERS_ENDPOINTS, 0.0)
        nonces.append(subscriptions.take(view, float(revision))[0])
    assert nonces == [1, 2, 3]
    assert subscriptions.oldest_unacknowledged == 2.0
    sent = subscriptions.ack(2)
    assert sent is not None
    assert (sent.nonce, subscriptions.acked, subscriptions.behind) == (2, 3, True)
    assert subscriptions.ack(2) is None
    assert subscriptions.ack(1) is None
    assert subscriptions.acked == 3
    subscriptions.ack(3)
    assert not subscriptions.behind


def test_a_reason_is_kept_up_to_its_limit_and_forgotten_with_the_subscription() -> None:
    view, subscriptions = replica(), following()
    nonce, _ = subscriptions.take(view, 0.0)
    subscriptions.nack(nonce, [(ORDERS_ENDPOINTS, "x" * 5000, False), (APP_CONFIG, "not followed", True)])
    assert {name: len(reason) for name, reason in subscriptions.nacks.items()} == {ORDERS_ENDPOINTS: 1024}
    assert subscriptions.unsubscribe(ORDERS_ENDPOINTS)
    assert not subscriptions.unsubscribe(ORDERS_ENDPOINTS)
    assert subscriptions.nacks == {}
    assert ORDERS_ENDPOINTS not in subscriptions


def test_subscribing_again_starts_over() -> None:
    view, subscriptions = replica(), following()
    view.apply(2, [registered(instance("a"), 2)])
    subscriptions.take(view, 0.0)
    subscriptions.subscribe(ORDERS_ENDPOINTS, 0, 0)
    assert subscriptions.take(view, 0.0)[1] == [Outgoing(ORDERS_ENDPOINTS, 0, 0)]


class Client:
    """Holds what it was told, and checks every base as the contract says."""

    def __init__(self) -> None:
        self.version = 0
        self.digest = 0
        self.endpoints: dict[str, Endpoint] = {}

    def told(self, view: View, outgoing: Outgoing) -> bool:
        endpoints = view.endpoints("default/orders")
        if endpoints is None:
            self.version, self.digest, self.endpoints = view.revision, 0, {}
            return True
        difference = endpoints.since(outgoing.since) if outgoing.base else endpoints.whole()
        if not difference.full and outgoing.base != self.version:
            return False
        result = {} if difference.full else dict(self.endpoints)
        for id in difference.removed:
            result.pop(id, None)
        result.update((changed.id, changed) for changed in difference.changed)
        if len(result) != len(endpoints.endpoints):
            return False
        self.version, self.digest, self.endpoints = endpoints.version, endpoints.digest, result
        return True


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_client_that_moves_between_replicas_always_ends_with_what_the_last_one_holds(data: st.DataObject) -> None:
    """Two replicas follow one store, each at its own pace, with gaps; the client moves, skips, and refuses at will."""
    store: list[list[object]] = []
    records: dict[str, int] = {}
    views = [replica(), replica()]
    at = [0, 0]
    client, home = Client(), 0
    subscriptions = following()
    resyncs = 0

    def catch_up(index: int, *, gap: bool) -> None:
        nonlocal at
        view, end = views[index], len(store)
        if gap:
            listing = [nouns.held(instance(id, weight=weight), revision=1) for id, weight in sorted(records.items())]
            changed = view.load(end + 1, listing)
        else:
            changed = set()
            for number in range(at[index], end):
                changed |= view.apply(number + 2, store[number])  # type: ignore[arg-type]
        at[index] = end
        if index == home and (changed or subscriptions.pending):
            for name in changed:
                subscriptions.enqueue(name, 0.0)

    for step in data.draw(st.lists(st.sampled_from(["write", "write", "follow", "gap", "take", "move", "refuse"]))):
        match step:
            case "write":
                id = data.draw(st.sampled_from("abc"))
                weight = data.draw(st.none() | st.integers(1, 3))
                if weight is None:
                    records.pop(id, None)
                else:
                    records[id] = weight
                revision = len(store) + 2
                event = (
                    gone(instance(id).ref, revision)
                    if weight is None
                    else registered(instance(id, weight=weight), revision)
                )
                store.append([event])
            case "follow" | "gap":
                catch_up(data.draw(st.integers(0, 1)), gap=step == "gap")
            case "move":
                home = 1 - home
                subscriptions = following(version=client.version, digest=client.digest)
            case "take" | "refuse":
                before = client.version
                nonce, outgoing = subscriptions.take(views[home], 0.0)
                for item in outgoing:
                    if step == "refuse" and data.draw(st.booleans()):
                        subscriptions.nack(nonce, [(item.name, "not now", False)])
                    elif client.told(views[home], item):
                        subscriptions.ack(nonce)
                    else:
                        resyncs += 1
                        subscriptions.nack(nonce, [(item.name, "mismatch", True)])
                assert not outgoing or views[home].revision >= before, "taken back in time"
    # In the end the store is quiet, the last replica catches up, and one more change is told.
    records["z"] = 1
    store.append([registered(instance("z", weight=1), len(store) + 2)])
    catch_up(home, gap=False)
    for _ in range(3):
        nonce, outgoing = subscriptions.take(views[home], 0.0)
        for item in outgoing:
            if client.told(views[home], item):
                subscriptions.ack(nonce)
            else:
                subscriptions.nack(nonce, [(item.name, "mismatch", True)])
    endpoints = views[home].endpoints("default/orders")
    assert endpoints is not None
    assert client.endpoints == endpoints.endpoints
    assert {id: told.weight for id, told in client.endpoints.items()} == records


def test_a_client_is_behind_on_what_it_has_not_answered_for_and_on_nothing_else() -> None:
    view, subscriptions = replica(10), following()
    subscriptions.subscribe(APP_CONFIG, 0, 0)
    assert (subscriptions.behind_on(ORDERS_ENDPOINTS), subscriptions.behind_on(APP_CONFIG)) == (True, True)
    nonce, _ = subscriptions.take(view, 0.0)
    assert subscriptions.behind_on(APP_CONFIG)
    subscriptions.ack(nonce)
    assert (subscriptions.behind_on(ORDERS_ENDPOINTS), subscriptions.behind_on(APP_CONFIG)) == (False, False)
    view.apply(11, [nouns.released(b"1", 11)])
    subscriptions.enqueue(APP_CONFIG, 1.0)
    assert (subscriptions.behind_on(ORDERS_ENDPOINTS), subscriptions.behind_on(APP_CONFIG)) == (False, True)
