"""An independent client, the package etcd3, reads and writes what the control plane keeps."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from controlplane.core.change import Absent, Change, Write
from controlplane.core.model import Desired, Instance, Kind, PolicyDocument, Ref
from controlplane.store.codec import Codec
from controlplane.store.embedded import EmbeddedEtcd
from controlplane.store.etcd import EtcdOptions, EtcdStore

PACKAGES = Path(sys.prefix) / "witness"
WITNESS = Path(__file__).parents[2] / "support" / "witness.py"


async def found_by_witness(endpoint: str, prefix: str) -> dict[str, dict[str, object]]:
    """What the witness found."""
    assert (PACKAGES / "etcd3").is_dir(), (
        f"the witness is not installed: pip install --no-deps --target {PACKAGES} etcd3==0.12.0 protobuf==3.20.3"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(WITNESS),
        endpoint,
        prefix,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PACKAGES), "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"},
    )
    output, _ = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode == 0
    found: dict[str, dict[str, object]] = json.loads(output)
    return found


async def test_another_client_reads_what_we_store_and_we_read_what_it_stores(
    etcd: EmbeddedEtcd, mesh_prefix: str
) -> None:
    codec = Codec(mesh_prefix)
    store = EtcdStore(EtcdOptions((etcd.endpoint,)))
    lease = await store.grant(60)
    instances = [Instance("shop", "orders", name, "10.0.0.1", 8000, metadata={"ü": "☂"}) for name in "ab"]
    policy = Ref(Kind.POLICY, ("shop", "orders"))
    outcome = await store.commit(
        codec.transaction(
            Change(
                expect=tuple(Absent(instance.ref) for instance in instances),
                write=(
                    *(Write(instance.ref, instance, lease) for instance in instances),
                    Write(policy, PolicyDocument(b"\xff\x00")),
                ),
            )
        )
    )
    found = await found_by_witness(etcd.endpoint, codec.live_prefix)
    assert found[codec.key(instances[0].ref)] == {
        "value": {
            "v": 1,
            "address": "10.0.0.1",
            "port": 8000,
            "weight": 100,
            "zone": "",
            "state": "serving",
            "metadata": {"ü": "☂"},
        },
        "created": outcome.revision,
        "revision": outcome.revision,
        "lease": lease,
    }
    assert found[codec.key(policy)]["value"] == {
        "v": 1, "author": "", "source": "", "base64": "/wA=",
    }  # fmt: skip
    stored = [codec.stored(item) async for page in store.list(codec.live_prefix) for item in page.items]
    assert {each.ref: each.record for each in stored} == {
        instances[0].ref: instances[0],
        Ref(Kind.DESIRED, instances[0].ref.path): Desired(drain=True, by="witness"),
        policy: PolicyDocument(b"\xff\x00"),
    }
    await store.close()
