"""``trimtab get``: what is registered and who is connected."""

from __future__ import annotations

from typing import Any

import click

from controlplane.cli.api import Api, Server, path, server_options
from controlplane.cli.failure import say
from controlplane.cli.follow import follow
from controlplane.cli.options import namespace_option, watch_option
from controlplane.cli.output import Stream, output_option, show_listing, show_one
from controlplane.cli.table import CLIENTS, INSTANCES, SERVICES, Kind


@click.group(
    epilog="\b\nExamples:\n  trimtab get services\n  trimtab get instances orders -o wide\n  trimtab get clients -w",
)
def get() -> None:
    """Show what is registered and who is connected."""


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
