"""I3: from the look at the state to the bytes in the queue or the socket it is one step of C without Python.

Nothing can be put into the middle of a C function, so the rule is shown from both sides. The sources: only
csrc/conn.c uses queues and sockets, each function there looks at the state first, and nothing of csrc can
reach Python. And the outside: what Python does on the way into the step (encoding, the collector) may close
the connection, and the step sees it.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from heartwire import ConnectionClosed
from heartwire._core.connection import Connection
from heartwire._core.fanout import Frame, fan_out
from heartwire._core.json_reader import JsonReader
from heartwire._core.session import Session
from heartwire.testing import CLOSE, PING, TEXT
from pair import Pair, texts

ROOT = Path(__file__).parents[2]
CORE = ROOT / "src" / "heartwire" / "_core"

USES = r"\b(?:hw_out_(?:frame|bytes|shared|send|send_frame)|send(?:to|msg)?|writev|recv(?:from|msg)?)\("
LOOKS = r"\bwritable\(c\)|\bhw_state_phase\(&c->state\)|!hw_state_set\(&c->state, HW_CLOSE_SENT\)"


# ---------------------------------------------------------------- the sources


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def functions(path: Path) -> Iterator[tuple[str, str]]:
    """Name and body of each function of a C file."""
    function = re.compile(r"^\w[^\n;{}=]*?(\w+)\([^;{}]*\) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
    for match in function.finditer(without_comments(path.read_text())):
        yield match[1], match[2]


def test_csrc_knows_no_python() -> None:
    sources = [*(ROOT / "csrc").glob("*.[ch]")]
    assert len(sources) > 15
    for path in sources:
        assert "Python.h" not in path.read_text(), path


def test_every_step_is_declared_to_hold_no_python() -> None:
    """`nogil` and `noexcept`: the compiler itself then refuses Python in what the step is called with."""
    text = re.sub(r"#[^\n]*", "", (CORE / "csrc.pxd").read_text())
    blocks = re.findall(r'^cdef extern from "[^"]+"([^\n]*):', text, re.M)
    assert blocks
    assert all(block.split() == ["nogil"] for block in blocks)
    steps = re.findall(r"^    [\w ]+?\**(hw_\w+)\(([^)]*)\)([^\n]*)$", text, re.M)
    names = {name for name, *_ in steps}
    assert {"hw_conn_frame", "hw_conn_flush", "hw_conn_recv", "hw_conn_shared"} <= names
    assert [name for name, _, ending in steps if "noexcept" not in ending] == []


def test_only_conn_uses_queues_and_sockets() -> None:
    for path in (ROOT / "csrc").glob("*.c"):
        if path.name not in ("conn.c", "outqueue.c"):
            assert not re.search(USES, without_comments(path.read_text())), path
    for path in CORE.glob("*.pyx"):
        code = re.sub(r'"""(?:.|\n)*?"""|#[^\n]*', "", path.read_text())
        code = re.sub(r"\.\w+\(|\bc?p?def \w+\(", "(", code)  # methods of that name
        assert not re.search(USES, code), path


def test_each_step_looks_before_it_uses() -> None:
    found = []
    for name, body in functions(ROOT / "csrc" / "conn.c"):
        used = re.search(USES, body)
        if used is None:
            continue
        found.append(name)
        looked = re.search(LOOKS, body)
        assert looked is not None, f"{name} uses without a look"
        assert looked.start() < used.start(), f"{name} uses before it looks"
    assert found == [
        "hw_conn_frame", "hw_conn_frame_now", "hw_conn_shared", "hw_conn_fragment", "hw_conn_close_frame",
        "hw_conn_bytes", "hw_conn_flush", "hw_conn_recv",
    ]  # fmt: skip


# ---------------------------------------------------------------- the outside


class Reader(JsonReader):
    """Encodes with msgspec; values it does not know are asked to encode themselves."""

    def __init__(self) -> None:
        self.configure(ping_interval=0)
        self.encode = msgspec.json.Encoder(enc_hook=lambda value: value.encoded()).encode

    def on_head(self, conn: Connection, head: bytes | None) -> None:
        conn.accept(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", self)
        conn.resume()


class Closing:
    """A value whose encoding closes the connection."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn

    def encoded(self) -> str:
        self.conn.close(4000)
        return "late"


def test_what_closes_while_it_is_encoded_is_seen() -> None:
    pair = Pair(sink=Reader())
    with pytest.raises(ConnectionClosed):
        Session(pair.conn).send_json([1, Closing(pair.conn)])
    assert [(frame.opcode, frame.close_code) for frame in pair.sent()] == [(CLOSE, 4000)]


CALLS: dict[str, Callable[[Pair, Session], Any]] = {
    "send": lambda pair, session: pair.conn.send(TEXT, "x" * 200),
    "send bytes": lambda pair, session: pair.conn.send(TEXT, bytearray(b"x" * 200)),
    "send much": lambda pair, session: pair.conn.send(TEXT, "x" * 100_000),
    "send_json": lambda pair, session: session.send_json([{"x": [1, 2, [3]]}]),
    "fan_out": lambda pair, session: fan_out(Frame(b"x" * 200), {session: None}),
    "ping": lambda pair, session: pair.conn.ping(),
    "close": lambda pair, session: pair.conn.close(4001),
    "from a callback": lambda pair, session: pair.peer.send_text("x"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_collection_that_closes(call: str) -> None:
    """The collector runs as often as Python lets it, and closes the connection at the n-th time."""
    for n in range(1, 30):
        pair = Pair(sink=Reader())
        session = Session(pair.conn)
        runs = 0

        def collected(phase: str, info: object, pair: Pair = pair, at: int = n) -> None:
            nonlocal runs
            runs += phase == "start"
            if runs == at:
                pair.conn.close(4000)

        thresholds = gc.get_threshold()
        gc.callbacks.append(collected)
        gc.set_threshold(1)
        taken: Any = None
        try:
            taken = CALLS[call](pair, session)
        except ConnectionClosed:
            taken = 0
        finally:
            gc.set_threshold(*thresholds)
            gc.callbacks.remove(collected)
        frames = pair.sent()
        closes = [i for i, frame in enumerate(frames) if frame.opcode == CLOSE]
        assert closes in ([], [len(frames) - 1])
        if call in ("send", "send bytes", "send much", "send_json", "fan_out"):
            assert len(texts(frames)) == (taken != 0)
        elif call == "ping":
            assert [frame.opcode for frame in frames] in ([PING], [PING, CLOSE], [CLOSE])
