"""Live configuration over a real stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from trimtab import ConfigInvalid, Mesh, SettingsInvalid

from tests.component.sdk.conftest import MakeMesh, until
from tests.support.fake_mesh import FakeMesh

FILE = "default/orders/app"


class Limits(BaseModel):
    rate: int
    burst: int = 1


def test_a_published_file_is_read_into_its_model(mesh: Mesh, server: FakeMesh) -> None:
    server.store.publish(FILE, "json", b'{"rate": 5}')
    limits = mesh.config("orders/app", model=Limits)
    assert limits.value == Limits(rate=5)
    assert (limits.rate, limits.burst) == (5, 1)
    assert limits.version == server.store.revision


def test_a_new_release_is_live_and_told(mesh: Mesh, server: FakeMesh) -> None:
    server.store.publish(FILE, "yaml", b"rate: 5")
    limits = mesh.config("default/orders/app", model=Limits)
    seen: list[int] = []
    watch = limits.on_change(lambda value: seen.append(value.rate))
    server.store.publish(FILE, "toml", b"rate = 6")
    until(lambda: seen == [6])
    assert limits.rate == 6
    watch.cancel()
    server.store.publish(FILE, "properties", b"rate = 7")
    until(lambda: limits.rate == 7)
    assert seen == [6]


@pytest.mark.parametrize(
    ("format_", "content", "reason"), [("json", b'{"rate": "many"}', "valid integer"), ("json", b"{", "property name")]
)
def test_a_bad_release_keeps_the_last_good_one_and_is_refused(
    mesh: Mesh, server: FakeMesh, format_: str, content: bytes, reason: str
) -> None:
    server.store.publish(FILE, "json", b'{"rate": 5}')
    limits = mesh.config("orders/app", model=Limits)
    good = limits.version
    server.store.publish(FILE, format_, content)
    until(lambda: server.sent("nack"))
    refusal = server.sent("nack")[0].refusals[0]
    assert (refusal.name, refusal.resend) == (FILE, False)
    assert reason in refusal.reason
    assert (limits.rate, limits.version) == (5, good)
    assert reason in limits.error
    server.store.publish(FILE, "json", b'{"rate": 6}')
    until(lambda: limits.rate == 6)
    assert limits.error == ""


def test_a_release_is_taken_by_all_readers_or_by_none(mesh: Mesh, server: FakeMesh) -> None:
    server.store.publish(FILE, "json", b'{"rate": 5}')
    typed, plain = mesh.config("orders/app", model=Limits), mesh.config("orders/app")
    server.store.publish(FILE, "json", b'{"colour": "red"}')
    until(lambda: server.sent("nack"))
    assert plain.value == {"rate": 5}
    assert typed.rate == 5
    assert plain["rate"] == 5


def test_a_validator_of_the_program_that_fails_is_a_bad_release(mesh: Mesh, server: FakeMesh) -> None:
    class Odd(BaseModel):
        rate: int

        def model_post_init(self, context: Any, /) -> None:
            raise RuntimeError("not today")

    server.store.publish(FILE, "json", b'{"rate": 5}')
    with pytest.raises(ConfigInvalid, match="RuntimeError: not today"):
        mesh.config("orders/app", model=Odd)
    until(lambda: server.sent("nack"))
    assert mesh.config("orders/app", default={}).value == {}


def test_a_file_that_nobody_published_has_its_default_or_says_so(mesh: Mesh, server: FakeMesh) -> None:
    absent = mesh.config("orders/app", model=Limits)
    assert not absent.published
    with pytest.raises(ConfigInvalid, match="default/orders/app has no value, no release was published"):
        absent.value  # noqa: B018 - reading it is the test
    assert mesh.config("orders/app", default=Limits(rate=1)).rate == 1
    server.store.publish(FILE, "json", b'{"rate": 9}')
    until(lambda: absent.published)
    assert absent.rate == 9


def test_a_first_release_that_does_not_fit_is_an_error_at_the_start(mesh: Mesh, server: FakeMesh) -> None:
    server.store.publish(FILE, "json", b'{"rate": []}')
    with pytest.raises(ConfigInvalid, match="valid integer"):
        mesh.config("orders/app", model=Limits)


def test_text_is_text(mesh: Mesh, server: FakeMesh) -> None:
    server.store.publish(FILE, "text", "grüß".encode())
    assert mesh.config("orders/app").value == "grüß"


@pytest.mark.parametrize("name", ["app", "a/b/c/d", "/app", "a//b"])
def test_a_name_that_is_none_is_refused(mesh: Mesh, name: str) -> None:
    with pytest.raises(SettingsInvalid, match="is no name"):
        mesh.config(name)


def test_without_a_server_the_last_value_comes_from_disk(make_mesh: MakeMesh, tmp_path: Path) -> None:
    with FakeMesh() as server:
        server.store.publish(FILE, "json", b'{"rate": 5}')
        before = make_mesh(server)
        assert before.config("orders/app", model=Limits).rate == 5
        before.close()
    after = make_mesh(server)
    limits = after.config("orders/app", model=Limits)
    assert limits.rate == 5
    assert limits.stale


def test_after_close_the_last_value_stays_readable(mesh: Mesh, server: FakeMesh) -> None:
    server.store.publish(FILE, "json", b'{"rate": 5}')
    limits = mesh.config("orders/app", model=Limits)
    mesh.close()
    assert limits.rate == 5
