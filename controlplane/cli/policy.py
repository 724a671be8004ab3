"""``trimtab apply``, ``diff``, ``explain`` and ``delete``: what holds for calls, written and looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from difflib import unified_diff
from typing import Any, TypeVar

import click

from controlplane.cli import documents
from controlplane.cli.api import Api, Server, path, server_options
from controlplane.cli.documents import Document
from controlplane.cli.failure import Exit, Failure, say
from controlplane.cli.options import namespace_option
from controlplane.cli.output import document as formatted
from controlplane.cli.output import echo, show_listing
from controlplane.cli.table import SECTIONS
from controlplane.errors import Code, Violation

FIRST_LOOK_S = 0.05
LONGEST_LOOK_S = 1.0
SHOWN_CLIENTS = 20

_STATES = ("acknowledged", "behind", "refused")

Command = TypeVar("Command", bound=Callable[..., Any])


def _files_option(command: Command) -> Command:
    return click.option(
        "-f", "--file", "sources", required=True, multiple=True, metavar="FILE|DIR|-", help="Where to read; - is stdin."
    )(command)


@click.command(
    epilog="\b\nExamples:\n  trimtab apply -f orders.yaml\n  trimtab apply -f policies/ --wait\n"
    "  cat orders.yaml | trimtab apply -f - --dry-run",
)
@_files_option
@click.option("--dry-run", is_flag=True, help="Check everything, on the server too, and write nothing.")
@click.option("--wait", is_flag=True, help="Until every connected client that follows it has acknowledged.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="How long to --wait.",
)
@server_options
def apply(server: Server, sources: Sequence[str], dry_run: bool, wait: bool, timeout: float) -> None:
    """Put policies in force: one or more documents, each for one service of its namespace.

    Every document is checked before the first one is written. A document that somebody else writes at the same moment is
    refused, not overwritten.
    """
    read = documents.read(sources)
    api = Api(server)
    held = [api.find(_address(document)) for document in read]
    places = [place for document, before in zip(read, held, strict=True) for place in _refused(api, document, before)]
    if places:
        raise documents.invalid(places)
    for document, before in zip(read, held, strict=True):
        if dry_run:
            echo(f"{document.policy}: policy {_outlook(document, before)} (dry run)")
            continue
        revision = _put(api, document, before)["revision"]
        unchanged = before is not None and before["revision"] == revision
        echo(f"{document.policy}: policy " + ("unchanged" if unchanged else f"applied at revision {revision}"))
    if wait and not dry_run:
        deadline = time.monotonic() + timeout
        for document in read:
            _await_clients(api, document, deadline)


@click.command(
    epilog="\b\nExamples:\n  trimtab diff -f orders.yaml\n  trimtab diff -f policies/ || trimtab apply -f policies/\n\n"
    "\b\nExit codes:\n  0    the same\n  1    something differs\n  2..  as for every command; what is invalid, 2",
)
@_files_option
@server_options
def diff(server: Server, sources: Sequence[str]) -> int:
    """Show what applying policies would change, as a unified diff.

    Both sides are written out the same way: comments and the order of fields make no difference.
    """
    try:
        read = documents.read(sources)
        api = Api(server)
        differences = [_difference(api, document) for document in read]
    except Failure as failure:
        if failure.reason is Exit.REFUSED:
            failure.reason = Exit.USAGE  # 1 says that something differs
        raise
    for line in (line for difference in differences for line in difference):
        echo(click.style(line, fg={"+": "green", "-": "red", "@": "cyan"}.get(line[:1])))
    return int(any(differences))


@click.command(
    epilog="\b\nExamples:\n  trimtab explain --to orders\n  trimtab explain --from checkout --to orders --method Charge -n shop\n"
    "  trimtab explain --to orders --method GET --path /v1/orders/42 --header x-tenant=acme -o json",
)
@click.option("--from", "caller", default="", metavar="PROGRAM", help="Name of the calling program.")
@click.option("--to", "service", required=True, metavar="SERVICE", help="The service that is called.")
@click.option("--method", default="", help="HTTP method, or name of an RPC.")
@click.option("--path", "path_", default="", help="HTTP path.")
@click.option("--header", multiple=True, metavar="NAME=VALUE", help="Header or metadata key; may be repeated.")
@namespace_option
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    help="How to print it.",
)
@server_options
def explain(
    server: Server,
    namespace: str,
    output: str,
    caller: str,
    service: str,
    method: str,
    path_: str,
    header: Sequence[str],
) -> None:
    """Show what holds for a call: every section, which document says so, and which clients have got that document."""
    asked = {"from": caller, "method": method, "path": path_, "header": list(header)}
    found = Api(server).call(
        "GET",
        path("namespaces", namespace, "services", service, "effective-policy"),
        params={name: value for name, value in asked.items() if value},
    )
    if output != "table":
        echo(formatted(found, output))
        return
    show_listing(SECTIONS, {"items": found["sections"]}, output, of=f"{namespace}/{service}")
    for rollout in found["rollouts"]:
        echo("")
        for line in _told(rollout):
            echo(line)


@click.group(epilog="\b\nExamples:\n  trimtab delete policy orders -n shop")
def delete() -> None:
    """Withdraw what was applied."""


@delete.command(
    name="policy",
    epilog="\b\nExamples:\n  trimtab delete policy orders\n  trimtab delete policy orders -n shop --expect 812",
)
@click.argument("service")
@click.option("--expect", type=click.IntRange(1), metavar="REVISION", help="Only if it stands at this revision.")
@namespace_option
@server_options
def delete_policy(server: Server, namespace: str, service: str, expect: int | None) -> None:
    """Withdraw a policy: what the namespace's policy says, or what is built in, holds again."""
    api, address = Api(server), path("namespaces", namespace, "policies", service)
    seen = expect or api.call("GET", address)["revision"]
    withdrawn = api.call("DELETE", address, headers={"If-Match": f'"{seen}"'})
    echo(f"{namespace}/{service}: policy withdrawn at revision {withdrawn['revision']}")


def _address(document: Document) -> str:
    return path("namespaces", document.policy.namespace, "policies", document.policy.name)


def _put(api: Api, document: Document, before: dict[str, Any] | None, **params: str) -> dict[str, Any]:
    precondition = {"If-None-Match": "*"} if before is None else {"If-Match": f'"{before["revision"]}"'}
    return api.call(
        "PUT",
        _address(document),
        params=params,
        content=document.text.content,
        headers={"Content-Type": document.text.media_type, **precondition},
    )


def _refused(api: Api, document: Document, before: dict[str, Any] | None) -> list[Violation]:
    """What the server finds wrong with it, which may be of another version than this command."""
    try:
        _put(api, document, before, validate_only="true")
    except Failure as failure:
        if failure.code not in (Code.POLICY_INVALID.code, Code.TOO_LARGE.code) or not failure.places:
            raise
        return [document.text.place(place) for place in failure.places]
    return []


def _outlook(document: Document, before: dict[str, Any] | None) -> str:
    from trimtab.policy import canonical

    if before is None:
        return "would be created"
    same = formatted(before["document"], "json") == formatted(_plain(canonical.encode(document.policy)), "json")
    return "would stay as it is" if same else "would be changed"


def _plain(encoded: bytes) -> Any:
    import json

    return json.loads(encoded)


def _difference(api: Api, document: Document) -> list[str]:
    from trimtab.policy import canonical

    held, name = api.find(_address(document)), str(document.policy)
    before, revision = ("", "none") if held is None else (held["text"], f"revision {held['revision']}")
    after = canonical.render(document.policy)
    return list(
        unified_diff(
            before.splitlines(),
            after.splitlines(),
            f"{name} ({revision})",
            f"{name} ({document.text.file})",
            lineterm="",
        )
    )


def _await_clients(api: Api, document: Document, deadline: float) -> None:
    """Return once every client has it. Raises Failure when one refuses it, or when there is no more time."""
    address, told, pause = _address(document) + "/rollout", "", FIRST_LOOK_S
    while True:
        found = api.call("GET", address)
        everybody = found["acknowledged"] + found["behind"] + found["refused"]
        reached = f"{found['acknowledged']} of {everybody} clients have acknowledged"
        progress = f"{document.policy}: {reached if everybody else 'no client follows it'}"
        if progress != told:
            say(progress)
            told = progress
        stragglers = [client for client in found["clients"] if client["state"] != "ACKNOWLEDGED"]
        if found["refused"]:
            raise Failure(
                Exit.REFUSED, f"{document.policy}: {found['refused']} clients refused it", places=_who(stragglers)
            )
        if not stragglers and not found["unreachable"]:
            return
        if time.monotonic() >= deadline:
            silent = [Violation(f"replica {id}", "it did not answer for its clients") for id in found["unreachable"]]
            raise Failure(
                Exit.REFUSED,
                f"{document.policy}: not acknowledged by all in time; it is in force",
                places=[*_who(stragglers), *silent],
            )
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_LOOK_S)


def _who(clients: Sequence[dict[str, Any]]) -> list[Violation]:
    return [
        Violation(f"{client['program']} {client['node']}".strip(), client["reason"] or "has not answered yet")
        for client in clients
    ]


def _told(rollout: dict[str, Any]) -> list[str]:
    at = f"revision {rollout['revision']}" if rollout["revision"] else "there is none"
    counts = [f"{rollout[state]} {state}" for state in _STATES if rollout[state]]
    lines = [f"{rollout['document']} ({at}): " + (", ".join(counts) or "no client follows it")]
    for client in rollout["clients"][:SHOWN_CLIENTS]:  # worst first
        reason = f": {client['reason']}" if client["reason"] else ""
        lines.append(f"  {client['state']}  {client['program']} {client['node']}{reason}")
    more = sum(rollout[state] for state in _STATES) - SHOWN_CLIENTS
    if more > 0:
        lines.append(f"  and {more} more")
    return lines + [f"  replica {id} did not answer: its clients are missing here" for id in rollout["unreachable"]]
