"""What becomes of a policy that somebody writes: read by the model that clients share, kept as canonical JSON, or refused."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from trimtab.policy import canonical, reading
from trimtab.policy.model import MAX_BYTES, ServicePolicy
from trimtab.policy.problems import PolicyInvalid, Problem
from trimtab.policy.tree import too_large

from controlplane.core.model import PolicyDocument
from controlplane.core.validation import Findings
from controlplane.errors import Code, TrimtabError, Violation


def checked(namespace: str, name: str, text: bytes, *, author: str, keep_source: bool) -> PolicyDocument:
    """The record of a policy document. ``keep_source``: people get the text back as they wrote it, comments and all.

    Raises POLICY_INVALID with every place of ``text`` that is wrong, also when it is the policy of something else, and
    TOO_LARGE with the place where it is.
    """
    findings = Findings()
    findings.name("namespace", namespace)
    findings.policy("name", name)
    findings.raise_if_any("the policy")
    if problem := too_large(text, MAX_BYTES):
        message = f"{len(text)} bytes are too many for a policy"
        raise TrimtabError(Code.TOO_LARGE, message, hint=f"at most {MAX_BYTES}", violations=[_place(problem)])
    policy = read(text)
    if (policy.namespace, policy.name) != (namespace, name):
        key = "name" if policy.name != name else "namespace"
        message, hint = f"this is the policy of {policy}", f"write it to {policy}, or name {namespace}/{name}"
        wrong = Violation(f"metadata.{key}", message, hint, *reading.place(text, "metadata", key))
        raise TrimtabError(Code.POLICY_INVALID, f"the policy of {namespace}/{name} was refused", violations=[wrong])
    return PolicyDocument(canonical.encode(policy), text.decode() if keep_source else "", author)


def read(text: bytes) -> ServicePolicy:
    """Raises POLICY_INVALID with every place that is wrong."""
    try:
        return reading.read(text)
    except PolicyInvalid as invalid:
        places = [_place(problem) for problem in invalid.problems]
        raise TrimtabError(Code.POLICY_INVALID, "the policy was refused", violations=places) from None


def _place(problem: Problem) -> Violation:
    return Violation(problem.path, problem.message, problem.hint, problem.line, problem.column)


def text(document: PolicyDocument) -> str:
    """The policy of a record as YAML, without what is at its default; as JSON when this version does not know all of it."""
    try:
        return canonical.render(stored(document))
    except TrimtabError:
        return json.dumps(plain(document), indent=2, ensure_ascii=False)


def plain(document: PolicyDocument) -> dict[str, Any]:
    """The JSON of a record, also of one that a newer replica stored. Raises MALFORMED when it is none."""
    try:
        found = json.loads(document.document)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise TrimtabError(Code.MALFORMED, "a stored policy is not a JSON object", hint="write it again, or delete it")
    return found


@lru_cache(1024)  # a watch of a listing looks at every document again whenever one changes
def outline(document: bytes) -> tuple[tuple[str, ...], int]:
    """The sections that a document says by default, and how many routes it has; none for one that cannot be read."""
    try:
        spec = json.loads(document)["spec"]
        return tuple(spec.get("default", {})), len(spec.get("routes", ()))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return (), 0


def stored(document: PolicyDocument) -> ServicePolicy:
    """The policy of a record. Raises MALFORMED for one that this version does not know, as a newer replica may have stored."""
    try:
        return canonical.decode(document.document)
    except PolicyInvalid as invalid:
        raise TrimtabError(
            Code.MALFORMED, f"a stored policy cannot be read: {invalid}", hint="upgrade this replica"
        ) from None
