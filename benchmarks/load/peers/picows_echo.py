"""picows at its best: listener callbacks, payload read where it lies, orjson, a direct send.

`send()` copies header and payload together and writes them with one send(2) up to 8 KiB, and by
writelines over that; `send_reuse_external_bytearray` would need a copy of what orjson returns.
"""

from __future__ import annotations

from http import HTTPStatus

import jwt
import orjson
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from .options import Options, run
from .tokens import user_id

TEXT = WSMsgType.TEXT


class Session(WSListener):
    __slots__ = ("sessions", "transport", "user")

    def __init__(self, user: str, sessions: set[Session]) -> None:
        self.user = user
        self.sessions = sessions

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.sessions.add(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.sessions.discard(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == TEXT:
            self.on_text(transport, frame)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()

    def on_text(self, transport: WSTransport, frame: WSFrame) -> None:
        pass


class JsonEcho(Session):
    __slots__ = ()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == TEXT:  # repeated here, to save a Python call for each message
            transport.send(TEXT, orjson.dumps(orjson.loads(frame.get_payload_as_memoryview())))
        else:
            super().on_ws_frame(transport, frame)


class RawEcho(Session):
    __slots__ = ()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == TEXT:
            transport.send(TEXT, frame.get_payload_as_memoryview())
        else:
            super().on_ws_frame(transport, frame)


class Publisher(Session):
    __slots__ = ()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_text(self, transport: WSTransport, frame: WSFrame) -> None:
        message = frame.get_payload_as_bytes()
        for session in self.sessions:
            session.transport.send(TEXT, message)


async def serve(options: Options) -> None:
    sessions: set[Session] = set()
    kind = {"json": JsonEcho, "raw": RawEcho, "fanout": Session}[options.mode]

    def accept(request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
        try:
            user = user_id(request.headers.get("Authorization"), options.secret)
        except jwt.InvalidTokenError:
            refusal = WSUpgradeResponse.create_error_response(HTTPStatus.UNAUTHORIZED, b"token refused")
            return WSUpgradeResponseWithListener(refusal, None)
        publishes = options.mode == "fanout" and request.path == b"/pub"
        return (Publisher if publishes else kind)(user, sessions)

    server = await ws_create_server(
        accept,
        "127.0.0.1",
        options.port,
        backlog=4096,
        websocket_handshake_timeout=30,
        enable_auto_ping=options.ping_interval_s > 0,
        auto_ping_idle_timeout=options.ping_interval_s or 20,
        auto_ping_reply_timeout=options.ping_interval_s or 20,  # it may not be longer than the other
    )
    await server.serve_forever()


if __name__ == "__main__":
    run(serve)
