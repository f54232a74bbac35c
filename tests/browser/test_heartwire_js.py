"""heartwire.js in a real browser: answers, reconnection, tokens, channels that come back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest

from browser.conftest import ServerProcess, mint
from heartwire.closing import CAUSES, Advice
from heartwire.testing import FramePeer

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZE_LIMIT = 6144  # bytes: small enough to be read, and to be sent along without a thought

# What each test begins with: a client whose tokens come from the test, and a record of what it tells.
OPEN = """async (options) => {
    const { Heartwire } = await import("/heartwire.js");
    globalThis.told = [];
    globalThis.states = [];
    globalThis.Heartwire = Heartwire;
    globalThis.wire = new Heartwire("/ws", { token: () => globalThis.mint(), minDelay: 20, ...options });
    wire.on("*", (event) => told.push(event));
    wire.onstate = (state, why, delay) => states.push({ state, code: why.code, reason: why.reason, delay });
}"""
UNTIL_OPEN = "() => wire.state === 'open'"
UNTIL_CLOSED = "() => wire.state === 'closed'"


class Tokens:
    """The token callback. Tokens live so many seconds as planned (None: there is none), then an hour."""

    def __init__(self) -> None:
        self.asked = 0
        self.planned: list[float | None] = []

    def __call__(self) -> str:
        self.asked += 1
        ttl = self.planned.pop(0) if self.planned else 3600
        if ttl is None:
            raise RuntimeError("no token for you")
        return mint(ttl=ttl)


@pytest.fixture
def tokens(page: Page) -> Tokens:
    """The tokens that the page gets."""
    tokens = Tokens()
    page.expose_function("mint", tokens)
    return tokens


def begin(page: Page, server: ServerProcess, **options: Any) -> None:
    """Opens a page of the server's origin with a client in it."""
    page.goto(server.url + "/health")
    page.evaluate(OPEN, options)


def states(page: Page) -> list[str]:
    """The states the client went through."""
    return [entry["state"] for entry in page.evaluate("states")]


def test_it_is_small() -> None:
    text = files("heartwire").joinpath("static/heartwire.js").read_bytes()
    assert len(text) < SIZE_LIMIT
    assert not re.search(rb"^\s*import\b", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 120, "it is to be read"


def test_answers_settle_promises(page: Page, serve: Callable[..., ServerProcess], tokens: Tokens) -> None:
    begin(page, serve())
    # Called before the connection is open: they wait for it, in order.
    joined, sent = page.evaluate("Promise.all([wire.join('lobby'), wire.send('lobby', { text: 'hello' })])")
    assert joined == {"channel": "lobby"}
    assert sent == {"channel": "lobby", "recipients": 1}
    page.wait_for_function("() => told.some(({ event }) => event === 'message')")
    message = page.evaluate("told.find(({ event }) => event === 'message')")
    assert message["data"] == {"text": "hello"}
    assert message["client_id"] == page.evaluate("wire.clientId")
    code = page.evaluate("wire.join('private-x').catch((error) => error.code + ': ' + error.message)")
    assert code.startswith("forbidden: ")
    assert page.evaluate("wire.action('ping')") is None
    assert page.evaluate("wire.action('no_such').catch((error) => error.code)") == "unknown_action"
    assert page.evaluate("wire.leave('lobby')") == {"channel": "lobby"}
    assert page.evaluate("wire.send('lobby', 1)") == {"channel": "lobby", "recipients": 0}
    assert tokens.asked == 1


def test_it_survives_a_restart(page: Page, serve: Callable[..., ServerProcess], tokens: Tokens) -> None:
    server = serve()
    begin(page, server)
    page.evaluate("Promise.all([wire.join('lobby'), wire.join('news'), wire.join('left')])")
    page.evaluate("wire.leave('left')")
    server.kill()
    page.wait_for_function("() => wire.state === 'waiting'")
    queued = page.evaluate("() => { globalThis.queued = wire.send('lobby', 'sent while away'); return 1; }")
    assert queued == 1
    server.start()
    page.wait_for_function(UNTIL_OPEN)
    assert page.evaluate("queued")["channel"] == "lobby"
    page.wait_for_function("() => told.filter(({ event }) => event === 'joined_channel').length === 5")

    peer = FramePeer.connect("127.0.0.1", server.port, f"/ws?token={mint('bob')}")
    for channel in ("left", "lobby", "news"):
        peer.send_text(json.dumps({"action": "send_message", "channel": channel, "data": "after"}))
    page.wait_for_function("() => told.some(({ channel, data }) => channel === 'news' && data === 'after')")
    got = page.evaluate("told.filter(({ data }) => data === 'after').map(({ channel }) => channel)")
    assert got == ["lobby", "news"]
    peer.disconnect()
    assert states(page)[:3] == ["connecting", "open", "waiting"]
    assert states(page)[-1] == "open"
    # The first try after the loss takes the token there was; each that follows one that failed asks anew.
    assert tokens.asked == states(page).count("connecting") - 1 >= 2


def test_what_was_under_way(page: Page, serve: Callable[..., ServerProcess], tokens: Tokens) -> None:
    """A join is sent again; of anything else nobody knows whether it was done, and the caller decides."""
    server = serve()
    begin(page, server)
    page.wait_for_function(UNTIL_OPEN)
    with server.frozen():
        page.evaluate("""() => {
            globalThis.joined = wire.join("lobby");
            globalThis.sent = wire.send("lobby", 1).catch(({ code }) => code);
        }""")
        server.kill()
    assert page.evaluate("sent") == "disconnected"
    server.start()
    assert page.evaluate("joined") == {"channel": "lobby"}
    assert page.evaluate("told.filter(({ event }) => event === 'joined_channel').length") == 1


def test_a_drain_says_when_to_return(page: Page, serve: Callable[..., ServerProcess], tokens: Tokens) -> None:
    server = serve("--drain-delay", "0", "--drain-window", "0.2")
    begin(page, server)
    page.wait_for_function(UNTIL_OPEN)
    server.terminate()
    server.start()
    page.wait_for_function("() => states.filter(({ state }) => state === 'open').length === 2")
    waiting = page.evaluate("states.find(({ state }) => state === 'waiting')")
    assert waiting["code"] == 1012
    told = re.fullmatch(r"reconnect_in=(\d+)", waiting["reason"])
    assert told
    assert int(told[1]) <= waiting["delay"] <= int(told[1]) + 20  # and jitter of at most minDelay
    assert tokens.asked <= 2  # the token was good: asked again only if the server was not back in time


def test_an_ending_token_is_renewed(page: Page, serve: Callable[..., ServerProcess], tokens: Tokens) -> None:
    tokens.planned = [1.5]
    begin(page, serve())
    page.evaluate("wire.join('lobby')")
    # The server warns when half of the time is left: the connection gets a new token and stays.
    page.wait_for_function("() => told.some(({ event }) => event === 'authenticated')")
    assert tokens.asked == 2
    assert states(page) == ["connecting", "open"]


def test_an_expired_token_is_asked_for_again(
    page: Page, serve: Callable[..., ServerProcess], tokens: Tokens
) -> None:
    tokens.planned = [1.5, None]  # the renewal fails: the server closes with 4410
    begin(page, serve())
    page.wait_for_function("() => states.some(({ code }) => code === 4410)")
    page.wait_for_function(UNTIL_OPEN)
    assert tokens.asked == 3
    assert states(page) == ["connecting", "open", "waiting", "connecting", "open"], "with a new one at once"


@pytest.mark.parametrize("reject", ["status", "close"])
def test_a_refused_token_is_asked_for_again(
    page: Page, serve: Callable[..., ServerProcess], tokens: Tokens, reject: str
) -> None:
    tokens.planned = [-60, -60]
    begin(page, serve("--reject", reject))
    page.evaluate("wire.join('lobby')")  # waits through the failures
    assert tokens.asked == 3
    codes = [entry["code"] for entry in page.evaluate("states") if entry["state"] == "waiting"]
    assert codes == [{"status": 1006, "close": 4401}[reject]] * 2


def test_a_kicked_client_stays_away(page: Page, serve: Callable[..., ServerProcess], tokens: Tokens) -> None:
    server = serve()
    begin(page, server)
    page.wait_for_function(UNTIL_OPEN)
    key = {"Authorization": "Bearer test-key-of-the-monitor"}
    url = f"{server.url}/api/clients/{page.evaluate('wire.clientId')}/kick"
    assert page.request.post(url, headers=key).ok
    page.wait_for_function(UNTIL_CLOSED)
    assert page.evaluate("states.at(-1).code") == 4403
    assert page.evaluate("wire.join('lobby').catch((error) => error.code)") == "closed"


def test_close_is_for_good(page: Page, serve: Callable[..., ServerProcess], tokens: Tokens) -> None:
    server = serve()
    begin(page, server)
    page.wait_for_function(UNTIL_OPEN)
    page.evaluate("() => { globalThis.sent = wire.action('ping').catch(({ code }) => code); wire.close(); }")
    assert page.evaluate("sent") == "closed"
    server.restart()
    assert states(page) == ["connecting", "open", "closed"]


# An open connection is closed with each of the codes; the states that follow.
CLOSED_WITH = """async (codes) => {
    const { Heartwire } = await import("/heartwire.js");
    const sockets = [];
    globalThis.WebSocket = class { constructor() { sockets.push(this); } send() {} close() {} };
    const data = JSON.stringify({ event: "connected", data: { client_id: "a", ping_interval_ms: 60000 } });
    return Promise.all(codes.map(async (code, i) => {
        const wire = new Heartwire("/ws", { minDelay: 60000 });
        while (!sockets[i]) await new Promise((resolve) => setTimeout(resolve));
        sockets[i].onmessage({ data });
        sockets[i].onclose({ code, reason: "" });
        return wire.state;
    }));
}"""
UNKNOWN = (1005, 1010, 3999, 4000, 4499, 4599, 4999)


def test_close_codes_say_what_to_do(page: Page, serve: Callable[..., ServerProcess]) -> None:
    """As the table of protocol.md 4; after a code that is not in it, the client comes back."""
    page.goto(serve().url + "/health")
    wanted = dict.fromkeys(UNKNOWN, "waiting") | {
        cause.code: "closed" if cause.advice in (Advice.FIX, Advice.STAY_AWAY) else "waiting"
        for cause in CAUSES.values()
        if cause.code is not None
    }
    assert dict(zip(wanted, page.evaluate(CLOSED_WITH, list(wanted)), strict=True)) == wanted


@pytest.mark.parametrize("drawn", [0.0, 0.25, 0.999])
def test_delays_grow_with_full_jitter(
    page: Page, serve: Callable[..., ServerProcess], tokens: Tokens, drawn: float
) -> None:
    server = serve()
    page.add_init_script(f"Math.random = () => {drawn}")
    begin(page, server, minDelay=10, maxDelay=60)
    page.wait_for_function(UNTIL_OPEN)
    server.kill()
    page.wait_for_function("() => states.filter(({ state }) => state === 'waiting').length >= 5")
    delays = [entry["delay"] for entry in page.evaluate("states") if entry["state"] == "waiting"]
    assert delays[:5] == [pytest.approx(drawn * bound) for bound in (10, 20, 40, 60, 60)]


def test_a_dead_network_is_noticed(page: Page, serve: Callable[..., ServerProcess], tokens: Tokens) -> None:
    """The server stops answering without closing: a ping of the client's own finds it out."""
    server = serve("--ping-interval", "0.3", "--ping-timeout", "60")
    begin(page, server, timeout=300)
    page.wait_for_function(UNTIL_OPEN)
    with server.frozen():
        page.wait_for_function("() => states.some(({ state }) => state === 'waiting')")
    page.wait_for_function(UNTIL_OPEN)


def test_a_listener_that_fails_disturbs_nobody(
    page: Page, serve: Callable[..., ServerProcess], tokens: Tokens
) -> None:
    begin(page, serve())
    page.evaluate("""() => {
        globalThis.caught = [];
        addEventListener("error", (event) => { caught.push(event.message); event.preventDefault(); });
        wire.on("message", () => { throw new Error("mine"); });
        const off = wire.on("message", ({ data }) => told.push("second " + data));
        wire.on("message", () => off());
    }""")
    page.evaluate("wire.join('lobby')")
    page.evaluate("(async () => { await wire.send('lobby', 1); await wire.send('lobby', 2); })()")
    page.wait_for_function("() => caught.length === 2")
    assert page.evaluate("told.filter((entry) => typeof entry === 'string')") == ["second 1"]
    assert "mine" in page.evaluate("caught[0]")
