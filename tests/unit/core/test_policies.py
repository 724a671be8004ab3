"""Policy documents in the control plane: what may be stored, under which name, and what becomes of it."""

from __future__ import annotations

import pytest
from trimtab.policy import canonical, reading
from trimtab.policy.model import EVERY, MAX_BYTES

from controlplane.core import policies, registry
from controlplane.core.change import Absent, Change, Unchanged, Write
from controlplane.core.defaults import EVERY_SERVICE
from controlplane.core.model import Kind, PolicyDocument, Ref, Stored
from controlplane.core.resource import ResourceKind, ResourceName
from controlplane.core.view import View
from controlplane.errors import Code, TrimtabError
from controlplane.rpc.convert import resource_name
from controlplane.store.keys import Keys
from tests.unit.core.nouns import gone, put, stored

TEXT = b"""\
# as agreed
apiVersion: trimtab/v1
kind: ServicePolicy
metadata: {name: orders, namespace: shop}
spec: {default: {timeout: 3s}}
"""
PLACE = Ref(Kind.POLICY, ("shop", "orders"))
HELD = PolicyDocument(b'{"a":1}', "a: 1", "me")


def checked(namespace: str = "shop", name: str = "orders", text: bytes = TEXT, *, keep: bool = False) -> PolicyDocument:
    return policies.checked(namespace, name, text, author="ana", keep_source=keep)


def refused(namespace: str = "shop", name: str = "orders", text: bytes = TEXT) -> TrimtabError:
    with pytest.raises(TrimtabError) as caught:
        checked(namespace, name, text)
    return caught.value


def test_what_is_stored_is_canonical_and_has_its_source_only_if_wanted() -> None:
    expected = canonical.encode(reading.read(TEXT))
    assert checked() == PolicyDocument(expected, "", "ana")
    assert checked(keep=True) == PolicyDocument(expected, TEXT.decode(), "ana")
    assert policies.stored(checked()) == reading.read(TEXT)
    assert reading.read(policies.text(checked())) == reading.read(TEXT)


def test_every_problem_of_a_document_is_a_violation_with_its_place() -> None:
    error = refused(text=TEXT.replace(b"timeout: 3s", b"timeout: never, retri: 3"))
    assert error.code is Code.POLICY_INVALID
    places = [(violation.path, violation.line, bool(violation.hint)) for violation in error.violations]
    assert places == [("spec.default.timeout", 5, True), ("spec.default.retri", 5, True)]
    assert "line 5, column " in str(error)


@pytest.mark.parametrize(("namespace", "name"), [("shop", "stock"), ("toys", "orders"), ("shop", "*")])
def test_a_document_is_stored_under_its_own_name_only(namespace: str, name: str) -> None:
    error = refused(namespace, name)
    wrong = "name" if namespace == "shop" else "namespace"
    assert (error.code, error.violations[0].path) == (Code.POLICY_INVALID, f"metadata.{wrong}")


@pytest.mark.parametrize(("namespace", "name"), [("Shop", "orders"), ("shop", "a/b"), ("*", "orders"), ("shop", "**")])
def test_a_name_that_names_nothing_is_refused_before_the_document_is_read(namespace: str, name: str) -> None:
    assert refused(namespace, name, b"nonsense").code is Code.INVALID


def test_a_document_beyond_the_bound_is_not_even_read() -> None:
    assert refused(text=b"[" * (MAX_BYTES + 1)).code is Code.TOO_LARGE


def test_a_stored_policy_of_a_newer_version_says_what_to_do() -> None:
    with pytest.raises(TrimtabError) as caught:
        policies.stored(PolicyDocument(b'{"kind":"ServicePolicy","apiVersion":"trimtab/v9"}'))
    assert (caught.value.code, caught.value.hint) == (Code.MALFORMED, "upgrade this replica")


@pytest.mark.parametrize(
    ("current", "wanted", "expected"),
    [
        (None, HELD, Change((Absent(PLACE),), (Write(PLACE, HELD),))),
        (stored(HELD, PLACE), PolicyDocument(HELD.document, HELD.source, "you"), Change()),
        (stored(HELD, PLACE), PolicyDocument(HELD.document, "", "you"), Change()),
        (
            stored(HELD, PLACE),
            PolicyDocument(HELD.document, "a: 1 # why", "you"),
            Change((Unchanged(PLACE, 5),), (Write(PLACE, PolicyDocument(HELD.document, "a: 1 # why", "you")),)),
        ),
        (
            stored(HELD, PLACE),
            PolicyDocument(b"{}"),
            Change((Unchanged(PLACE, 5),), (Write(PLACE, PolicyDocument(b"{}")),)),
        ),
    ],
    ids=["first", "the same by another", "the same without a source", "another comment", "another policy"],
)
def test_enact(current: Stored | None, wanted: PolicyDocument, expected: Change) -> None:
    assert registry.enact(PLACE, wanted, current=current) == expected


def test_a_policy_changes_for_clients_with_its_document_only() -> None:
    view, name = View(), ResourceName(ResourceKind.POLICY, "shop/orders")
    view.load(1, [])
    assert view.apply(2, [put(HELD, PLACE, 2)]) == {name}
    assert view.apply(3, [put(PolicyDocument(HELD.document, "a: 1 # why", "you"), PLACE, 3)]) == set()
    assert view.policy("shop", "orders") == stored(
        PolicyDocument(HELD.document, "a: 1 # why", "you"), PLACE, revision=3
    )
    assert view.apply(4, [gone(PLACE, 4)]) == {name}
    assert (view.policy("shop", "orders"), view.resource(name)) == (None, None)


def test_the_policies_of_a_namespace_are_listed_with_the_one_for_all_first() -> None:
    view = View()
    refs = [Ref(Kind.POLICY, path) for path in (("shop", "stock"), ("shop", "*"), ("toys", "*"), ("shop", "orders"))]
    view.load(1, [])
    view.apply(2, [put(HELD, ref, 2) for ref in refs])
    assert [found.ref.path[1] for found in view.policies("shop")] == ["*", "orders", "stock"]
    assert view.namespaces() == ["shop", "toys"]


def test_the_policy_of_a_namespace_can_be_stored_and_followed_and_nothing_else_can_be_called_so() -> None:
    assert EVERY_SERVICE == EVERY
    keys, ref = Keys("trimtab/default"), Ref(Kind.POLICY, ("shop", "*"))
    assert keys.ref(keys.key(ref)) == ref
    assert resource_name(int(ResourceKind.POLICY), "shop/*", "s") == ResourceName(ResourceKind.POLICY, "shop/*")
    for kind, name in (
        (ResourceKind.ENDPOINTS, "shop/*"),
        (ResourceKind.POLICY, "*/orders"),
        (ResourceKind.POLICY, "shop/**"),
        (ResourceKind.POLICY, "shop"),
        (ResourceKind.CONFIG, "shop/*/f"),
    ):
        with pytest.raises(TrimtabError):
            resource_name(int(kind), name, "s")
