import asyncio
import time

import jwt
import websockets


async def main() -> None:
    token = jwt.encode({"sub": "alice", "exp": time.time() + 60}, "test-jwt-secret-of-at-least-32-bytes")
    async with websockets.connect(f"ws://127.0.0.1:8085/ws?token={token}") as ws:
        print(await ws.recv())  # {"id":…,"event":"connected",…}
        await ws.send('{"hello": "world"}')
        print(await ws.recv())  # {"hello":"world"}


asyncio.run(main())
