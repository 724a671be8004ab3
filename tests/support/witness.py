"""Speaks to etcd through the package etcd3, as an operator's script would: ``witness.py HOST:PORT PREFIX``.

Runs in a process of its own, because etcd3 0.12.0 needs protobuf 3. Prints what it finds below PREFIX, then drains the
first instance it found, and takes the second one off the air by deleting it, each by the key alone.
"""

import json
import sys

import etcd3


def main(endpoint: str, prefix: str) -> None:
    host, _, port = endpoint.rpartition(":")
    client = etcd3.client(host=host, port=int(port), timeout=20)
    found = {
        meta.key.decode(): {
            "value": json.loads(value),
            "created": meta.create_revision,
            "revision": meta.mod_revision,
            "lease": meta.lease_id,
        }
        for value, meta in client.get_prefix(prefix, sort_order="ascend")
    }
    first, second = (key for key in found if "/live/instances/" in key)
    client.put(
        first.replace("/live/instances/", "/live/desired/"), json.dumps({"v": 1, "drain": True, "by": "witness"})
    )
    client.delete(second)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
