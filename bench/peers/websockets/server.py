"""Echo with Python `websockets`; argv: port."""

import asyncio
import logging
import sys

from websockets.asyncio.server import serve

logging.disable(logging.CRITICAL)


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main():
    port = int(sys.argv[1])
    options = dict(compression=None, max_size=None, ping_interval=None, backlog=4096)
    async with serve(echo, "127.0.0.1", port, **options) as server:
        await server.serve_forever()


asyncio.run(main())
