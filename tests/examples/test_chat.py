"""The chat in a real browser.

HEARTWIRE_SCREENSHOTS=DIR keeps pictures of it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from examples.processes import PATIENCE_S, free_port, running

CHAT = Path(__file__).parents[2] / "examples" / "chat" / "server.py"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium, Debian's or what CHROMIUM names."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.fail("no Chromium: apt-get install chromium, or set CHROMIUM to its path")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program,
            headless=True,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        await browser.close()


class Room:
    """The chat server's ports and log, and its process while it runs."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.port, self.page_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.page_port}/"

    @contextmanager
    def open(self) -> Iterator[None]:
        arguments = [str(CHAT), "--port", str(self.port), "--page-port", str(self.page_port)]
        with running(arguments, self.page_port, self.log):
            yield

    async def logged(self, text: str) -> None:
        """Returns once its log holds this."""
        async with asyncio.timeout(PATIENCE_S):
            while text not in self.log.read_text():
                await asyncio.sleep(0.05)


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path / "log")


@asynccontextmanager
async def visitor(browser: Browser, room: Room, name: str, **options: Any) -> AsyncIterator[Page]:
    """A page in a browser profile of its own, after its login. It may not complain on its console."""
    context: BrowserContext = await browser.new_context(**options)
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(room.url)
    await page.get_by_label("Your name").fill(name)
    await page.get_by_role("button", name="Join").click()
    await expect(page.get_by_role("status")).to_have_text("Connected")
    yield page
    assert complaints == []
    if not page.is_closed():
        await context.close()


async def say(page: Page, text: str) -> None:
    await page.get_by_label("Message", exact=True).fill(text)
    await page.keyboard.press("Enter")


async def picture(page: Page, name: str) -> None:
    if directory := os.environ.get("HEARTWIRE_SCREENSHOTS"):
        await page.screenshot(path=Path(directory, f"{name}.png"))


async def test_chat_between_two_pages(browser: Browser, room: Room) -> None:
    dark_phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}
    with room.open():
        async with (
            visitor(browser, room, "Ada") as ada,
            visitor(browser, room, "Grace", **dark_phone) as grace,
        ):
            for page in (ada, grace):
                await expect(page.locator("#members .name")).to_have_text(["Ada", "Grace"])
            await expect(ada.locator(".notice")).to_have_text(["Grace joined"])
            await say(ada, "Hello Grace, is the compiler done?")
            await expect(grace.locator(".message .bubble")).to_have_text("Hello Grace, is the compiler done?")
            await expect(grace.locator(".message .author")).to_have_text("Ada")
            await expect(ada.locator(".message.own .author")).to_have_text("You")
            await say(grace, "Nearly. <b>Markup</b> is text here, and https://example.com/a?b=c too.")
            await say(grace, "Found a moth in it this morning!")
            await expect(ada.locator(".message:not(.own) .bubble")).to_have_text([
                "Nearly. <b>Markup</b> is text here, and https://example.com/a?b=c too.",
                "Found a moth in it this morning!",
            ])
            assert await ada.locator(".bubble b").count() == 0
            await say(ada, "Then it is a feature. Shall we write it down before somebody else finds it?")
            await expect(grace.locator(".message")).to_have_count(4)
            # A phone shows everything without scrolling sideways.
            assert await grace.evaluate("document.documentElement.scrollWidth") == 390
            await picture(ada, "wide-light")
            await picture(grace, "phone-dark")
            await grace.get_by_role("button", name="Leave").click()
            await expect(ada.locator("#members .name")).to_have_text(["Ada"])
            await expect(grace.get_by_label("Your name")).to_be_visible()
            await picture(grace, "login-phone-dark")
            await room.logged("Grace left: client_closed")


async def test_chat_survives_a_server_restart(browser: Browser, room: Room) -> None:
    with room.open():
        ada_visits = visitor(browser, room, "Ada")
        grace_visits = visitor(browser, room, "Grace")
        ada, grace = await ada_visits.__aenter__(), await grace_visits.__aenter__()
        await expect(ada.locator("#members .name")).to_have_text(["Ada", "Grace"])
    for page in (ada, grace):
        await expect(page.get_by_role("status")).to_have_text("Reconnecting…")
    with room.open():
        for page in (ada, grace):
            await expect(page.get_by_role("status")).to_have_text("Connected", timeout=PATIENCE_S * 1000)
            await expect(page.locator("#members .name")).to_have_text(["Ada", "Grace"])
        await say(grace, "Back again")
        await expect(ada.locator(".message .bubble")).to_have_text("Back again")
        await grace_visits.__aexit__(None, None, None)
        await ada_visits.__aexit__(None, None, None)


async def test_a_tab_that_closes_is_gone_from_the_room(browser: Browser, room: Room) -> None:
    with room.open():
        async with visitor(browser, room, "Ada") as ada, visitor(browser, room, "Grace") as grace:
            await expect(ada.locator("#members .name")).to_have_text(["Ada", "Grace"])
            await grace.close(run_before_unload=False)
            await expect(ada.locator("#members .name")).to_have_text(["Ada"])
            await expect(ada.locator(".notice")).to_have_text(["Grace joined", "Grace left"])
            await say(ada, "Alone now")
            await expect(ada.locator(".message.own .bubble")).to_have_text("Alone now")
        await room.logged("Ada left: ")


async def test_names_that_are_refused_say_so(browser: Browser, room: Room) -> None:
    with room.open():
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(room.url)
        await page.get_by_label("Your name").fill("a\N{ZERO WIDTH SPACE}b")
        await page.get_by_role("button", name="Join").click()
        await expect(page.get_by_role("alert")).to_have_text("A name has 1 to 24 printable characters.")
        await context.close()
