"""Certificates, users and tokens: the right ones work on, the wrong ones are told what is wrong."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from controlplane.errors import Code, TrimtabError
from controlplane.store.etcd import EtcdOptions, EtcdStore
from controlplane.store.port import Put, Transaction
from tests.support.authority import Authority
from tests.support.etcd import Member


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
async def guarded(tmp_path: Path, authority: Authority) -> AsyncIterator[Member]:
    """An etcd that speaks TLS only, and only with whom our authority knows."""
    cert, key = authority.issue("member")
    flags = (f"--cert-file={cert}", f"--key-file={key}", f"--trusted-ca-file={authority.ca}", "--client-cert-auth")
    member = Member(tmp_path, scheme="https", flags=flags)
    member.start()
    await member.listening()
    yield member
    member.stop()


async def test_a_client_with_a_certificate_reads_writes_and_watches(guarded: Member, authority: Authority) -> None:
    cert, key = authority.issue("client")
    store = EtcdStore(EtcdOptions((f"https://{guarded.endpoint}",), ca=authority.ca, cert=cert, key=key))
    await store.commit(Transaction(then=(Put("k", b"v"),)))
    async with aclosing(store.watch("k", after=0)) as batches:
        assert (await asyncio.wait_for(anext(batches), 20)).events[0].key == "k"
    await store.close()


async def test_a_client_without_a_certificate_is_turned_away(guarded: Member, authority: Authority) -> None:
    store = EtcdStore(EtcdOptions((guarded.endpoint,), ca=authority.ca, timeout=1.0))
    with pytest.raises(TrimtabError) as refused:
        await store.get("k")
    assert refused.value.code is Code.STORE_UNAVAILABLE
    assert guarded.endpoint in refused.value.message
    await store.close()


async def test_a_member_whose_authority_is_not_ours_is_not_trusted(guarded: Member, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    cert, key = other.issue("client")
    store = EtcdStore(EtcdOptions((guarded.endpoint,), ca=other.ca, cert=cert, key=key, timeout=1.0))
    with pytest.raises(TrimtabError, match=r"(?i)certificate|handshake") as refused:
        await store.get("k")
    assert refused.value.code is Code.STORE_UNAVAILABLE
    await store.close()


async def test_a_client_without_tls_is_told_that_nothing_answers(guarded: Member) -> None:
    store = EtcdStore(EtcdOptions((guarded.endpoint,), timeout=1.0))
    with pytest.raises(TrimtabError) as refused:
        await store.get("k")
    assert refused.value.code is Code.STORE_UNAVAILABLE
    await store.close()


def gateway(member: Member, call: str, **body: object) -> dict[str, object]:
    """Ask etcd's JSON gateway: another way in than the client under test."""
    token = str(body.pop("token", ""))
    request = urllib.request.Request(f"http://{member.endpoint}/v3/{call}", json.dumps(body).encode())
    if token:
        request.add_header("Authorization", token)
    with urllib.request.urlopen(request, timeout=20) as answer:
        decoded: dict[str, object] = json.load(answer)
        return decoded


def switch_users_on(member: Member) -> None:
    """root may do everything; ann may read and write below ``ann/``."""
    gateway(member, "auth/user/add", name="root", password="root-secret")
    gateway(member, "auth/user/add", name="ann", password="ann-secret")
    for role in ("root", "ann"):
        gateway(member, "auth/role/add", name=role)
        gateway(member, "auth/user/grant", user=role, role=role)
    # base64 of "ann/" and "ann0"
    everything_below = {"permType": "READWRITE", "key": "YW5uLw==", "range_end": "YW5uMA=="}
    gateway(member, "auth/role/grant", name="ann", perm=everything_below)
    gateway(member, "auth/enable")


@pytest.fixture
async def open_member(tmp_path: Path) -> AsyncIterator[Member]:
    member = Member(tmp_path)
    member.start()
    await member.listening()
    yield member
    member.stop()


@pytest.fixture
def closed_member(open_member: Member) -> Iterator[Member]:
    switch_users_on(open_member)
    yield open_member


def ann(member: Member, password: str = "ann-secret") -> EtcdStore:
    return EtcdStore(EtcdOptions((member.endpoint,), user="ann", password=password, timeout=10))


async def test_a_token_that_a_restart_made_invalid_is_renewed_by_calls_renewals_and_watches(
    closed_member: Member,
) -> None:
    store = ann(closed_member)
    keys: list[str] = []

    async def follow() -> None:
        async for batch in store.watch("ann/", after=0):
            keys.extend(event.key for event in batch.events)

    follower = asyncio.create_task(follow())
    lease = await store.grant(60)
    await store.commit(Transaction(then=(Put("ann/1", b"", lease),)))
    closed_member.kill()
    closed_member.start()
    assert await store.renew([lease]) == {lease: 60.0}
    await store.commit(Transaction(then=(Put("ann/2", b""),)))
    assert await store.get("ann/1") is not None
    async with asyncio.timeout(20):
        while keys != ["ann/1", "ann/2"]:
            await asyncio.sleep(0.02)
    await store.close()
    await follower


async def test_many_calls_at_once_ask_for_one_token(closed_member: Member) -> None:
    store = ann(closed_member)
    # Each token costs etcd a password hash of about 100 ms: fifty would not be had in time.
    async with asyncio.timeout(4):
        await asyncio.gather(*(store.get(f"ann/{i}") for i in range(50)))
    await store.close()


async def test_users_may_be_switched_on_under_a_running_client(open_member: Member) -> None:
    store = ann(open_member)
    await store.commit(Transaction(then=(Put("ann/1", b""),)))
    switch_users_on(open_member)
    await store.commit(Transaction(then=(Put("ann/2", b""),)))
    await store.close()


async def test_a_wrong_password_is_refused_and_said_to_be_wrong(closed_member: Member) -> None:
    store = ann(closed_member, "guess")
    with pytest.raises(TrimtabError, match="user or the password is wrong") as refused:
        await store.get("ann/1")
    assert refused.value.code is Code.STORE_REFUSED
    with pytest.raises(TrimtabError) as refused:
        async for _ in store.watch("ann/", after=0):
            raise AssertionError("nothing may be seen")
    assert refused.value.code is Code.STORE_REFUSED
    await store.close()


async def test_a_user_sees_and_writes_only_what_is_granted(closed_member: Member) -> None:
    store = ann(closed_member)
    for forbidden in (store.get("bob/1"), store.commit(Transaction(then=(Put("bob/1", b""),)))):
        with pytest.raises(TrimtabError, match="permission denied") as refused:
            await forbidden
        assert refused.value.code is Code.STORE_REFUSED
    with pytest.raises(TrimtabError) as refused:
        async for _ in store.watch("bob/", after=0):
            raise AssertionError("nothing may be seen")
    assert refused.value.code is Code.STORE_REFUSED
    await store.close()


async def test_without_a_user_etcd_asks_for_one(closed_member: Member) -> None:
    store = EtcdStore(EtcdOptions((closed_member.endpoint,)))
    with pytest.raises(TrimtabError, match="set user and password") as refused:
        await store.get("ann/1")
    assert refused.value.code is Code.STORE_REFUSED
    await store.close()
