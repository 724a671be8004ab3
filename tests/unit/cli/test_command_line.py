"""What the command line promises before any server is involved."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from controlplane.cli import root, run
from controlplane.cli.config import guessed_format
from controlplane.cli.failure import EXIT_CODES, Exit, of_error, of_problem
from controlplane.cli.output import Stream, show_listing
from controlplane.cli.table import CONFIGS
from controlplane.errors import Code, TrimtabError, Violation
from controlplane.settings import Settings

FILE = {
    "name": "namespaces/default/configs/shop/f", "namespace": "default", "app": "shop", "file": "f", "format": "text",
    "size": 3, "revision": 7, "author": "ana",
}  # fmt: skip


class Starts:
    """Records what a server would be started with."""

    def __init__(self) -> None:
        self.given: list[tuple[Path | None, dict[str, str]]] = []
        self.error: TrimtabError | None = None

    def __call__(self, file: Path | None, flags: dict[str, str]) -> int:
        self.given.append((file, flags))
        if self.error:
            raise self.error
        return 0


@pytest.fixture
def starts() -> Starts:
    return Starts()


@pytest.fixture
def group(starts: Starts) -> click.Group:
    return root.build(serve=starts, dev=starts)


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRIMTAB_HTTP", "TRIMTAB_CONFIG", "TRIMTAB_TOKEN", "TRIMTAB_NAMESPACE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("args", [["--help"], ["version"], ["--version"], ["get", "--help"], ["apply", "--help"]])
def test_nothing_heavy_is_imported_before_it_is_needed(args: list[str]) -> None:
    code = (
        "import sys; sys.argv[0] = 'trimtab'\n"
        "from controlplane.__main__ import main\n"
        "code = main()\n"
        "heavy = {'grpc', 'fastapi', 'pydantic', 'httpx', 'yaml', 'uvicorn', 'prometheus_client', 'asyncio'}\n"
        "sys.exit(f'imported: {heavy & sys.modules.keys()}' if heavy & sys.modules.keys() else code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_run_works_with_the_thin_sdk_and_passes_everything_on() -> None:
    code = (
        "import os, sys\n"
        "sys.modules['click'] = None\n"
        "os.execv = lambda program, command: (print(command[1:]), sys.exit(7))\n"
        "from controlplane.__main__ import main\n"
        "main()\n"
    )
    args = ["run", "--service", "orders", "--help", "--", "gunicorn", "-w", "2"]
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout.strip() == str(["-m", "trimtab.run", *args[1:]])


def test_without_the_server_extra_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['click'] = None\nfrom controlplane.__main__ import main\nsys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, "get", "services"], capture_output=True, text=True, timeout=30)
    assert done.returncode == Exit.USAGE
    assert "pip install 'trimtab[server]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_is_listed_and_handed_over_from_the_group_too(group: click.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[tuple[str, ...]] = []
    monkeypatch.setattr(run, "hand_over", handed.append)
    assert root.main(group, ["run", "--service", "a", "--", "x", "--help"]) == 0
    assert handed == [("--service", "a", "--", "x", "--help")]


def test_flags_become_settings_by_name(group: click.Group, starts: Starts) -> None:
    args = [
        "serve",
        "--config",
        "mesh.toml",
        "--grpc",
        "0.0.0.0:1",
        "--http",
        "0.0.0.0:2",
        "--etcd",
        "a:1,b:2",
        "--mesh",
        "m",
    ]
    args += ["--token", "t", "--tls-cert", "c", "--tls-key", "k", "--tls-client-ca", "ca", "--log-level", "debug"]
    assert root.main(group, [*args, "--set", "grace=1", "--set", "replica=a=b"]) == 0
    [(file, flags)] = starts.given
    assert file == Path("mesh.toml")
    assert flags == {
        "grpc_address": "0.0.0.0:1", "http_address": "0.0.0.0:2", "etcd": "a:1,b:2", "mesh": "m", "token": "t",
        "tls_cert": "c", "tls_key": "k", "tls_client_ca": "ca", "log_level": "debug", "grace": "1", "replica": "a=b",
    }  # fmt: skip
    assert flags.keys() <= Settings.model_fields.keys()


def test_a_flag_that_is_not_given_leaves_the_setting_to_the_environment(group: click.Group, starts: Starts) -> None:
    assert root.main(group, ["dev"]) == 0
    assert root.main(group, ["dev", "--data", "/tmp/mesh"]) == 0
    assert starts.given == [(None, {}), (None, {"data": "/tmp/mesh"})]


@pytest.mark.parametrize(
    "args", [["--set", "grace"], ["--set", "=1"], ["--set", "mesh=a", "--mesh", "b"], ["--nonsense"], ["x"]]
)
def test_wrong_flags_start_nothing(group: click.Group, starts: Starts, args: list[str], capsys: Any) -> None:
    assert root.main(group, ["serve", *args]) == Exit.USAGE
    assert starts.given == []
    assert "Usage: trimtab serve" in capsys.readouterr().err


def test_refused_settings_are_told_with_every_place(group: click.Group, starts: Starts, capsys: Any) -> None:
    places = [Violation("grcae", "unknown setting (flag)", "did you mean grace?"), Violation("mesh", "too long")]
    starts.error = TrimtabError(Code.SETTINGS, "the settings were refused", hint="look", violations=places)
    assert root.main(group, ["serve"]) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "error settings.invalid: the settings were refused",
        "  grcae: unknown setting (flag) (did you mean grace?)",
        "  mesh: too long",
        "  hint: look",
    ]


def test_the_help_of_serve_lists_every_setting(group: click.Group, capsys: Any) -> None:
    assert root.main(group, ["serve", "--help"]) == 0
    out = capsys.readouterr().out
    assert [name for name in Settings.model_fields if f"\n  {name}" not in out] == []


def test_every_command_shows_an_example_of_itself(group: click.Group) -> None:
    seen = 0
    for path, command in _commands(group, ()):
        if not isinstance(command, click.Group):
            assert " ".join(("trimtab", *path)) in (command.epilog or ""), path
            assert command.help, path
            seen += 1
    assert seen >= 12


def test_the_help_documents_every_exit_code(group: click.Group, capsys: Any) -> None:
    assert root.main(group, ["--help"]) == 0
    out = capsys.readouterr().out
    assert {code for code, _ in EXIT_CODES} == set(Exit)
    assert [meaning for _, meaning in EXIT_CODES if meaning not in out] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(group: click.Group, shell: str, capsys: Any) -> None:
    assert root.main(group, ["completion", shell]) == 0
    assert f"_TRIMTAB_COMPLETE={shell}_complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 1), (401, 4), (403, 4), (404, 1), (409, 1), (412, 1), (429, 1), (500, 5), (502, 3), (503, 3), (504, 3)],
)
def test_a_servers_refusal_has_one_exit_code(status: int, code: int) -> None:
    assert of_problem(status, {"detail": "no", "code": "x"}).exit_code == code


def test_errors_of_this_process_have_the_same_exit_codes_as_a_servers() -> None:
    for code in Code:
        if code is not Code.SETTINGS:
            assert of_error(TrimtabError(code, "x")).exit_code == of_problem(code.http_status, {}).exit_code


@pytest.mark.parametrize(
    ("file", "format"),
    [
        ("a.yaml", "yaml"),
        ("a.YML", "yaml"),
        ("a.json", "json"),
        ("a.toml", "toml"),
        ("a.properties", "properties"),
        ("a", "text"),
        ("a.ini", "text"),
    ],
)
def test_a_format_is_guessed_from_the_ending(file: str, format: str) -> None:
    assert guessed_format(file) == format


@pytest.mark.parametrize(
    "line",
    [
        "drain orders",
        "drain /a",
        "drain orders/",
        "weight orders/a",
        "weight orders/a 5 --reset",
        "weight orders/a 65536",
        "weight orders/a many",
        "config set shop/f --expect -1",
        "get services --server ftp://x",
        "get services --ca /no/such/file",
        "get services -o xml",
    ],
)
def test_wrong_usage_is_found_before_a_server_is_asked(group: click.Group, line: str, capsys: Any) -> None:
    assert root.main(group, line.split()) == Exit.USAGE
    assert capsys.readouterr().out == ""


def test_colours_are_for_terminals_and_never_under_no_color(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    stream = Stream(CONFIGS, "table")
    stream.show([FILE], [])
    stream.show([], [FILE])
    assert "\x1b" not in capsys.readouterr().out  # not a terminal
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    stream.show([], [FILE])
    assert "\x1b[31mGONE" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    stream.show([], [FILE])
    assert "\x1b" not in capsys.readouterr().out


def test_control_characters_never_reach_the_terminal(capsys: Any) -> None:
    show_listing(CONFIGS, {"items": [FILE | {"author": "a\x1b]0;owned\x07\nb"}]}, "table", of="x")
    assert capsys.readouterr().out.splitlines()[1].endswith("a\ufffd]0;owned\ufffd\ufffdb")


def _commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _commands(found, (*path, name))
