"""Twenty random deaths of clients, replicas and etcd, with writes in between; at the end everybody agrees on the truth.

The truth is what the processes that live want to be registered, and nothing else.
"""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from controlplane.core.model import Instance, Kind, SessionRecord, Stored
from tests.chaos.conftest import Figures
from tests.support.town.client import Client
from tests.support.town.plugin import Build
from tests.support.town.process import until
from tests.support.town.town import Town

SERVICES = ("orders", "carts")
MEMBERS, READERS, REPLICAS = 5, 3, 3
WINDOW, HOLD, REPLICA_TTL, ADOPTION, SESSION_TTL = 2.0, 3.0, 3.0, 4.0, 15.0
# All that may have to pass one after the other until a dead session is gone, and as much again for a busy machine.
CONVERGENCE = 2 * (WINDOW + HOLD + REPLICA_TTL + ADOPTION + SESSION_TTL)

# service, id → weight
Wanted = dict[tuple[str, str], int]


@dataclass
class Drama:
    """Who lives, what they want, and what has happened so far."""

    town: Town
    rng: random.Random
    wanted: dict[str, Wanted] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)
    dead_replicas: set[int] = field(default_factory=set)
    etcd_away: bool = False
    births: int = 0
    kills: int = 0
    history: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def note(self, what: str) -> None:
        self.history.append(f"{time.monotonic() - self.began:7.2f} s  {what}")

    # People

    def member(self) -> None:
        """One more client, with one to three instances."""
        self.births += 1
        name = f"member-{self.births}"
        self.town.client(name, face=self.rng.choice(("sync", "async")))
        self.wanted[name] = {}
        for _ in range(self.rng.randint(1, 3)):
            self.register(name)

    def register(self, name: str) -> None:
        service, id = self.rng.choice(SERVICES), f"i{sum(map(len, self.wanted.values()))}-{self.rng.randrange(10**6)}"
        weight = self.rng.randint(1, 1000)
        self.town.clients[name].register(service, id, self.rng.randint(1, 65535), weight=weight, wait=False)
        self.wanted[name][service, id] = weight
        self.note(f"{name} registers {service}/{id} with weight {weight}")

    def write(self) -> None:
        """Somebody who can changes what it wants, whether or not anybody is there to hear it."""
        able = [name for name in self.wanted if name not in self.frozen]
        if not able:
            return
        name = self.rng.choice(able)
        client, wanted = self.town.clients[name], self.wanted[name]
        draw = self.rng.random()
        if draw < 0.3 or not wanted:
            self.register(name)
        elif draw < 0.45:
            service, id = self.rng.choice(list(wanted))
            client.do("deregister", id=id, wait=False)
            del wanted[service, id]
            self.note(f"{name} takes {service}/{id} away")
        else:
            service, id = self.rng.choice(list(wanted))
            wanted[service, id] = self.rng.randint(1, 1000)
            client.do("update", id=id, weight=wanted[service, id], wait=False)
            self.note(f"{name} gives {service}/{id} weight {wanted[service, id]}")

    # Deaths

    def act(self) -> None:
        """Something dies, or comes back."""
        acts = [
            self.kill_member,
            self.kill_member,
            self.freeze_member,
            self.kill_replica,
            self.kill_replica,
            self.kill_reader,
        ]
        acts.append(self.start_etcd if self.etcd_away else self.kill_etcd)
        if self.frozen:
            acts.append(self.thaw_member)
        if self.dead_replicas:
            acts += [self.start_replica, self.start_replica]
        self.rng.choice(acts)()

    def kill_member(self) -> None:
        living = list(self.wanted)
        name = self.rng.choice(living)
        self.town.clients[name].kill()
        self.frozen.discard(name)
        del self.wanted[name]
        self.kills += 1
        self.note(f"{name} is killed")
        self.member()

    def freeze_member(self) -> None:
        running = [name for name in self.wanted if name not in self.frozen]
        if not running:
            return
        name = self.rng.choice(running)
        self.town.clients[name].freeze()
        self.frozen.add(name)
        self.kills += 1
        self.note(f"{name} is frozen")

    def thaw_member(self) -> None:
        name = self.rng.choice(sorted(self.frozen))
        self.town.clients[name].thaw()
        self.frozen.discard(name)
        self.note(f"{name} thaws")

    def kill_reader(self) -> None:
        index = self.rng.randrange(READERS)
        self.town.clients[f"reader-{index}"].clear()
        self.kills += 1
        self.note(f"reader-{index} is killed and started again")
        self.reader(index)

    def reader(self, index: int) -> None:
        """A client that follows both services, and starts with a replica of its own."""
        servers = self.town.servers
        self.town.client(
            f"reader-{index}", servers=servers[index:] + servers[:index], face=("sync", "async")[index % 2]
        )

    def kill_replica(self) -> None:
        up = [index for index in range(REPLICAS) if index not in self.dead_replicas]
        if not up:
            return
        index = self.rng.choice(up)
        process = self.town.replicas[index].process
        if self.rng.random() < 0.3:
            process.end(signal.SIGTERM)
            self.note(f"replica-{index} was told to stop")
        else:
            process.kill()
            self.note(f"replica-{index} is killed")
        self.dead_replicas.add(index)
        self.kills += 1

    def start_replica(self) -> None:
        index = self.rng.choice(sorted(self.dead_replicas))
        self.town.replicas[index].start()
        self.dead_replicas.discard(index)
        self.note(f"replica-{index} is started")

    def kill_etcd(self) -> None:
        self.town.etcd.kill()
        self.etcd_away = True
        self.kills += 1
        self.note("etcd is killed")

    def start_etcd(self) -> None:
        self.town.start_etcd()
        self.etcd_away = False
        self.note("etcd is started")

    def peace(self) -> None:
        """Everything that can run, runs; the dead stay dead."""
        if self.etcd_away:
            self.start_etcd()
        while self.dead_replicas:
            self.start_replica()
        while self.frozen:
            self.thaw_member()
        for replica in self.town.replicas:
            replica.ready()
        self.note("peace")


def weights(drama: Drama) -> dict[tuple[str, str], int]:
    """What the living want, altogether."""
    return {key: weight for wanted in drama.wanted.values() for key, weight in wanted.items()}


def stored(instances: list[Stored]) -> dict[tuple[str, str], dict[str, Any]]:
    """etcd's content, as a replica should show it."""
    shown = {}
    for record in instances:
        instance = record.record
        assert isinstance(instance, Instance)
        shown[instance.service, instance.id] = {
            "reported": {
                "address": instance.address,
                "port": instance.port,
                "weight": instance.weight,
                "zone": instance.zone,
                "metadata": instance.metadata,
                "state": instance.state.name,
            },
            "health": "HEALTHY",
            "session": f"{record.lease:x}",
            "created": record.created,
            "revision": record.revision,
        }
    return shown


def disagreement(drama: Drama) -> str:
    """The first thing on which somebody is wrong; empty when everybody agrees."""
    town = drama.town
    truth = stored(town.archive.records(Kind.INSTANCE))
    kept = {key: shown["reported"]["weight"] for key, shown in truth.items()}
    if kept != weights(drama):
        return f"etcd holds {kept}, the living want {weights(drama)}"
    sessions = town.archive.records(Kind.SESSION)
    mine = {client: town.clients[client].status()["session"] for client in drama.wanted}
    if {f"{s.lease:x}" for s in sessions} != {id for client, id in mine.items() if drama.wanted[client] or id}:
        return f"sessions in etcd: {[s.ref for s in sessions]}, of the living: {mine}"
    if any(truth[key]["session"] != mine[client] for client, wanted in drama.wanted.items() for key in wanted):
        return f"instances hang on {truth}, the living have {mine}"
    replicas = {stored.ref.path[0] for stored in town.archive.records(Kind.REPLICA)}
    if len(replicas) != REPLICAS:
        return f"replicas in etcd: {replicas}"
    owners = {s.record.replica for s in sessions if isinstance(s.record, SessionRecord)}
    if not owners <= replicas:
        return f"sessions belong to {owners}, replicas are {replicas}"
    if town.archive.records(Kind.PROTECTION):
        return "somebody is still protected"
    for replica in town.replicas:
        shown = {
            (item["service"], item["id"]): {
                "reported": item["reported"],
                "health": item["health"]["value"],
                "session": item["session"],
                "created": item["created"],
                "revision": item["revision"],
            }
            for item in replica.items("/v1/namespaces/default/instances")
        }
        if shown != truth:
            return f"{replica.name} shows {shown}, etcd holds {truth}"
    for name in (*(f"reader-{index}" for index in range(READERS)), *drama.wanted):
        seen = view(town.clients[name])
        expected = {
            key: (s["reported"]["address"], s["reported"]["port"], s["reported"]["weight"], 1)
            for key, s in truth.items()
        }
        if seen != expected:
            return f"{name} sees {seen}, its replica shows {expected}"
    return ""


def view(client: Client) -> dict[tuple[str, str], tuple[str, int, int, int]]:
    """Everything that a client knows."""
    return {
        (service, id): (e["address"], e["port"], e["weight"], e["health"])
        for service in SERVICES
        for id, e in client.view(service)["endpoints"].items()
    }


@pytest.mark.parametrize("number", range(3))
def test_after_random_deaths_everybody_agrees_on_who_lives(
    own_towns: Build, seed: int, number: int, fast: bool, figures: Figures
) -> None:
    seed += number
    town = own_towns(
        heartbeat_window=WINDOW,
        guard_hold=HOLD,
        replica_ttl=REPLICA_TTL,
        adoption_grace=ADOPTION,
        session_ttl=SESSION_TTL,
    )
    town.add_replicas(REPLICAS)
    drama = Drama(town, random.Random(seed))
    for _ in range(MEMBERS):
        drama.member()
    for index in range(READERS):
        drama.reader(index)
    try:
        while drama.kills < (6 if fast else 20):
            drama.write()
            drama.act()
            time.sleep(drama.rng.expovariate(1 / 0.7))
        drama.peace()
        calm = time.monotonic()
        wrong = [""]

        def agreed() -> bool:
            wrong[0] = disagreement(drama)
            return not wrong[0]

        try:
            until(agreed, "everybody agrees", patience=CONVERGENCE)
        except AssertionError:
            raise AssertionError(f"not within {CONVERGENCE:g} s of peace: {wrong[0]}") from None
        settled = time.monotonic() - calm
        time.sleep(1.0)
        assert disagreement(drama) == "", "and goes on to agree"
    except Exception as error:
        error.add_note(f"seed {seed}; `make chaos SEED={seed}`\n" + "\n".join(drama.history))
        raise
    figures.append(
        (
            f"{drama.kills} random deaths, seed {seed}: all views equal etcd",
            f"{len(weights(drama))} instances, agreed {settled:.1f} s after the last",
        )
    )
