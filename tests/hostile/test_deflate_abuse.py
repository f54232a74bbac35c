"""Compressed messages that are broken, too big, or agreed on badly."""

from __future__ import annotations

import zlib

import pytest

from hostile.peer import CONT, PING, TEXT, frame
from hostile.watched import Attack
from links import needs_deflate

pytestmark = needs_deflate

MIB = 1 << 20
OFFER = "permessage-deflate; client_max_window_bits"
BOMB = zlib.compress(bytes(200 * MIB), 9, wbits=-15)  # 200 KB


def raw_deflate(data: bytes) -> bytes:
    """A compressed message."""
    deflater = zlib.compressobj(wbits=-12)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


DEFLATED = {
    "a bomb": (frame(TEXT, BOMB, rsv=4), 1009),
    "a bomb in fragments": (frame(TEXT, BOMB[:999], rsv=4, fin=False) + frame(CONT, BOMB[999:]), 1009),
    "a byte too many": (frame(TEXT, raw_deflate(b" " * (MIB + 1)), rsv=4), 1009),
    "noise": (frame(TEXT, b"\xff" * 1000, rsv=4), 1002),
    "cut short": (frame(TEXT, raw_deflate(b"[1, 2, 3, 4]")[:-4], rsv=4), 1002),
    "final blocks without end": (frame(TEXT, b"\x03\x00" * 100_000, rsv=4), 1002),
    "empty blocks without end": (frame(TEXT, b"\0\0\0\xff\xff" * 200_000 + b"\0", rsv=4), None),
    "not UTF-8": (frame(TEXT, raw_deflate(b'"\xff"'), rsv=4), 1007),
    "RSV1 on a continuation": (frame(TEXT, b"[", fin=False) + frame(CONT, raw_deflate(b"1]"), rsv=4), 1002),
    "RSV1 on a ping": (frame(PING, raw_deflate(b"x"), rsv=4), 1002),
}


@pytest.mark.parametrize("mode", ["shared", "dedicated"])
@pytest.mark.parametrize("name", DEFLATED)
def test_deflated(attack: Attack, name: str, mode: str) -> None:
    """Limits hold while inflating, and what is broken or hidden in compression is found."""
    data, code = DEFLATED[name]
    with attack(compression=mode) as server, server.connect() as peer:
        peer.send(peer.opening(Sec_WebSocket_Extensions=OFFER))
        status, fields = peer.head()
        assert (status, fields["sec-websocket-extensions"][:18]) == (101, "permessage-deflate")
        peer.send(frame(TEXT, raw_deflate(b'["before"]'), rsv=4))
        assert peer.message() == ["before"]
        before = server.memory
        peer.send_what_goes(data)
        if code is None:
            assert peer.message()["data"]["code"] == "bad_json"  # an empty message
        else:
            assert peer.close_code() == code
        server.assert_grown_less(before, 8 * MIB)


EXTENSIONS = {
    "unknown parameter": "permessage-deflate; nonsense",
    "window of 16 bits": "permessage-deflate; server_max_window_bits=16",
    "window of 7 bits": "permessage-deflate; client_max_window_bits=7",
    "window of 8 bits for the server": "permessage-deflate; server_max_window_bits=8",
    "parameter twice": "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    "another extension": "x-webkit-deflate-frame",
}


@pytest.mark.parametrize("name", EXTENSIONS)
def test_offers_that_cannot_be_had(attack: Attack, name: str) -> None:
    """The connection opens without compression, and RSV1 is then an error."""
    with attack(compression="shared") as server, server.connect() as peer:
        peer.send(peer.opening(Sec_WebSocket_Extensions=EXTENSIONS[name]))
        status, fields = peer.head()
        assert (status, fields.get("sec-websocket-extensions")) == (101, None)
        peer.send(frame(TEXT, raw_deflate(b"[1]"), rsv=4))
        assert peer.close_code() == 1002


def test_many_offers(attack: Attack) -> None:
    """The first that can be had is taken, once."""
    offers = "permessage-deflate; nonsense, " + "permessage-deflate, " * 500 + "permessage-deflate"
    with attack(compression="shared") as server, server.connect() as peer:
        peer.send(peer.opening(Sec_WebSocket_Extensions=offers))
        status, fields = peer.head()
        agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        assert (status, fields["sec-websocket-extensions"]) == (101, agreed)


def test_unreadable_offer(attack: Attack) -> None:
    """Nonsense instead of a list of extensions: 400."""
    with attack(compression="shared") as server, server.connect() as peer:
        peer.send(peer.opening(Sec_WebSocket_Extensions="a;;;=,;"))
        assert peer.refusal()[0] == 400
