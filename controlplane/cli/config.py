"""``trimtab config``: files that running programs follow."""

from __future__ import annotations

import base64
from pathlib import PurePath
from typing import Any

import click

from controlplane.cli.api import Api, Server, path, server_options
from controlplane.cli.follow import follow
from controlplane.cli.options import Pair, namespace_option, watch_option
from controlplane.cli.output import Stream, document, echo, output_option, show_listing
from controlplane.cli.table import CONFIGS
from controlplane.core.defaults import CONFIG_FORMATS

_BY_SUFFIX = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".properties": "properties"}

_file = click.argument("file", type=Pair("APP/FILE"), metavar="APP/FILE")
_expect = click.option(
    "--expect",
    type=click.IntRange(0),
    metavar="REVISION",
    help="Only if it stands at this revision; 0: only if there is none.",
)


@click.group(
    epilog="\b\nExamples:\n  trimtab config set shop/app.yaml --file app.yaml\n  trimtab config get shop/app.yaml\n"
    "  trimtab config list",
)
def config() -> None:
    """Show and publish configuration files that running programs follow."""


@config.command(
    name="get",
    epilog="\b\nExamples:\n  trimtab config get shop/app.yaml\n  trimtab config get shop/app.yaml > app.yaml\n"
    "  trimtab config get shop/app.yaml -o json",
)
@_file
@namespace_option
@click.option(
    "-o",
    "--output",
    type=click.Choice(["content", "json", "yaml"]),
    default="content",
    show_default=True,
    help="The bare content, or all that is known of the release.",
)
@server_options
def get_(server: Server, namespace: str, output: str, file: tuple[str, str]) -> None:
    """Print a file's current release."""
    release = Api(server).call("GET", _address(namespace, file))
    if output != "content":
        echo(document(release, output))
        return
    raw = base64.b64decode(release["content"]) if release["encoding"] == "base64" else release["content"].encode()
    click.echo(raw, nl=False)


@config.command(
    name="set",
    epilog="\b\nExamples:\n  trimtab config set shop/app.yaml --file app.yaml\n"
    "  echo 'rate: 20' | trimtab config set shop/app.yaml\n"
    "  trimtab config set shop/app.yaml --file app.yaml --expect 812",
)
@_file
@click.option("--file", "source", type=click.File("rb"), default="-", help="Where to read it; by default stdin.")
@click.option("--format", "format_", type=click.Choice(CONFIG_FORMATS), help="By default guessed from FILE's ending.")
@_expect
@namespace_option
@server_options
def set_(
    server: Server, namespace: str, file: tuple[str, str], source: Any, format_: str | None, expect: int | None
) -> None:
    """Publish a file's next release; programs that follow it get it at once.

    Without --expect it replaces what is there now, and is refused if another writer gets in between.
    """
    if source.isatty():
        raise click.UsageError("nothing to publish: name a --file, or pipe the content in")
    raw: bytes = source.read()
    api, address = Api(server), _address(namespace, file)
    published = api.call(
        "PUT",
        address,
        body={"format": format_ or guessed_format(file[1]), **_encoded(raw)},
        headers=_precondition(_seen(api, address) if expect is None else expect),
    )
    echo(f"{'/'.join(file)}: {published['size']} bytes of {published['format']} at revision {published['revision']}")


@config.command(
    name="list",
    epilog="\b\nExamples:\n  trimtab config list\n  trimtab config list -n shop -o wide\n  trimtab config list -w",
)
@namespace_option
@output_option
@watch_option
@server_options
def list_(server: Server, namespace: str, output: str, watch: bool) -> None:
    """Show a namespace's files."""
    api, address = Api(server), path("namespaces", namespace, "configs")
    if not watch:
        show_listing(CONFIGS, api.listing(address), output, of=f"namespace {namespace}")
        return
    stream = Stream(CONFIGS, output)
    for changed, removed in follow(api, address):
        stream.show(changed, removed)


@config.command(
    epilog="\b\nExamples:\n  trimtab config delete shop/app.yaml\n  trimtab config delete shop/app.yaml --expect 812"
)
@_file
@_expect
@namespace_option
@server_options
def delete(server: Server, namespace: str, file: tuple[str, str], expect: int | None) -> None:
    """Withdraw a file. Programs that follow it keep the last value that they have."""
    headers = {"If-Match": "*"} if expect is None else _precondition(expect)
    api, address = Api(server), _address(namespace, file)
    if expect is None:
        api.call("GET", address)  # "there is none" is a clearer answer than a precondition that fails
    withdrawn = api.call("DELETE", address, headers=headers)
    echo(f"{'/'.join(file)}: withdrawn at revision {withdrawn['revision']}")


def guessed_format(file: str) -> str:
    """The format that a file's ending stands for; text when it says nothing."""
    return _BY_SUFFIX.get(PurePath(file).suffix.lower(), "text")


def _address(namespace: str, file: tuple[str, str]) -> str:
    return path("namespaces", namespace, "configs", *file)


def _seen(api: Api, address: str) -> int:
    found = api.find(address)
    return 0 if found is None else int(found["revision"])


def _precondition(revision: int) -> dict[str, str]:
    return {"If-Match": f'"{revision}"'} if revision else {"If-None-Match": "*"}


def _encoded(raw: bytes) -> dict[str, str]:
    try:
        return {"content": raw.decode(), "encoding": "utf-8"}
    except UnicodeDecodeError:
        return {"content": base64.b64encode(raw).decode(), "encoding": "base64"}
