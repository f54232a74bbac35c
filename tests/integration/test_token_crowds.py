"""Ten thousand tokens that end, or are revoked, in the same second, and nobody else waits for them."""

from __future__ import annotations

import http.client
import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.peers import SECRET, TEXT, frame, handshake, token

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.speed

CROWD = 10_000
STALL_MS = 100
RENEWING_S = 15  # time for all to renew their tokens: a second or two of work
KEY = "the-key-of-this-test"


class CrowdServer:
    """The server, and the clients that this process holds."""

    def __init__(self, **options: Any) -> None:
        usual = {"jwt_secret": [SECRET], "api_key": [KEY], "welcome": False, "ping_interval": 3600}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("crowd_server.py")), json.dumps(usual | options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.socks: list[socket.socket] = []
        self.last_told = 0.0
        """When `until_closed` saw the last CLOSE."""
        self.port = int(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server has ended"
        return line

    def seen(self) -> dict[str, Any]:
        """What it has seen since the last call."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        seen: dict[str, Any] = json.loads(self._line())
        return seen

    def connect(self, bearer: str) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        self.socks.append(sock)
        sock.sendall(handshake(bearer=bearer))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(4096)  # nothing comes behind it: there is no welcome
        assert head.startswith(b"HTTP/1.1 101 ")
        return sock

    def revoke(self, **body: Any) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Authorization": f"Bearer {KEY}"}
        connection.request("POST", "/api/tokens/revoke", json.dumps(body), headers)
        answer = connection.getresponse()
        result: dict[str, Any] = json.loads(answer.read())
        connection.close()
        assert answer.status == 200, result
        return result

    def until_renewed(self, patience_s: float = 40) -> None:
        """Until every client was answered `authenticated`; what came with it is thrown away."""
        poll = select.epoll()
        by_number = {sock.fileno(): sock for sock in self.socks[1:]}
        received = dict.fromkeys(by_number, b"")
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        deadline = time.monotonic() + patience_s
        while by_number:
            assert time.monotonic() < deadline, f"{len(by_number)} were not answered"
            for number, _ in poll.poll(0.1):
                received[number] += by_number[number].recv(4096)
                if b'"authenticated"' in received[number]:
                    poll.unregister(number)
                    del by_number[number]
        poll.close()

    def until_closed(self, socks: list[socket.socket], patience_s: float = 40) -> list[bytes]:
        """What each was sent up to its end. A CLOSE is answered, as clients do."""
        received = {sock.fileno(): b"" for sock in socks}
        by_number = {sock.fileno(): sock for sock in socks}
        poll = select.epoll()
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        deadline = time.monotonic() + patience_s
        open_ones = set(by_number)
        while open_ones:
            assert time.monotonic() < deadline, f"{len(open_ones)} are still open"
            for number, _ in poll.poll(0.1):
                data = by_number[number].recv(4096)
                received[number] += data
                if b"\x11\x3a" in data:  # 4410: RFC 6455 section 5.5.1
                    self.last_told = time.monotonic()
                    by_number[number].sendall(b"\x88\x82\0\0\0\0\x11\x3a")
                if not data:
                    poll.unregister(number)
                    open_ones.discard(number)
        poll.close()
        return list(received.values())

    def stop(self) -> None:
        for sock in self.socks:
            sock.close()
        self.process.communicate(timeout=30)


@pytest.fixture
def crowd(request: pytest.FixtureRequest) -> Iterator[CrowdServer]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CROWD + 1000:
        pytest.skip(f"a limit of {CROWD + 1000} open files is needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = CrowdServer(**request.param)
    yield server
    server.stop()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


EXPIRING = {"token_expiring_before": 2, "allow_no_exp": True}
LINKS = {"default": EXPIRING, "asyncio": EXPIRING | {"link": "asyncio"}}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("crowd", LINKS.values(), ids=LINKS, indirect=True)
def test_ten_thousand_tokens_end_in_the_same_second(crowd: CrowdServer) -> None:
    witness = crowd.connect(token("witness"))
    # They come with tokens that do not end, and renew them when all are here: that is quick.
    socks = [crowd.connect(token(f"user {i}", exp=None)) for i in range(CROWD)]
    expires = time.time() + RENEWING_S
    for i, sock in enumerate(socks):
        renewal = {"action": "authenticate", "token": token(f"user {i}", exp=expires)}
        sock.sendall(frame(TEXT, json.dumps(renewal).encode()))
    crowd.until_renewed()
    assert crowd.seen()["clients"] == CROWD + 1

    received = crowd.until_closed(socks, expires - time.time() + 30)

    assert time.time() >= expires
    assert all(b'"token_expiring"' in data for data in received)
    assert all(b"\x11\x3atoken expired" in data for data in received)
    seen = crowd.seen()
    print(seen)
    assert seen["disconnects"] == {"token_expired": CROWD}
    assert seen["clients"] == 1
    assert seen["longest_turn_ms"] < STALL_MS
    witness.setblocking(False)
    with pytest.raises(BlockingIOError):
        witness.recv(1)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("crowd", [{}], indirect=True)
def test_ten_thousand_tokens_are_revoked_at_once(crowd: CrowdServer) -> None:
    now = int(time.time())
    bearers = [token(f"user {i}", iat=now - 100, jti=f"token {i}") for i in range(CROWD)]
    socks = [crowd.connect(bearer) for bearer in bearers]
    crowd.connect(token("later", iat=now))
    crowd.seen()

    one = socks.pop(CROWD // 2)
    started = time.monotonic()
    assert crowd.revoke(jti=f"token {CROWD // 2}")["disconnected"] == 1
    assert b"\x11\x3atoken revoked" in crowd.until_closed([one])[0]
    assert time.monotonic() - started < 1, "one token among ten thousand"

    crowd.seen()
    before = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 50))
    started = time.monotonic()
    assert crowd.revoke(issued_before=before) == {
        "status": "success", "disconnected": CROWD - 1, "remembered_until": None
    }  # fmt: skip
    answered_s = time.monotonic() - started
    assert all(b"\x11\x3atoken revoked" in data for data in crowd.until_closed(socks))
    seen = crowd.seen()
    told_s = crowd.last_told - started
    print(seen, f"answered after {answered_s:.2f} s, the last client told after {told_s:.2f} s")
    assert seen["cpu_s"] < 1, "all ten thousand within a second, of a core of its own"
    assert seen["disconnects"] == {"token_revoked": CROWD}
    assert seen["clients"] == 1
    assert seen["longest_turn_ms"] < STALL_MS
