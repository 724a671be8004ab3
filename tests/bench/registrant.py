"""A process of its own that holds a stream and an instance: ``python -m tests.bench.registrant ADDRESS SERVICE PORT``.

Says "registered" and its instance's id, then beats until its end.
"""

from __future__ import annotations

import asyncio
import sys

from tests.bench.client import Client, Registration

INTERVAL = 2.0


async def main(address: str, service: str, number: int) -> None:
    """Register and beat."""
    host, _, port = address.rpartition(":")
    client = Client(f"victim-{number}", registration=Registration(service, number))
    await client.connect(host, int(port))
    sys.stdout.write(f"registered 10.0.0.1-{number}\n")
    sys.stdout.flush()
    await client.beat(INTERVAL)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
