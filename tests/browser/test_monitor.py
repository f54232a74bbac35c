"""The monitor page in a real browser: who is here, kicking, broadcasting, a server that goes and comes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from browser.conftest import API_KEY, ServerProcess, mint
from heartwire.testing import FramePeer

if TYPE_CHECKING:
    from playwright.sync_api import Page

SOON_MS = 2000  # in which the page shows what has happened


@pytest.fixture
def server(serve: Callable[..., ServerProcess]) -> ServerProcess:
    """A server that also knows two keys that may do less."""
    keys = ["--api-key", "reader:read:may-only-look", "--api-key", "sender:publish:may-only-send"]
    return serve(*keys, "--drain-delay", "3", "--drain-window", "0")


Connect = Callable[..., FramePeer]


@pytest.fixture
def connect(server: ServerProcess) -> Iterator[Connect]:
    """Connects clients beside the page, by the claims of their tokens."""
    with ExitStack() as peers:

        def connect(sub: str, **claims: str) -> FramePeer:
            peer = FramePeer.connect("127.0.0.1", server.port, f"/ws?token={mint(sub, **claims)}", timeout=15)
            peers.enter_context(peer)
            assert '"connected"' in (peer.receive_text() or "")
            return peer

        yield connect


def sign_in(page: Page, server: ServerProcess, key: str = API_KEY) -> None:
    """Opens the page and gives it the key."""
    page.goto(server.url)
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("#monitor:not([hidden])")


def row(page: Page, name: str) -> str:
    """The words of a client's row, which must be there soon."""
    found = page.locator("#client-rows tr", has_text=name)
    found.wait_for(timeout=SOON_MS)
    return found.inner_text()


def test_it_shows_who_comes_and_goes(page: Page, server: ServerProcess, connect: Connect) -> None:
    sign_in(page, server)
    page.get_by_text("Nobody is connected.").wait_for()
    peer = connect("dora", username="Dora")
    peer.send_text('{"action":"join_channel","channel":"garden"}')
    assert re.match(r"Dora\s+\w+\s+[01]\s+–\s+–\s+\d+ s", row(page, "Dora"))
    assert page.locator("#clients").inner_text() == "1"
    assert page.locator("#users").inner_text() == "1 user"
    page.locator("#channel-rows tr", has_text="garden").wait_for(timeout=SOON_MS)
    peer.disconnect()
    page.get_by_text("Nobody is connected.").wait_for(timeout=SOON_MS)
    page.locator("#cause-rows tr", has_text="peer gone").wait_for(timeout=SOON_MS)
    assert page.title() == "0 · heartwire"
    assert page.locator("#chart-clients path.line").count() == 1


def test_it_is_not_a_client(page: Page, server: ServerProcess) -> None:
    sign_in(page, server)
    key = {"Authorization": f"Bearer {API_KEY}"}
    assert page.request.get(server.url + "/api/health", headers=key).json()["clients"] == 0
    metrics = page.request.get(server.url + "/metrics", headers=key).text()
    assert "heartwire_connections_opened_total 0.0" in metrics


def test_it_kicks(page: Page, server: ServerProcess, connect: Connect) -> None:
    sign_in(page, server)
    peer = connect("mallory")
    row(page, "mallory")
    page.get_by_role("button", name="mallory").click()
    dialog = page.locator("#client-dialog")
    dialog.get_by_text("127.0.0.1:").wait_for()
    dialog.get_by_label("Reason").fill("too loud")
    dialog.get_by_role("button", name="Kick").click()
    kicked = json.loads(peer.receive_text() or "")
    assert (kicked["event"], kicked["data"]) == ("kicked", {"reason": "too loud"})
    assert peer.frames()[-1].close_code == 4403
    page.get_by_text("Kicked ").wait_for()
    page.locator("#cause-rows tr", has_text="kicked").wait_for(timeout=SOON_MS)


def test_it_broadcasts(page: Page, server: ServerProcess, connect: Connect) -> None:
    sign_in(page, server)
    one, other = connect("one"), connect("other")
    one.send_text('{"action":"join_channel","channel":"lobby","id":1}')
    assert "joined_channel" in (one.receive_text() or "")
    dialog = page.locator("#broadcast-dialog")
    page.get_by_role("button", name="Broadcast…").click()
    dialog.get_by_label("Data").fill('{"text": ')
    dialog.get_by_role("button", name="Send").click()
    dialog.get_by_text("Data is not JSON").wait_for()
    dialog.get_by_label("Data").fill('{"text": "tea is ready"}')
    dialog.get_by_role("button", name="Send").click()
    page.get_by_text("Sent to 2 clients.").wait_for()
    for peer in (one, other):
        event = json.loads(peer.receive_text() or "")
        assert (event["event"], event["data"]) == ("broadcast", {"text": "tea is ready"})
    page.get_by_role("button", name="Broadcast…").click()
    dialog.get_by_label("To").select_option("A channel")
    dialog.get_by_label("Name").fill("lobby")
    dialog.get_by_label("Event").fill("news")
    dialog.get_by_role("button", name="Send").click()
    page.get_by_text("Sent to 1 client.").wait_for()
    assert json.loads(one.receive_text() or "")["event"] == "news"


def test_it_finds_clients(page: Page, server: ServerProcess, connect: Connect) -> None:
    sign_in(page, server)
    peers = [connect("erin"), connect("erin"), *(connect(f"u{i}") for i in range(12))]
    peers[0].send_text('{"action":"join_channel","channel":"a/b"}')
    row(page, "u11")
    assert page.locator("#client-rows tr").count() == 10
    search = page.get_by_label("Find a client")
    search.fill("erin")
    search.press("Enter")
    page.get_by_role("button", name="“erin”").wait_for()
    assert page.locator("#client-rows tr").count() == 2
    search.fill("nobody")
    search.press("Enter")
    page.get_by_text("Nobody found.").wait_for()
    page.get_by_role("button", name="a/b").click()
    page.get_by_role("button", name="in a/b").wait_for()
    assert "erin" in page.locator("#client-rows tr").inner_text()
    page.get_by_role("button", name="Newest").click()
    assert page.locator("#client-rows tr").count() == 10


def test_it_survives_a_restart(page: Page, server: ServerProcess, connect: Connect) -> None:
    tickets: list[str] = []
    page.on("websocket", lambda socket: tickets.append(socket.url.partition("ticket=")[2]))
    sign_in(page, server)
    page.get_by_text("live", exact=True).wait_for()
    server.kill()
    page.get_by_text("Server not reached").wait_for()
    server.start()
    page.get_by_text("live", exact=True).wait_for()
    connect("frank")
    row(page, "frank")
    assert len(tickets) == len(set(tickets)) == 2
    assert page.locator("#opened").inner_text() not in ("", "–")


def test_a_draining_server_says_so(page: Page, server: ServerProcess, connect: Connect) -> None:
    sign_in(page, server)
    connect("last")  # for whom it waits
    assert server.process is not None
    server.process.terminate()
    page.get_by_text("draining").wait_for()
    page.get_by_text("Server not reached").wait_for()


def test_the_key_stays_in_the_tab(page: Page, server: ServerProcess) -> None:
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.on("websocket", lambda socket: addresses.append(socket.url))
    sign_in(page, server)
    assert page.evaluate("sessionStorage.length") == 1
    assert page.evaluate("localStorage.length") == 0
    assert page.context.cookies() == []
    assert not any(API_KEY in address for address in addresses)
    assert page.get_by_label("API key").input_value() == ""
    page.reload()
    page.wait_for_selector("#monitor:not([hidden])")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("API key").wait_for()
    assert page.evaluate("sessionStorage.length") == 0
    assert page.locator("#monitor").is_hidden()


def test_keys_that_do_not_do(page: Page, server: ServerProcess) -> None:
    for key, words in (("wrong", "does not know this key"), ("may-only-send", "lacks the scope 'read'")):
        page.goto(server.url)
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text(words).wait_for()
        assert page.evaluate("sessionStorage.length") == 0


def test_a_key_that_may_only_look(page: Page, server: ServerProcess, connect: Connect) -> None:
    peer = connect("quinn")
    sign_in(page, server, "may-only-look")
    row(page, "quinn")
    page.get_by_role("button", name="quinn").click()
    page.locator("#client-dialog").get_by_role("button", name="Kick").click()
    page.locator("#client-dialog").get_by_text("lacks the scope 'admin'").wait_for()
    peer.send_text('{"action":"ping","id":1}')
    assert '"pong"' in (peer.receive_text() or "")


def test_a_name_is_text(page: Page, server: ServerProcess, connect: Connect) -> None:
    """What clients call themselves is shown, and is never markup."""
    sign_in(page, server)
    name = "<img src=x onerror=alert(1)><b>bold"
    peer = connect("trudy", username=name)
    assert name in row(page, "<b>bold")
    page.get_by_role("button", name="bold").click()
    page.locator("#client-title", has_text=name).wait_for()
    assert page.locator("#client-rows b, #client-dialog b, img").count() == 0
    peer.disconnect()


@pytest.mark.parametrize(("width", "height"), [(390, 844), (320, 640), (768, 1024), (1920, 1080)])
def test_nothing_sticks_out(
    page: Page, server: ServerProcess, connect: Connect, width: int, height: int
) -> None:
    page.set_viewport_size({"width": width, "height": height})
    sign_in(page, server)
    long = connect("x" * 128, username="a-very-long-name-" * 7)
    long.send_text(json.dumps({"action": "join_channel", "channel": "c" * 200}))
    row(page, "a-very-long-name")
    page.locator("#channel-rows tr", has_text="ccc").wait_for()
    inner, full = page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    assert full <= inner
    page.get_by_role("button", name="a-very-long-name").click()
    page.locator("#client-dialog").wait_for()
    box = page.locator("#client-dialog").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
