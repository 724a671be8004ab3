"""Policy documents from YAML or JSON: either a policy, or everything that is wrong with the text, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trimtab.policy.canonical import encode
from trimtab.policy.documents import MAX_PROBLEMS, build
from trimtab.policy.model import MAX_BYTES, MAX_CANONICAL_BYTES, ServicePolicy
from trimtab.policy.problems import PolicyInvalid, Problem
from trimtab.policy.tree import Entries, Node, checked, from_json, from_yaml, too_large

__all__ = ["MAX_FILE_BYTES", "PolicyInvalid", "Problem", "place", "read", "read_all"]

MAX_FILE_BYTES = 16 * MAX_BYTES

_JSON = re.compile(r'\s*\{\s*["}]')


def read(text: str | bytes) -> ServicePolicy:
    """The policy that a text of one document says. YAML needs PyYAML; JSON, which begins with ``{"``, does not.

    Raises PolicyInvalid, also for a text of more than MAX_BYTES.
    """
    _not_more_than(text, MAX_BYTES)
    nodes = list(_nodes(text))
    if not nodes:
        raise PolicyInvalid(
            [Problem("", 1, 1, "the document is empty", "a policy says apiVersion, kind, metadata and spec")]
        )
    if len(nodes) > 1:
        raise PolicyInvalid([Problem("", nodes[1].line, nodes[1].column, "a second document", "one at a time")])
    return _read(nodes[0])


def read_all(text: str | bytes) -> list[ServicePolicy]:
    """The policies of a text of any number of YAML documents, or of one in JSON; empty documents are left out.

    Raises PolicyInvalid with the problems of all of them, also when two are for the same callee, or for more than
    MAX_FILE_BYTES. Lines count from the beginning of the text.
    """
    _not_more_than(text, MAX_FILE_BYTES)
    found: dict[str, tuple[ServicePolicy, int]] = {}
    problems: list[Problem] = []
    for node in _nodes(text):
        try:
            policy = _read(node)
        except PolicyInvalid as invalid:
            problems.extend(invalid.problems)
            if len(problems) >= MAX_PROBLEMS:
                break
            continue
        if str(policy) in found:
            first = f"the first begins in line {found[str(policy)][1]}"
            problems.append(Problem("metadata", node.line, node.column, f"a second document for {policy}", first))
        else:
            found[str(policy)] = policy, node.line
    if problems:
        raise PolicyInvalid(problems)
    return [policy for policy, _ in found.values()]


def place(text: str | bytes, *path: str) -> tuple[int, int]:
    """Line and column of what a document that ``read`` takes says under the keys of ``path``, all of them there."""
    node = next(_nodes(text))
    for key in path:
        assert isinstance(node.value, Entries)
        node = next(entry.node for entry in node.value if entry.key == key)
    return node.line, node.column


def _not_more_than(text: str | bytes, limit: int) -> None:
    whole = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    if problem := too_large(whole, limit):
        raise PolicyInvalid([problem])


def _nodes(text: str | bytes) -> Iterator[Node]:
    """The documents of a text. What begins as only JSON does is held to JSON, and read without PyYAML."""
    whole = checked(text)
    if _JSON.match(whole):
        yield from_json(whole)
    else:
        yield from from_yaml(whole)


def _read(node: Node) -> ServicePolicy:
    policy = build(node)
    if (size := len(encode(policy))) > MAX_CANONICAL_BYTES:
        message = f"{size} bytes are too many with all defaults written out"
        hint = f"at most {MAX_CANONICAL_BYTES}: say less in its routes"
        raise PolicyInvalid([Problem("", node.line, node.column, message, hint)])
    return policy
