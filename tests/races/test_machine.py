"""Two connections of a whole server, every public call in any order; the contract I1-I11 after each step.

Hypothesis chooses the steps, on links that delay, split, drop and fail, and makes short what it finds. Other
tests show each rule by itself; I3 is in test_one_step.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import seed as set_seed
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from heartwire import ActionError, Client, ConnectionClosed, LocalProtocolError, Server
from heartwire.testing import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, build_frame, close_payload
from races.application import MODES, Application
from races.talk import MARK, Talk
from serverless import SECRET, Serverless

LIMIT = 2000
which = st.integers(0, 1)
rarely = st.integers(0, 9).map(lambda n: n == 7)  # what ends a connection, or little would happen before


class Machine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.counter = 0
        self.tasks: list[asyncio.Task[Any]] = []
        self.server = Server(
            port=0, jwt_secret=[SECRET], auth="optional", welcome=False, send_buffer_limit=LIMIT,
            ping_interval=5, ping_timeout=8, close_timeout=3, message_timeout=20, handler_timeout=15,
            log_level="warning", max_message_size=4000, max_channels_per_client=3,
        )  # fmt: skip
        self.application = Application(self.server, self._echo)
        self.world = Serverless(self.server)
        self.loop = self.world.loop
        self.talks = [Talk(self.world.new_link()), Talk(self.world.new_link())]
        self.ended: list[Talk] = []

    # ---------------------------------------------------------------- calls, from this thread or another

    def _call(self, talk: Talk, function: Callable[..., Any], *args: Any, **options: Any) -> bool:
        """I7: it returns (True), or raises ConnectionClosed for a connection that is not open."""
        try:
            function(*args, **options)
        except ConnectionClosed as error:
            refusal = error
        else:
            return True
        assert refusal.code
        assert refusal.cause
        # Too slow for another thread: the loop's thread closes it, in its next turn.
        assert not talk.conn.is_open or threading.current_thread() is not threading.main_thread()
        return False

    def _echo(self, client: Client) -> None:
        self._send(next(talk for talk in self.talks if talk.client is client), client.send_text, self._text())

    def _text(self, size: int = 0) -> str:
        self.counter += 1
        return f"{MARK}{self.counter}" + "x" * size

    def _send(self, talk: Talk, function: Callable[[Any], None], text: str) -> None:
        was_open = talk.conn.is_open
        if self._call(talk, function, f'"{text}"'):
            assert was_open
            talk.accepted.append(text)

    @rule(i=which, size=st.sampled_from((0, 10, 300, 1500)), n=st.integers(1, 4), json=st.booleans())
    def send(self, i: int, size: int, n: int, json: bool) -> None:
        talk = self.talks[i]
        client = talk.client

        def unquoted(text: str) -> None:
            client.send_json(text[1:-1])

        for _ in range(n):
            text = self._text(size)
            self._send(talk, unquoted if json else client.send_text, text)

    @rule(i=which)
    def send_others(self, i: int) -> None:
        talk = self.talks[i]
        self._call(talk, talk.client.send_event, "e", {"x": 1}, channel="c", reply_to=7)
        self._call(talk, talk.client.send_bytes, bytearray(b"bytes"))

    @rule(i=which, n=st.integers(1, 4), really=rarely, what=st.sampled_from(("ping", "close", "kick")))
    def from_another_thread(self, i: int, n: int, really: bool, what: str) -> None:
        what = what if really or what == "ping" else "send"
        talk = self.talks[i]
        client = talk.client
        calls: dict[str, Callable[[], None]] = {
            "ping": client.ping, "close": lambda: client.close(4001), "kick": lambda: client.kick("bye"),
        }  # fmt: skip
        for _ in range(n):
            if what != "send":
                assert self._elsewhere(talk, calls[what])
                continue
            text = self._text()
            before = talk.conn.statistics()["messages_out"]
            assert self._elsewhere(talk, client.send_text, f'"{text}"') or not talk.conn.is_open
            if talk.conn.statistics()["messages_out"] > before:
                talk.accepted.append(text)

    def _elsewhere(self, talk: Talk, function: Callable[..., None], *args: Any) -> bool:
        """As `_call`, in another thread; then the loop does what was posted."""
        results = []
        thread = threading.Thread(target=lambda: results.append(self._call(talk, function, *args)))
        thread.start()
        thread.join()
        self.loop.settle()
        (result,) = results
        return result

    @rule(i=which, fin=st.booleans())
    def send_fragment(self, i: int, fin: bool) -> None:
        talk = self.talks[i]
        if self._call(
            talk, talk.conn.send_fragment, CONTINUATION if talk.fragmenting else BINARY, b"part", fin
        ):
            talk.fragmenting = not fin

    @rule(i=which)
    def send_wrong_fragment(self, i: int) -> None:
        talk = self.talks[i]
        try:
            talk.conn.send_fragment(BINARY if talk.fragmenting else CONTINUATION, b"wrong", True)
        except (ConnectionClosed, LocalProtocolError):
            return
        raise AssertionError("a message inside another")

    @rule(i=which)
    def ping(self, i: int) -> None:
        talk = self.talks[i]
        before = talk.conn.queued_bytes, len(talk.link.written)
        was_open = talk.conn.is_open
        assert self._call(talk, talk.client.ping)
        assert was_open or before == (talk.conn.queued_bytes, len(talk.link.written))  # I8

    @rule(i=which, really=rarely, how=st.sampled_from(("close", "close", "kick", "deadline", "abort")))
    def end(self, i: int, really: bool, how: str) -> None:
        talk = self.talks[i]
        client = talk.client
        if not really:
            return
        if how == "close":
            assert self._call(talk, client.close, 4000, "enough")
        elif how == "kick":
            assert self._call(talk, client.kick, "enough")
        elif how == "deadline":
            assert self._call(talk, client.set_read_deadline, 2)
        else:
            assert self._call(talk, talk.conn.abort)

    @rule(i=which, channel=st.sampled_from("abcd"))
    def join(self, i: int, channel: str) -> None:
        talk = self.talks[i]
        with contextlib.suppress(ActionError):  # it is in too many
            if self._call(talk, talk.client.join, channel):
                assert channel in talk.client.channels

    @rule(i=which, channel=st.sampled_from("abcd"))
    def leave(self, i: int, channel: str) -> None:
        talk = self.talks[i]
        assert self._call(talk, talk.client.leave, channel)
        assert channel not in talk.client.channels

    @rule(channel=st.sampled_from((None, "a", "b")), size=st.sampled_from((0, 0, 300)))
    def broadcast(self, channel: str | None, size: int) -> None:
        """Whoever is open gets it, and who is over the limit and takes nothing ends as too slow."""
        text = self._text(size)
        members = [
            talk for talk in self.talks
            if talk.conn.is_open and (channel is None or channel in talk.client.channels)
        ]  # fmt: skip
        over = [talk for talk in members if talk.conn.queued_bytes > LIMIT]
        before = [talk.conn.statistics()["messages_out"] for talk in members]
        count = self.server.broadcast("b", text, channel=channel)
        got = [
            talk for talk, n in zip(members, before, strict=True)
            if talk.conn.statistics()["messages_out"] > n
        ]  # fmt: skip
        assert count == len(got)
        for talk in members:
            if talk in got:
                talk.accepted.append(text)
            else:
                assert talk in over
                assert not talk.conn.is_open

    @rule(i=which)
    def drain(self, i: int) -> None:
        client = self.talks[i].client

        async def drain() -> None:
            with contextlib.suppress(ConnectionClosed):
                await client.drain()

        self.tasks.append(self.loop.create_task(drain()))

    @rule(i=which)
    def look(self, i: int) -> None:
        client = self.talks[i].client
        assert (client.user_id, client.username, client.claims) == (None, None, {})
        assert client.remote_address == ("", 0)
        assert client.last_seen >= client.connected_at - 1
        assert repr(client)
        assert self.server.stats()["clients"] == len(self.server.clients)

    @rule(mode=st.sampled_from(MODES))
    def handlers_will(self, mode: str) -> None:
        self.application.mode = mode

    @rule()
    def handlers_go_on(self) -> None:
        self.application.go_on()
        self.loop.settle()

    # ---------------------------------------------------------------- the peers, and the network

    @rule(i=which, n=st.integers(1, 3), size=st.sampled_from((0, 0, 200)))
    def peer_sends(self, i: int, n: int, size: int) -> None:
        talk = self.talks[i]
        for _ in range(n if talk.begun is None else 0):
            self.counter += 1
            value = f"p{self.counter}" + "y" * size
            talk.says(build_frame(TEXT, msgspec.json.encode(value)), value)

    @rule(i=which, turns=st.integers(0, 3))
    def reader_gives_up(self, i: int, turns: int) -> None:
        """In the moment in which a message comes: the next reader, or else the handler, gets it."""
        self.application.mode = "cancel"
        for _ in range(2):  # the first brings about the reader, where it is handled
            self.peer_sends(i, 1, 0)
            self.loop.settle()
            self.bytes_arrive(i, 100_000)
        for _ in range(turns):
            self.loop.turn()
        self.application.cancel_readers()

    @rule(i=which)
    def peer_fragments(self, i: int) -> None:
        talk = self.talks[i]
        self.counter += 1
        if talk.begun is None:
            talk.begins(f"p{self.counter}")
        else:
            talk.continues()

    @rule(i=which, what=st.sampled_from(("ping", "pong", "binary", "raw", "join", "bad json")))
    def peer_does(self, i: int, what: str) -> None:
        talk = self.talks[i]
        if what in ("ping", "pong"):
            talk.says(build_frame(PING if what == "ping" else PONG, b"?" * 20))
        elif talk.begun is None:
            texts = {
                "raw": b'{"action":"raw","raw":[1, {"deep": "text"}]}', "bad json": b"{",
                "join": b'{"action":"join_channel","channel":"a"}', "binary": b"data",
            }  # fmt: skip
            talk.says(build_frame(BINARY if what == "binary" else TEXT, texts[what]))

    @rule(i=which, really=rarely, what=st.sampled_from(("close", "violation", "not UTF-8", "too big")))
    def peer_ends(self, i: int, really: bool, what: str) -> None:
        talk = self.talks[i]
        if not really:
            return
        opcode = TEXT if talk.begun is None else CONTINUATION
        frames = {
            "close": build_frame(CLOSE, close_payload(1000)), "violation": b"\xff\xff",
            "not UTF-8": build_frame(opcode, b'"\xff'), "too big": build_frame(opcode, length=1 << 40),
        }  # fmt: skip
        talk.says(frames[what])
        talk.sensible = False

    @rule(i=which, n=st.sampled_from((1, 2, 7, 50, 100_000, 100_000)))
    def bytes_arrive(self, i: int, n: int) -> None:
        self.talks[i].arrives(n)

    @rule(
        i=which, really=rarely, what=st.sampled_from(("eof", "reset", "fail", "fail")),
        error=st.sampled_from((5, 32, 104)),
    )  # fmt: skip
    def fault(self, i: int, really: bool, what: str, error: int) -> None:
        talk = self.talks[i]
        if not really:
            return
        talk.lossy = True
        if what == "eof":
            talk.link.eof()
        elif what == "reset":
            talk.link.reset(error)
        else:
            talk.link.fail(error)

    @rule(i=which, really=rarely)
    def drop(self, i: int, really: bool) -> None:
        talk = self.talks[i]
        if really:
            talk.lossy = talk.link.dropping = True

    @rule(i=which, most=st.sampled_from((None, None, 1, 30, 500)), blocked=st.booleans())
    def throttle(self, i: int, most: int | None, blocked: bool) -> None:
        link = self.talks[i].link
        link.most, link.blocked = most, blocked

    @rule(i=which)
    def can_write(self, i: int) -> None:
        self.talks[i].conn.writable()

    @rule()
    def turn(self) -> None:
        self.loop.turn()

    @rule(seconds=st.sampled_from((0.0, 0.02, 1.0, 1.0, 4.0, 9.0)))
    def time_passes(self, seconds: float) -> None:
        self.loop.advance(seconds)

    @rule()
    def stall(self) -> None:
        """I8: a silence in which we were stalled, for longer than any deadline is off, ends nobody."""
        before = [talk.conn.cause for talk in self.talks]
        self.loop.jump(60)
        for talk, cause in zip(self.talks, before, strict=True):
            assert talk.conn.cause == cause or talk.conn.cause != "ping_timeout"

    @rule(i=which)
    def next_tenant(self, i: int) -> None:
        if self.talks[i].phase == 3:
            self.ended.append(self.talks[i])
            self.talks[i] = Talk(self.world.new_link())

    # ---------------------------------------------------------------- the contract

    @invariant()
    def contract(self) -> None:
        lines, self.world.log.lines = self.world.log.lines, []
        allowed = ("ping to client", "became nil", "did not end within", "refused: too_many_channels")
        assert all(any(words in line for words in allowed) for line, _ in lines), lines
        for talk in self.talks:
            talk.check()
            talk.check_told(self.application.told[talk.client.id])
            assert (talk.client.id in self.server.clients) == talk.conn.is_open  # I5
        for channel in self.server.channels.values():
            assert channel.members
            assert all(client.is_connected for client in channel.members)
        assert all(value == was for value, was in self.application.kept)  # I11

    def teardown(self) -> None:
        """Everything heals; then what was accepted arrives, and every end is told."""
        try:
            self._finish()
        finally:
            self.world.close()

    def _finish(self) -> None:
        for talk in self.talks:
            talk.link.most, talk.link.blocked = None, False
            if talk.fragmenting:
                self._call(talk, talk.conn.send_fragment, CONTINUATION, b"end", True)
            talk.conn.writable()
        self.handlers_go_on()
        healthy = [talk for talk in self.talks if talk.conn.is_open and not talk.lossy]
        for talk in self.talks:
            talk.client.close(4000)
        self.contract()
        self.loop.advance(60)
        self.contract()
        for talk in healthy:
            assert talk.received == talk.accepted  # I9
            assert talk.frames[-1].opcode == CLOSE
        for talk in [*self.talks, *self.ended]:
            assert talk.phase == 3
            assert [what for what, _ in self.application.told[talk.client.id]].count("disconnect") == 1
        assert all(task.done() for task in self.tasks)


def test_machine(seed: int) -> None:
    """HEARTWIRE_MACHINE_EXAMPLES: how many sequences of steps."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        set_seed(seed)(Machine),
        settings=settings(
            max_examples=int(os.environ.get("HEARTWIRE_MACHINE_EXAMPLES", "40")), stateful_step_count=100,
            deadline=None, database=None, suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
