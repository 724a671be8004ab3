"""``trimtab serve`` and ``trimtab dev``: flags become settings; starting is handed in from above."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from controlplane.cli.root import Starter

Command = TypeVar("Command", bound=Callable[..., Any])


class Starting(click.Command):
    """A command whose help ends with every setting there is."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options, then settings. Only this help pays for importing them."""
        super().format_options(ctx, formatter)
        from controlplane.settings import Settings

        rows = []
        for name, field in Settings.model_fields.items():
            default = "" if field.default in (None, "", ()) else f"  [default: {field.default}]"
            rows.append((name, (field.description or "") + default))
        with formatter.section("Settings (--set NAME=VALUE, TRIMTAB_NAME in the environment, or a line of the file)"):
            formatter.write_dl(rows)


def serve_command(start: Starter) -> click.Command:
    """The command that runs one replica."""

    @click.command(
        cls=Starting,
        epilog="\b\nExamples:\n  trimtab serve --etcd 10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379 --grpc 0.0.0.0:7071\n"
        "  trimtab serve --config /etc/trimtab.toml\n  trimtab serve --set grace=1 --set guard_hold=60",
    )
    @click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path),
        envvar="TRIMTAB_CONFIG",
        show_envvar=True,
        help="TOML file of settings.",
    )
    @click.option("--etcd", metavar="HOST:PORT,…", help="Members of etcd; without any, one is started here.")
    @click.option("--mesh", metavar="NAME", help="Name of the mesh: one key prefix in etcd.")
    @click.option("--tls-cert", metavar="FILE", help="PEM certificate chain of both ports.")
    @click.option("--tls-key", metavar="FILE", help="PEM key of the certificate.")
    @click.option("--tls-client-ca", metavar="FILE", help="PEM bundle: clients must show a certificate that it signed.")
    @_common
    def serve(file: Path | None, pairs: tuple[tuple[str, str], ...], **flags: str | None) -> int:
        """Run one replica of the control plane, until SIGTERM. Flags win over the environment, and that over the file."""
        return start(file, _settings(pairs, flags))

    return serve


def dev_command(start: Starter) -> click.Command:
    """The command that runs everything on one machine."""

    @click.command(
        cls=Starting,
        epilog="\b\nExamples:\n  trimtab dev\n  trimtab dev --data /tmp/mesh --http 127.0.0.1:0 --grpc 127.0.0.1:0",
    )
    @click.option("--data", metavar="DIR", help="Where etcd keeps its data.  [default: .trimtab]")
    @_common
    def dev(pairs: tuple[tuple[str, str], ...], **flags: str | None) -> int:
        """Run etcd and a control plane on this machine, and tell what to try next."""
        return start(None, _settings(pairs, flags))

    return dev


def _common(command: Command) -> Command:
    for option in (
        click.option(
            "--set", "pairs", multiple=True, callback=_pairs, metavar="NAME=VALUE", help="Any other setting; see below."
        ),
        click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error."),
        click.option(
            "--token", metavar="TOKEN", help="Bearer token that clients must present; better as TRIMTAB_TOKEN."
        ),
        click.option(
            "--http", "http_address", metavar="HOST:PORT", help="Admin API and metrics.  [default: 127.0.0.1:7070]"
        ),
        click.option(
            "--grpc", "grpc_address", metavar="HOST:PORT", help="Where SDKs connect.  [default: 127.0.0.1:7071]"
        ),
    ):
        command = option(command)
    return command


def _pairs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    found = []
    for value in values:
        name, equals, text = value.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE", context, parameter)
        found.append((name, text))
    return tuple(found)


def _settings(pairs: tuple[tuple[str, str], ...], flags: dict[str, str | None]) -> dict[str, str]:
    given = {name: value for name, value in flags.items() if value is not None}
    twice = sorted({name for name, _ in pairs} & given.keys())
    if twice:
        raise click.UsageError(f"{', '.join(twice)}: given both as a flag and by --set")
    return given | dict(pairs)
