"""Settings: where they come from, which wins, and how each wrong one is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controlplane.errors import Code, TrimtabError
from controlplane.settings import Settings, load_settings


def load(
    flags: dict[str, Any] | None = None, environment: dict[str, str] | None = None, file: Path | None = None
) -> Any:
    return load_settings(flags or {}, file=file, environment=environment or {})


def refusal(*args: Any, **kwargs: Any) -> TrimtabError:
    with pytest.raises(TrimtabError) as caught:
        load(*args, **kwargs)
    assert caught.value.code is Code.SETTINGS
    return caught.value


def test_everything_has_a_default_and_a_description() -> None:
    settings = load()
    assert settings.grpc_address == "127.0.0.1:7071"
    assert settings.etcd == ()
    assert all(field.description for field in Settings.model_fields.values())


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "trimtab.toml"
    file.write_text('mesh = "file"\ngrace = 1.5\nsession_ttl = 90\netcd = ["a:1", "b:2"]\n')
    environment = {"TRIMTAB_MESH": "environment", "TRIMTAB_GRACE": "2.5", "PATH": "/bin"}
    settings = load({"mesh": "flag"}, environment, file)
    assert (settings.mesh, settings.grace, settings.session_ttl) == ("flag", 2.5, 90.0)
    assert settings.etcd == ("a:1", "b:2")


def test_members_are_written_with_commas() -> None:
    assert load(environment={"TRIMTAB_ETCD": "a:2379, b:2379,,c:2379"}).etcd == ("a:2379", "b:2379", "c:2379")


def test_the_process_environment_is_not_read_behind_our_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_MESH", "sneaky")
    assert load().mesh == "default"


def test_what_is_meant_for_clients_in_the_same_environment_is_left_alone() -> None:
    assert load(environment={"TRIMTAB_SERVERS": "a:1", "TRIMTAB_NAMESPACE": "shop"}).mesh == "default"


def test_a_setting_that_does_not_exist_is_refused_with_the_nearest_one() -> None:
    error = refusal({"grcp_address": "x"}, {"TRIMTAB_HEARTBEAT_INTERVALL": "1"})
    told = {violation.path: (violation.message, violation.hint) for violation in error.violations}
    assert told == {
        "grcp_address": ("unknown setting (flag)", "did you mean grpc_address?"),
        "heartbeat_intervall": ("unknown setting (environment)", "did you mean heartbeat_interval?"),
    }


def test_every_wrong_value_is_told_at_once_with_its_source_and_meaning(tmp_path: Path) -> None:
    file = tmp_path / "trimtab.toml"
    file.write_text("guard_share = 2.0\n")
    error = refusal({"grace": "soon"}, {"TRIMTAB_MAX_SUBSCRIPTIONS": "0"}, file)
    told = {violation.path: violation for violation in error.violations}
    assert set(told) == {"guard_share", "grace", "max_subscriptions"}
    assert "(flag)" in told["grace"].message
    assert "(environment)" in told["max_subscriptions"].message
    assert f"(file {file})" in told["guard_share"].message
    assert told["grace"].hint == "A broken stream may be resumed this long."
    assert "serve --help" in error.hint


@pytest.mark.parametrize(
    ("flags", "path", "part"),
    [
        ({"grpc_address": "7071"}, "grpc_address", "HOST:PORT"),
        ({"http_address": "host:99999"}, "http_address", "HOST:PORT"),
        ({"http_address": ":7070"}, "http_address", "HOST:PORT"),
        ({"mesh": "No!"}, "mesh", "pattern"),
        ({"tls_cert": "/nonexistent.pem"}, "tls_cert", "cannot be read"),
        ({"session_ttl": "1"}, "session_ttl", "greater than or equal to 2"),
        ({"log_level": "loud"}, "log_level", "pattern"),
        ({"heartbeat_interval": "nan"}, "heartbeat_interval", "finite"),
        ({"heartbeat_window": "3"}, "settings", "at least twice heartbeat_interval"),
        ({"session_ttl": "5"}, "settings", "at least heartbeat_window"),
        ({"token": ""}, "token", "at least 1"),
    ],
)
def test_a_wrong_value_is_refused_at_its_name(flags: dict[str, Any], path: str, part: str) -> None:
    (violation,) = refusal(flags).violations
    assert violation.path == path
    assert part in violation.message


def test_what_belongs_together_comes_together(tmp_path: Path) -> None:
    pem = tmp_path / "some.pem"
    pem.write_text("")
    for flags in (
        {"tls_cert": pem},
        {"tls_key": pem},
        {"tls_client_ca": pem},
        {"etcd_cert": pem},
        {"etcd_key": pem},
        {"etcd_user": "root"},
        {"etcd_password": "x"},
    ):
        (violation,) = refusal(flags).violations
        assert violation.path == "settings"
    assert load({"tls_cert": pem, "tls_key": pem, "tls_client_ca": pem}).tls_client_ca == pem
    assert load({"etcd_user": "root", "etcd_password": "x"}).etcd_user == "root"


def test_secrets_are_shown_nowhere() -> None:
    settings = load({"token": "hunter2", "etcd_user": "root", "etcd_password": "hunter3"})
    assert "hunter" not in repr(settings)
    assert "hunter" not in str(refusal({"token": "hunter2", "grace": "soon"}))


@pytest.mark.parametrize("content", [b"mesh = ", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    assert str(file) in refusal(file=file).message


def test_a_file_that_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    assert "none.toml" in refusal(file=tmp_path / "none.toml").message
