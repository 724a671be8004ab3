"""What `trimtab run` decides, and how its command line is read."""

from __future__ import annotations

import random

import pytest
from trimtab.run.checks import Check, parse_check
from trimtab.run.decisions import STEADY_AFTER, Checks, Restart, Restarts, Verdict, exit_status
from trimtab.run.options import parse


def verdicts(checks: Checks, *observed: bool) -> list[Verdict]:
    return [checks.observe(ok) for ok in observed]


def test_a_program_is_ready_after_enough_successes_in_a_row() -> None:
    checks = Checks(rise=2, fall=1)
    assert verdicts(checks, True, False, True, True) == [Verdict.STARTING] * 3 + [Verdict.READY]


def test_a_program_that_was_never_ready_is_starting_and_not_unhealthy() -> None:
    assert verdicts(Checks(fall=1), *[False] * 9) == [Verdict.STARTING] * 9


def test_a_ready_program_is_unhealthy_after_enough_failures_in_a_row() -> None:
    checks = Checks(rise=1, fall=3)
    assert verdicts(checks, True, False, False, True, False, False, False) == [Verdict.READY] * 6 + [Verdict.UNHEALTHY]


def test_an_unhealthy_program_recovers_by_the_same_rule() -> None:
    checks = Checks(rise=2, fall=1)
    assert verdicts(checks, True, True, False, True, True)[2:] == [
        Verdict.UNHEALTHY,
        Verdict.UNHEALTHY,
        Verdict.READY,
    ]


@pytest.mark.parametrize(
    ("policy", "status", "again"),
    [
        (Restart.ON_FAILURE, 0, False),
        (Restart.ON_FAILURE, 1, True),
        (Restart.ALWAYS, 0, True),
        (Restart.NEVER, 1, False),
    ],
)
def test_the_policy_decides_whether_a_program_starts_again(policy: Restart, status: int, again: bool) -> None:
    assert (Restarts(policy).after(status, 1.0, random.Random(7)) is not None) is again


def test_restarts_slow_down_up_to_a_cap_and_are_jittered() -> None:
    restarts, rng = Restarts(Restart.ALWAYS, base=0.5, cap=8.0), random.Random(7)
    delays = [restarts.after(1, 0.1, rng) for _ in range(40)]
    for n, delay in enumerate(delays):
        whole = min(8.0, 0.5 * 2**n)
        assert delay is not None
        assert whole / 2 <= delay <= whole
    assert len({round(delay or 0, 3) for delay in delays[10:]}) > 5


def test_a_program_that_ran_well_for_a_while_starts_again_soon() -> None:
    restarts, rng = Restarts(Restart.ALWAYS, base=0.5), random.Random(7)
    for _ in range(6):
        restarts.after(1, 0.1, rng)
    delay = restarts.after(1, STEADY_AFTER, rng)
    assert delay is not None
    assert delay <= 0.5


def test_an_end_by_a_signal_is_reported_as_a_shell_would() -> None:
    assert [exit_status(0), exit_status(3), exit_status(-9)] == [0, 3, 137]


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("none", None),
        ("tcp", Check("127.0.0.1", 8000)),
        ("http", Check("127.0.0.1", 8000, "/", any_status=True)),
        ("http:///healthz", Check("127.0.0.1", 8000, "/healthz")),
        ("http://", Check("127.0.0.1", 8000, "/")),
        ("http://10.0.0.1:9/a?b=1", Check("10.0.0.1", 9, "/a?b=1")),
    ],
)
def test_a_check_takes_from_the_instance_what_its_url_leaves_out(text: str, check: Check | None) -> None:
    assert parse_check(text, "127.0.0.1", 8000) == check


@pytest.mark.parametrize("text", ["udp", "https:///x", "/healthz", "http://host:99999/", "http://u:p@h/"])
def test_what_is_no_check_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"check|[Pp]ort"):
        parse_check(text, "127.0.0.1", 8000)


def test_a_command_line_is_read_up_to_the_command() -> None:
    options = parse(
        [
            *("--service", "orders", "--port", "8000", "--check", "http:///healthz", "--interval", "500ms"),
            *(
                "--drain",
                "3s",
                "--metadata",
                "version=2",
                "--metadata",
                "a=b=c",
                "--restart",
                "always",
                "--weight",
                "7",
            ),
            *("--", "gunicorn", "app:app", "--port", "9"),
        ]
    )
    assert options.command == ["gunicorn", "app:app", "--port", "9"]
    assert (options.interval, options.drain, options.weight) == (0.5, 3.0, 7)
    assert options.metadata == {"version": "2", "a": "b=c"}
    assert options.restart is Restart.ALWAYS
    assert options.check == Check("127.0.0.1", 8000, "/healthz")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--port", "1"], "--service"),
        (["--service", "a", "--port", "70000"], "1 to 65535, not '70000'"),
        (["--service", "a", "--port", "1", "--weight", "0"], "1 to 65535, not '0'"),
        (["--service", "a", "--port", "1", "--drain", "soon"], "'soon' is no duration"),
        (["--service", "a", "--port", "1", "--metadata", "x"], "'x' is not KEY=VALUE"),
        (["--service", "a", "--port", "1", "--check", "udp"], "'udp' is no check"),
        (["--service", "a", "--port", "1", "--restart", "maybe"], "maybe"),
        (["--service", "a", "--port", "1", "--prot", "2"], "--prot"),
    ],
)
def test_a_wrong_command_line_is_refused_with_the_place(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


def test_the_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    assert "trimtab run --service orders --port 8000 --check http:///healthz -- gunicorn" in capsys.readouterr().out
