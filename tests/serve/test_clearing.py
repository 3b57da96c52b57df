"""What a connection that stays open keeps of an upload that was refused."""

import asyncio

import uvicorn
from starlette.responses import PlainTextResponse
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from nanoswap.serve.clearing import Clearing

MARK = b"canary-" * 20_000


async def test_refused_body_is_gone_while_its_connection_lives_on() -> None:
    config = uvicorn.Config(
        Clearing(PlainTextResponse("no", 403)), port=0, loop="asyncio", http="httptools", log_level="critical"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"POST /swap HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(MARK) + MARK)
        await reader.readuntil(b"no")
        (connection,) = server.server_state.connections
        cycles = [connection.cycle]
        assert isinstance(connection.cycle, RequestResponseCycle)
        assert any(MARK[:1000] in each.body for each in cycles), "the server keeps nothing: this test would not notice"
        async with asyncio.timeout(20):
            while any(each.body for each in cycles):
                await asyncio.sleep(0.1)
    finally:
        writer.close()
        server.should_exit = True
        await serving
