"""How the monitor page can be read and used: contrast, the keyboard, the pointer, what is out of date."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from browser.conftest import API_KEY, ServerProcess
from browser.test_monitor import Connect, connect, row, server, sign_in

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["connect", "server"]

# What is shown, each with its contrast to what is behind it (WCAG 2.2, 1.4.3 and 1.4.11).
CONTRASTS = """() => {
    const parse = (color) => {
        const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number);
        return [r, g, b, a];
    };
    const over = (front, back) => [0, 1, 2].map((i) => front[i] * front[3] + back[i] * (1 - front[3]));
    const light = ([r, g, b]) => {
        const linear = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
        const [x, y, z] = [r, g, b].map(linear);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
    const tint = parse(getComputedStyle(document.documentElement).getPropertyValue("--tint"));
    tint[3] /= 100;  // written in percent
    const behind = (element) => {
        if (!element) return [255, 255, 255, 1];
        const style = getComputedStyle(element);
        const color = parse(style.backgroundColor);
        const below = color[3] === 1 ? color : over(color, behind(element.parentElement));
        // A bar across the row: the text stands on it.
        return style.backgroundImage === "none" ? below : over(tint, below);
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        const text = walker.currentNode.data.trim();
        if (!text || !element.checkVisibility() || !element.getClientRects().length) continue;
        const style = getComputedStyle(element);
        const color = parse(element instanceof SVGElement ? style.fill : style.color);
        found.push([text, ratio(over(color, behind(element)), behind(element)), 4.5]);
    }
    for (const field of document.querySelectorAll("input, select, textarea")) {
        if (!field.checkVisibility()) continue;
        const border = parse(getComputedStyle(field).borderTopColor);
        found.push([`the border of ${field.id}`, ratio(border, behind(field.parentElement)), 3]);
        if (!field.placeholder) continue;
        const hint = parse(getComputedStyle(field, "::placeholder").color);
        found.push([`the placeholder of ${field.id}`, ratio(hint, behind(field)), 4.5]);
    }
    return found;
}"""


def check_contrasts(page: Page, at_least: int) -> None:
    """Everything that is shown can be read; and so much is."""
    found = page.evaluate(CONTRASTS)
    assert len(found) >= at_least
    assert [entry for entry in found if entry[1] < entry[2]] == []


@pytest.fixture(params=["light", "dark"])
def schemed(request: pytest.FixtureRequest, page: Page) -> Page:
    """A page under a system that is light or dark."""
    page.emulate_media(color_scheme=request.param)
    return page


def test_everything_can_be_read(schemed: Page, server: ServerProcess, connect: Connect) -> None:
    page = schemed
    page.goto(server.url)
    page.get_by_label("API key").wait_for()
    check_contrasts(page, 6)
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("does not know this key").wait_for()
    check_contrasts(page, 6)
    sign_in(page, server)
    page.get_by_text("Nobody is connected.").wait_for()
    check_contrasts(page, 40)
    peer = connect("dora")
    peer.send_text('{"action":"join_channel","channel":"garden"}')
    peer.send_text('{"action":"dance"}')
    connect("gone").disconnect()
    row(page, "dora")
    page.locator("#cause-rows tr", has_text="peer gone").wait_for()
    page.locator("#refusal-rows tr", has_text="error unknown action").wait_for()
    page.locator("#channel-rows tr", has_text="garden").wait_for()
    check_contrasts(page, 60)
    page.get_by_role("button", name="dora").click()
    page.locator("#client-dialog").get_by_text("127.0.0.1:").wait_for()
    check_contrasts(page, 70)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Broadcast…").click()
    check_contrasts(page, 70)
    page.keyboard.press("Escape")
    server.kill()
    page.get_by_text("Server not reached").wait_for()
    status = [entry for entry in page.evaluate(CONTRASTS) if entry[0].startswith("Server not reached")]
    assert status[0][1] >= 4.5


def test_the_keyboard_is_enough(page: Page, server: ServerProcess, connect: Connect) -> None:
    page.goto(server.url)
    peer = connect("olga")
    page.get_by_label("API key").wait_for()
    page.keyboard.type(API_KEY)  # the field has the focus
    page.keyboard.press("Enter")
    row(page, "olga")

    def focused() -> str:
        name = "({ activeElement: { textContent, ariaLabel } }) => (textContent || ariaLabel).trim()"
        text: str = page.evaluate(f"({name})(document)")
        return text

    # Once around: everything can be reached, in the order in which it stands there, and the focus is seen.
    seen: list[str] = []
    while "Sign out" not in seen or focused() != "olga":
        page.keyboard.press("Tab")
        seen.append(focused())
        assert len(seen) < 30, seen
        if page.evaluate("document.activeElement !== document.body"):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
            assert outline == "2px", f"no mark of the focus at {seen[-1]}"
    order = ["Broadcast…", "Sign out", "Newest", "Slowest", "Find a client", "olga"]
    assert seen[seen.index("Broadcast…") :] == order
    other = connect("petra")  # a row above it
    row(page, "petra")
    assert focused() == "olga"
    page.keyboard.press("Enter")
    page.locator("#client-dialog[open]").wait_for()
    page.get_by_label("Reason, told to the client").focus()
    page.keyboard.type("go")
    page.keyboard.press("Escape")
    page.locator("#client-dialog[open]").wait_for(state="detached")
    assert focused() == "olga", "where it was before the dialog"
    page.keyboard.press("Enter")
    page.locator("#client-dialog[open]").wait_for()
    page.get_by_label("Reason, told to the client").focus()
    page.keyboard.type("go")
    page.keyboard.press("Enter")
    assert json.loads(peer.receive_text() or "")["data"] == {"reason": "go"}
    page.get_by_text("Kicked ").wait_for()
    other.disconnect()


def test_a_client_is_shown_again_at_once(page: Page, server: ServerProcess, connect: Connect) -> None:
    """The event that tells of a dialog's end comes after the click that asks for the next."""
    peer = connect("olga")
    sign_in(page, server)
    page.locator("#client-rows [data-id]").click()
    page.locator("#client-dialog[open]").wait_for()
    page.evaluate("""() => {
        document.getElementById("client-dialog").close();
        document.querySelector("#client-rows [data-id]").click();
    }""")
    page.locator("#client-dialog[open]").wait_for()
    page.get_by_role("button", name="Kick").click()
    assert json.loads(peer.receive_text() or "")["event"] == "kicked"


def test_a_row_that_moves_keeps_the_focus(page: Page, server: ServerProcess) -> None:
    sign_in(page, server)
    kept = page.evaluate("""async () => {
        const { rows } = await import("/lists.js");
        const body = document.createElement("tbody");
        document.body.append(body);
        const show = (names) => rows(body, names, (name) => name, (name) => [{ button: name, id: name }]);
        show(["a", "b", "c"]);
        body.querySelector("[data-id=c]").focus();
        show(["c", "a", "d"]);
        return [document.activeElement.dataset.id, [...body.rows].map((row) => row.textContent)];
    }""")
    assert kept == ["c", ["c", "a", "d"]]


def test_the_pointer_asks_what_was(page: Page, server: ServerProcess, connect: Connect) -> None:
    sign_in(page, server)
    for name in ("one", "two", "three"):
        connect(name)
    legend = page.locator("figure", has=page.locator("#chart-clients")).locator(".legend")
    page.wait_for_function("() => document.querySelector('[data-key=clients]').textContent === '3'")
    page.wait_for_function("() => document.querySelectorAll('#chart-clients path.line').length === 1")
    box = page.locator("#chart-clients").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 60, box["y"] + 60)  # far in the past: the first that is known
    assert page.locator("#chart-clients .at").count() == 1
    page.wait_for_function("() => / ago/.test(document.querySelector('.when').textContent)")
    assert legend.locator("b").inner_text() == "0"
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 60)
    assert legend.locator("b").inner_text() == "3"
    assert legend.locator(".when").inner_text() == ""
    page.mouse.move(0, 0)
    assert page.locator("#chart-clients .at").count() == 0


def test_what_is_out_of_date_is_faint(page: Page, server: ServerProcess) -> None:
    sign_in(page, server)
    page.get_by_text("live", exact=True).wait_for()
    sections = "[...document.querySelectorAll('#monitor > section')]"
    opacity = f"() => {sections}.map((section) => getComputedStyle(section).opacity)"
    assert set(page.evaluate(opacity)) == {"1"}
    server.kill()
    page.get_by_text("Server not reached").wait_for()
    assert set(page.evaluate(opacity)) == {"0.55"}
    assert page.title() == "not reached · heartwire"
    server.start()
    page.get_by_text("live", exact=True).wait_for()
    assert set(page.evaluate(opacity)) == {"1"}
    assert page.title() == "0 · heartwire"


# Pairs of labels of one place that lie over each other, or touch.
OVERLAPS = """(what) => [...document.querySelectorAll(what)].flatMap((place) => {
    const labels = [...place.querySelectorAll("text, span:not(:empty)")];
    const boxes = labels.map((label) => [label.textContent, label.getBoundingClientRect()]);
    const beside = (x, y) => x.left < y.right + 3 && y.left < x.right + 3;
    const near = (x, y) => beside(x, y) && x.top < y.bottom && y.top < x.bottom;
    const behind = (i, x) => boxes.slice(i + 1).filter(([, y]) => near(x, y));
    return boxes.flatMap(([a, x], i) => behind(i, x).map(([b]) => [a, b]));
})"""


@pytest.mark.parametrize("width", [320, 390, 1440])
def test_labels_do_not_run_into_each_other(
    browser: Browser, server: ServerProcess, connect: Connect, width: int
) -> None:
    """Ticks of the charts, and the words of the legends."""
    context = browser.new_context(viewport={"width": width, "height": 844})
    page = context.new_page()
    sign_in(page, server)
    connect("vera")
    row(page, "vera")
    assert page.locator("svg .tick").count() > 30
    assert page.evaluate(OVERLAPS, "figure svg") == []
    assert page.evaluate(OVERLAPS, "figure .legend") == []
    context.close()
