"""``trimtab drain`` and ``trimtab weight``: what an operator wants of an instance."""

from __future__ import annotations

from typing import Any

import click

from controlplane.cli.api import Api, Server, path, server_options
from controlplane.cli.options import Pair, namespace_option
from controlplane.cli.output import document, echo, output_option
from controlplane.cli.table import INSTANCES
from controlplane.core.validation import MAX_WEIGHT


@click.command(
    epilog="\b\nExamples:\n  trimtab drain orders/10.0.0.7-8000\n  trimtab drain orders/10.0.0.7-8000 --undo",
)
@click.argument("instance", type=Pair("SERVICE/ID"), metavar="SERVICE/ID")
@click.option("--undo", is_flag=True, help="Put it back.")
@namespace_option
@output_option
@server_options
def drain(server: Server, namespace: str, output: str, instance: tuple[str, str], undo: bool) -> None:
    """Take an instance out of traffic.

    It finishes the calls that it has and gets no new ones. The intent survives the instance's restarts, until it is undone.
    """
    address = path("namespaces", namespace, "services", instance[0], "instances", instance[1])
    outcome = Api(server).call("POST", address + (":undrain" if undo else ":drain"))
    _report(outcome, instance, output, "undrained" if undo else "drained")


@click.command(
    epilog="\b\nExamples:\n  trimtab weight orders/10.0.0.7-8000 20\n  trimtab weight orders/10.0.0.7-8000 0     # no traffic\n"
    "  trimtab weight orders/10.0.0.7-8000 --reset",
)
@click.argument("instance", type=Pair("SERVICE/ID"), metavar="SERVICE/ID")
@click.argument("weight", type=click.IntRange(0, MAX_WEIGHT), required=False)
@click.option("--reset", is_flag=True, help="Leave the weight to the instance again.")
@namespace_option
@output_option
@server_options
def weight(
    server: Server, namespace: str, output: str, instance: tuple[str, str], weight: int | None, reset: bool
) -> None:
    """Override an instance's relative share of traffic, 0 (none) to 65535.

    An instance that says nothing weighs 100. The intent survives the instance's restarts, until it is reset.
    """
    if (weight is None) != reset:
        raise click.UsageError("give either a WEIGHT or --reset")
    address = path("namespaces", namespace, "services", instance[0], "instances", instance[1], "weight")
    api = Api(server)
    outcome = api.call("DELETE", address) if reset else api.call("PUT", address, body={"weight": weight})
    _report(outcome, instance, output, "weight reset" if reset else f"weight set to {weight}")


def _report(outcome: dict[str, Any], instance: tuple[str, str], output: str, done: str) -> None:
    if output in {"json", "yaml"}:
        echo(document(outcome, output))
        return
    now = outcome["instance"]
    if output == "name":
        echo("/".join(instance) if now is None else INSTANCES.name(now))
        return
    state = (
        "not registered now" if now is None else f"now {now['health']['value']} with weight {now['weight']['value']}"
    )
    echo(f"{'/'.join(instance)}: {done} at revision {outcome['revision']}; {state}")
