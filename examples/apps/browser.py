"""A real browser that stays open: what one call types, the next one finds on the page.

warmpool run examples/apps/browser.py start --session new

Then, in the same session, `open` a page, `click`, `type`, and take a `screenshot`. It is the Chromium that the system
has, moved by Playwright, which waits until what is to be clicked is there. The functions are `async def`, since
nearly all of it is waiting: the worker's loop runs on meanwhile, and between calls, and hears the browser as well as
the daemon.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated, Any

from playwright.async_api import Browser as Chromium
from playwright.async_api import Page, Playwright, async_playwright
from pydantic import Field

from warmpool import BaseApp

NAMES = ("chromium", "chromium-browser", "google-chrome")
PAGE_PATIENCE = 60
"""Seconds for a page to load."""

Seconds = Annotated[float, Field(gt=0, le=300)]


class Browser(BaseApp):
    def setup(self) -> None:
        self.playwright: Playwright | None = None
        self.chromium: Chromium | None = None
        self.page: Page | None = None

    async def start(
        self,
        executable: Path | None = None,
        width: Annotated[int, Field(ge=1, le=10_000)] = 1280,
        height: Annotated[int, Field(ge=1, le=10_000)] = 720,
        patience: Seconds = 10,
    ) -> dict[str, Any]:
        """Opens the browser, anew if it is open. What is to be clicked may take `patience` seconds to be there."""
        await self.stop()
        program = executable or next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            raise FileNotFoundError(f"there is no Chromium here: install one, or name it as `executable` ({NAMES})")
        self.playwright = await async_playwright().start()
        self.chromium = await self.playwright.chromium.launch(
            executable_path=program,
            chromium_sandbox=os.geteuid() != 0,  # as root Chromium has none
        )
        self.page = await self.chromium.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(patience * 1000)
        self.page.set_default_navigation_timeout(PAGE_PATIENCE * 1000)
        return {"executable": str(program), "version": self.chromium.version}

    async def open(self, url: str) -> dict[str, Any]:
        """Goes to a page, and returns when it is loaded."""
        page = self._open_page()
        response = await page.goto(url)
        return {"url": page.url, "title": await page.title(), "status": response and response.status}

    async def click(self, selector: str) -> dict[str, str]:
        """Clicks on the element, once it is there and can be clicked: `#id`, `text=Send`, `form button`. If that leads
        to another page, returns when it is loaded.
        """
        page = self._open_page()
        await page.click(selector)
        await page.wait_for_load_state()
        return {"url": page.url, "title": await page.title()}

    async def type(self, selector: str, text: str) -> str:
        """Types into the field, key by key, behind what it holds. → all that it holds then."""
        field = self._open_page().locator(selector)
        await field.press_sequentially(text)
        return await field.input_value()

    async def title(self) -> str:
        return await self._open_page().title()

    async def text(self, selector: str = "body") -> str:
        """What can be read there."""
        return await self._open_page().inner_text(selector)

    async def screenshot(self, *, full_page: bool = False) -> bytes:
        """PNG of what is in view; with `full_page`, of what one would have to scroll to as well."""
        return await self._open_page().screenshot(full_page=full_page)

    async def stop(self) -> None:
        """Closes the browser. The session's end does that as well."""
        chromium, playwright = self.chromium, self.playwright
        self.chromium = self.playwright = self.page = None
        if chromium is not None:
            await chromium.close()
        if playwright is not None:
            await playwright.stop()

    async def on_end(self, reason: str) -> None:
        await self.stop()

    async def unload(self) -> None:
        await self.stop()  # there is no `on_end` where no session was

    def _open_page(self) -> Page:
        if self.page is None or self.chromium is None:
            raise RuntimeError("the browser is not open: call `start` first")
        if not self.chromium.is_connected():
            raise RuntimeError("the browser has died: call `start` to open another")
        return self.page
