"""One connection of the state machine: its link, its peer, and what is known about both."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from heartwire import Client
from heartwire.testing import CLOSE, CONTINUATION, PING, PONG, TEXT, FakeLink, Frame, FramePeer, build_frame

PHASES: Final = ("CONNECTING", "OPEN", "CLOSING", "CLOSED")
MARK: Final = "m"  # what the machine sends begins with it, and can be told from the server's own messages


class Talk:
    """A connection after its handshake, and the model of it.

    Attributes:
        coming: bytes that the peer has sent and that have not arrived.
        said: the JSON values of the peer's messages, in order, as long as what it says is valid.
        sensible: it still is.
        accepted: the texts that the server took for the peer, in order.
        fragmenting: the server is inside a fragmented message.
        lossy: a fault may have taken bytes.
        frames: what the peer has received.
    """

    def __init__(self, link: FakeLink) -> None:
        self.link = link
        self.conn = link.connection
        self.peer = FramePeer(link)
        self.coming = bytearray()
        self.said: list[Any] = []
        self.sensible = True
        self.begun: str | None = None
        self.accepted: list[str] = []
        self.fragmenting = False
        self.lossy = False
        self.frames: list[Frame] = []
        self._phase = 1
        self.peer.open()
        self.client: Client = self.conn.owner

    @property
    def phase(self) -> int:
        """0 connecting to 3 closed."""
        return PHASES.index(self.conn.phase)

    # ---------------------------------------------------------------- the peer

    def says(self, frame: bytes, value: Any = None) -> None:
        """Sends a frame; `value` is the message it completes, if that is one for `on_message`."""
        if self.sensible and value is not None:
            self.said.append(value)
        self.coming += frame

    def begins(self, text: str) -> None:
        """Sends the first fragment of a message."""
        self.begun = text
        self.says(build_frame(TEXT, b'"' + text.encode(), fin=False))

    def continues(self) -> None:
        """Sends the last one."""
        self.says(build_frame(CONTINUATION, b'"'), self.begun)
        self.begun = None

    def arrives(self, n: int) -> None:
        """The next n bytes arrive."""
        data = bytes(self.coming[:n])
        del self.coming[:n]
        if data:
            self.link.feed(data)

    # ---------------------------------------------------------------- the contract

    @property
    def received(self) -> list[str]:
        """The machine's texts that have arrived at the peer."""
        found = []
        for frame in self.frames:
            if frame.opcode == TEXT:
                value = msgspec.json.decode(frame.payload)
                if isinstance(value, dict) and value["event"] == "b":
                    value = value["data"]
                if isinstance(value, str) and value.startswith(MARK):
                    found.append(value)
        return found

    def check(self) -> None:
        """Judges what the peer has received, and how the link was used."""
        assert self.phase >= self._phase  # I1
        self._phase = self.phase
        assert self.link.closes == (self.phase == 3)  # I6
        assert self.link.late_writes == 0
        assert (self.conn.cause is None) == (self.phase == 1)
        before = len(self.frames)
        self.frames += self.peer.frames()
        closes = [i for i, frame in enumerate(self.frames) if frame.opcode == CLOSE]
        assert closes in ([], [len(self.frames) - 1])  # I2
        assert not closes or not self.peer.incomplete
        for frame in self.frames[before:]:
            if frame.opcode == PING:
                self.says(build_frame(PONG, frame.payload))
            elif frame.opcode == CLOSE and self.sensible:
                self.says(build_frame(CLOSE, frame.payload))
                self.sensible = False
        if len(self.frames) > before:
            self._check_fragments()
            if not self.lossy:
                received = self.received
                assert received == self.accepted[: len(received)]  # I9, I10: whole, in order, nothing else

    def _check_fragments(self) -> None:
        inside = False
        for frame in self.frames:
            assert not frame.masked
            if frame.opcode < 8:
                assert (frame.opcode == CONTINUATION) == inside  # I4
                inside = not frame.fin

    def check_told(self, told: list[tuple[str, Any]]) -> None:
        """Judges what the handlers were told: (what, value)."""
        kinds = [what for what, _ in told]
        assert kinds[0] == "connect"  # I5
        assert kinds.count("connect") == 1
        assert "disconnect" not in kinds[:-1]
        messages = [value for what, value in told if what == "message"]
        assert messages == self.said[: len(messages)]  # in order, each once, nothing behind a violation
