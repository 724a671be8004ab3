"""Puts the commands together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from controlplane import __version__
from controlplane.cli import failure, run
from controlplane.cli.failure import EXIT_CODES, Exit, Failure
from controlplane.errors import TrimtabError

if TYPE_CHECKING:
    from pathlib import Path

    # File of settings or None, and settings by name as given on the command line; the exit code.
    Starter = Callable[[Path | None, dict[str, str]], int]

_EPILOG = """\b
First steps:
  trimtab dev                          everything on this machine
  trimtab run --service hello --port 8000 -- python -m http.server 8000
  trimtab get instances

\b
Exit codes:
""" + "\n".join(f"  {int(code):<4} {meaning}" for code, meaning in EXIT_CODES)


class Commands(click.Group):
    """Imports a command's module when the command is used, and not to list it."""

    def __init__(self, entries: Mapping[str, tuple[str, Callable[[], click.Command]]], **attributes: Any) -> None:
        """``entries``: one line of help and how to get the command, by name, in the order shown."""
        super().__init__(**attributes)
        self._entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of a first visit."""
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, if there is one of that name."""
        return self._entries[cmd_name][1]() if cmd_name in self._entries else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line each."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, told) for name, (told, _) in self._entries.items()])


def build(*, serve: Starter, dev: Starter) -> click.Group:
    """The ``trimtab`` command. ``serve`` and ``dev`` start a control plane and return the exit code."""

    def command(module: str, name: str) -> Callable[[], click.Command]:
        return lambda: getattr(import_module(f"controlplane.cli.{module}"), name)

    def starting(name: str, start: Starter) -> Callable[[], click.Command]:
        return lambda: command("server", name)()(start)

    @click.group(
        cls=Commands,
        entries={
            "dev": ("Run everything on this machine, to try things out.", starting("dev_command", dev)),
            "serve": ("Run a replica of the control plane.", starting("serve_command", serve)),
            "run": ("Register any program, watch over it, drain it when it stops.", lambda: _run),
            "get": ("Show services, instances, clients, policies, breakers or traffic.", command("get", "get")),
            "apply": ("Put policies in force.", command("policy", "apply")),
            "diff": ("Show what applying policies would change.", command("policy", "diff")),
            "explain": ("Show what holds for a call, and which document says so.", command("policy", "explain")),
            "delete": ("Withdraw a policy.", command("policy", "delete")),
            "drain": ("Take an instance out of traffic, or back in.", command("intent", "drain")),
            "weight": ("Override an instance's weight.", command("intent", "weight")),
            "config": ("Show and publish configuration.", command("config", "config")),
            "version": ("Print the version.", lambda: _version),
            "completion": ("Print a script that completes commands in your shell.", lambda: _completion),
        },
        epilog=_EPILOG,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    @click.version_option(__version__, message="trimtab %(version)s")
    def trimtab() -> None:
        """A control plane for services: register, find and steer them, without a sidecar."""

    return trimtab


def main(group: click.Group, args: Sequence[str]) -> int:
    """Run a command line; the exit code."""
    try:
        answer = group.main(args=list(args), prog_name="trimtab", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except TrimtabError as error:
        refusal: Failure = failure.of_error(error)
        refusal.show()
        return refusal.exit_code
    except click.Abort:
        return Exit.INTERRUPTED
    return answer if isinstance(answer, int) else Exit.OK


@click.command(
    name="run",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    add_help_option=False,
    epilog="\b\nExamples:\n  trimtab run --service orders --port 8000 -- gunicorn app:app",
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def _run(args: tuple[str, ...]) -> None:
    """Register any program, watch over it, drain it when it stops."""
    run.hand_over(args)


@click.command(name="version", epilog="\b\nExamples:\n  trimtab version")
def _version() -> None:
    """Print the version."""
    click.echo(f"trimtab {__version__}")


@click.command(
    name="completion",
    epilog="\b\nExamples:\n  source <(trimtab completion bash)\n  trimtab completion zsh > ~/.zfunc/_trimtab\n"
    "  trimtab completion fish > ~/.config/fish/completions/trimtab.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def _completion(context: click.Context, shell: str) -> None:
    """Print a script that completes commands and options in your shell."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None, f"click knows no {shell}"
    click.echo(found(context.find_root().command, {}, "trimtab", "_TRIMTAB_COMPLETE").source())
