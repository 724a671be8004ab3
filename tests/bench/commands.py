"""A process that does as it is told: one JSON command a line on stdin, one JSON object a line on stdout."""

from __future__ import annotations

import asyncio
import json
import sys


async def obey(target: object) -> None:
    """Have commands, ``{"do": NAME, …}``, done by the methods of ``target`` until stdin ends."""
    reader = asyncio.StreamReader(limit=2**20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        answer = await getattr(target, command.pop("do"))(**command)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
