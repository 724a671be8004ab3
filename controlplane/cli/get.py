"""``trimtab get``: what is registered, who is connected, what holds for calls and how they fare."""

from __future__ import annotations

from typing import Any

import click

from controlplane.cli.api import Api, Server, path, server_options
from controlplane.cli.failure import say
from controlplane.cli.follow import follow
from controlplane.cli.options import namespace_option, watch_option
from controlplane.cli.output import Stream, document, echo, output_option, show_listing, show_one
from controlplane.cli.table import (
    BREAKERS,
    CLIENTS,
    INSTANCES,
    POLICIES,
    SERVICES,
    TRAFFIC,
    TRAFFIC_BY_CALLER,
    Kind,
)


@click.group(
    epilog="\b\nExamples:\n  trimtab get services\n  trimtab get instances orders -o wide\n  trimtab get clients -w",
)
def get() -> None:
    """Show what is registered, who is connected, what holds for calls, and how they fare."""


@get.command(
    epilog="\b\nExamples:\n  trimtab get services\n  trimtab get services -n shop -w\n  trimtab get services orders -o json"
)
@click.argument("service", required=False)
@namespace_option
@output_option
@watch_option
@server_options
def services(server: Server, namespace: str, output: str, watch: bool, service: str | None) -> None:
    """Show services and how their instances fare."""
    api = Api(server)
    if service and not watch:
        show_one(SERVICES, api.call("GET", path("namespaces", namespace, "services", service)), output)
        return
    below = [service] if service else []
    _show(
        api, SERVICES, path("namespaces", namespace, "services", *below), {}, output, watch, of=f"namespace {namespace}"
    )


@get.command(
    epilog="\b\nExamples:\n  trimtab get instances\n  trimtab get instances orders -o wide\n"
    "  trimtab get instances orders/10.0.0.7-8000 -o yaml\n  trimtab get instances orders -o name | xargs -n1 trimtab drain"
)
@click.argument("what", metavar="[SERVICE[/ID]]", default="")
@namespace_option
@output_option
@watch_option
@server_options
def instances(server: Server, namespace: str, output: str, watch: bool, what: str) -> None:
    """Show instances: what they report, what is wanted of them, what clients are told.

    Without SERVICE, those of every service of the namespace. -o wide tells why.
    """
    api = Api(server)
    service, _, id = what.partition("/")
    if id:
        address = path("namespaces", namespace, "services", service, "instances", id)
        if not watch:
            show_one(INSTANCES, api.call("GET", address), output)
            return
    elif service:
        address = path("namespaces", namespace, "services", service, "instances")
    else:
        address = path("namespaces", namespace, "instances")
    _show(
        api, INSTANCES, address, {}, output, watch, of=f"{namespace}/{service}" if service else f"namespace {namespace}"
    )


@get.command(
    epilog="\b\nExamples:\n  trimtab get clients\n  trimtab get clients -n shop -o wide\n  trimtab get clients -w"
)
@click.option("-n", "--namespace", default="", help="Only clients of this namespace.  [default: all]")
@output_option
@watch_option
@server_options
def clients(server: Server, namespace: str, output: str, watch: bool) -> None:
    """Show connected clients of all replicas: SYNCED, STALE (behind) or NACK (it refused something).

    -o wide tells what was refused and why.
    """
    params = {"namespace": namespace} if namespace else {}
    listing = _show(Api(server), CLIENTS, path("clients"), params, output, watch, of=namespace or "any namespace")
    for replica in listing.get("unreachable", []):
        say(f"replica {replica} did not answer: its clients are missing here")


@get.command(
    epilog="\b\nExamples:\n  trimtab get policies\n  trimtab get policies -n shop -w\n  trimtab get policies orders -o wide",
)
@click.argument("service", required=False)
@namespace_option
@output_option
@watch_option
@server_options
def policies(server: Server, namespace: str, output: str, watch: bool, service: str | None) -> None:
    """Show a namespace's policies: what each says by default, and how many routes it has.

    The one named * holds for every service of the namespace that does not say otherwise itself.
    """
    api = Api(server)
    address = path("namespaces", namespace, "policies", *([service] if service else []))
    if service and not watch:
        show_one(POLICIES, api.call("GET", address), output)
        return
    _show(api, POLICIES, address, {}, output, watch, of=f"namespace {namespace}")


@get.command(
    epilog="\b\nExamples:\n  trimtab get policy orders > orders.yaml\n  trimtab get policy '*' -n shop -o json",
)
@click.argument("service")
@namespace_option
@click.option(
    "-o",
    "--output",
    type=click.Choice(["yaml", "canonical", "json"]),
    default="yaml",
    show_default=True,
    help="As its author wrote it, as YAML without defaults, or as clients get it. All can be applied again.",
)
@server_options
def policy(server: Server, namespace: str, output: str, service: str) -> None:
    """Print a policy document, with its author's comments."""
    found = Api(server).call("GET", path("namespaces", namespace, "policies", service))
    if output == "json":
        echo(document(found["document"], "json"))
        return
    written = found["source"] if output == "yaml" else ""
    echo((written or found["text"]).rstrip("\n"))


@get.command(
    epilog="\b\nExamples:\n  trimtab get breakers\n  trimtab get breakers -w\n"
    "  trimtab get breakers orders -n shop --caller checkout -o wide"
)
@click.argument("service", default="")
@click.option("-n", "--namespace", default="", help="Only towards services of this namespace.  [default: all]")
@click.option("--caller", default="", metavar="PROGRAM", help="Only of clients with this program name.")
@output_option
@watch_option
@server_options
def breakers(server: Server, namespace: str, caller: str, output: str, watch: bool, service: str) -> None:
    """Show circuit breakers as clients reported them last, worst first: who holds back from whom, and why.

    -w prints a line whenever one changes its state.
    """
    _reported(Api(server), BREAKERS, "breakers", namespace, service, output, watch, caller=caller)


@get.command(
    epilog="\b\nExamples:\n  trimtab get traffic\n  trimtab get traffic orders -n shop -w\n"
    "  trimtab get traffic orders --by caller -o wide\n  trimtab get traffic --caller checkout"
)
@click.argument("service", default="")
@click.option("-n", "--namespace", default="", help="Only to services of this namespace.  [default: all]")
@click.option("--caller", default="", metavar="PROGRAM", help="Only of clients with this program name.")
@click.option(
    "--by",
    type=click.Choice(["endpoint", "caller"]),
    default="endpoint",
    show_default=True,
    help="One row for each endpoint, or for each client and endpoint.",
)
@output_option
@watch_option
@server_options
def traffic(server: Server, namespace: str, caller: str, by: str, output: str, watch: bool, service: str) -> None:
    """Show calls to endpoints as clients reported them last: how many, how they fared, who ejected whom.

    Clients report every few seconds. -w prints a line whenever something changed.
    """
    kind = TRAFFIC_BY_CALLER if by == "caller" else TRAFFIC
    _reported(Api(server), kind, "traffic", namespace, service, output, watch, caller=caller, by=by)


def _reported(
    api: Api, kind: Kind, what: str, namespace: str, service: str, output: str, watch: bool, **more: str
) -> None:
    """Show what clients report of calls, and say what is missing."""
    asked = {"namespace": namespace, "service": service, **more}
    params = {name: value for name, value in asked.items() if value}
    of = f"calls to {namespace or 'any namespace'}" + (f"/{service}" if service else "")
    listing = _show(api, kind, path(what), params, output, watch, of=of)
    if listing["omitted"]:
        say(f"{listing['omitted']} more are not shown: ask for one service or one caller")
    for replica in listing["unreachable"]:
        say(f"replica {replica} did not answer: what its clients report is missing here")


def _show(
    api: Api, kind: Kind, address: str, params: dict[str, Any], output: str, watch: bool, *, of: str
) -> dict[str, Any]:
    if not watch:
        listing = api.listing(address, params)
        show_listing(kind, listing, output, of=of)
        return listing
    stream = Stream(kind, output)
    for changed, removed in follow(api, address, params):
        stream.show(changed, removed)
    raise AssertionError("a watch ends by an error or a signal only")
