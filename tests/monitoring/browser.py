"""A browser that looks at the status page, and notes what a person would not see: errors, and requests."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from tests.programs import tool
from tests.reload.conftest import StartLive

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
PATIENCE = 15_000.0  # milliseconds, on a busy machine
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP octet.test 127.0.0.1",  # a name that is none of this machine's
)  # fmt: skip

# The texts that a person cannot read well, by WCAG 2.1 AA (1.4.3); colours with alpha do not occur.
UNREADABLE = """() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => parts(color).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if (parts(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility() || element.closest("script, option")) continue;
    const [low, high] = [getComputedStyle(element).color, behind(element)].map(light).sort((one, other) => one - other);
    if ((high + 0.05) / (low + 0.05) < 4.5) found.push(texts.currentNode.data.trim());
  }
  return found;
}"""


@dataclass
class View:
    """One open page."""

    page: Page
    origin: str
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note what happens from now on."""
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on(
            "console", lambda told: self.errors.append(told.text) if told.type in ("error", "warning") else None
        )
        self.page.on("request", lambda request: self.requests.append(request.url))

    def at(self, selector: str) -> Locator:
        """What is there."""
        return self.page.locator(selector)

    async def shows(self, selector: str, text: str) -> None:
        """Wait until it has this text in it."""
        await expect(self.at(selector)).to_contain_text(text, timeout=PATIENCE)

    async def is_live(self) -> None:
        """Wait until events come."""
        await self.shows("#state", "live")

    async def counts(self, identity: str, value: object) -> None:
        """Wait until a number is this one."""
        await expect(self.at(f"#{identity}")).to_have_attribute("data-value", str(value), timeout=PATIENCE)

    async def number(self, identity: str) -> float:
        """A number, not as it is written for people."""
        return float(await self.at(f"#{identity}").get_attribute("data-value") or "nan")

    async def evaluate(self, script: str) -> Any:
        """What a script finds; the page's own policy does not stop it."""
        return await self.page.evaluate(script)

    async def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(await self.evaluate("document.documentElement.scrollWidth - window.innerWidth"))

    def allowed(self, *reasons: str) -> None:
        """Take errors off the list that had to come: those that say one of these."""
        self.errors = [error for error in self.errors if not any(reason in error for reason in reasons)]

    def check(self) -> None:
        """Nothing went wrong, and nothing else was asked for."""
        assert self.errors == []
        assert {f"{urlsplit(url).scheme}://{urlsplit(url).netloc}" for url in self.requests} == {self.origin}
        assert {urlsplit(url).path for url in self.requests} == {"/", "/admin/live"}


def quantile(share: float, buckets: Mapping[float, float]) -> float:
    """A quantile as Prometheus estimates it.

    Args:
        buckets: how many values were up to each bound, the last of which is infinite.

    Source: Prometheus, querying/functions, histogram_quantile.
    """
    bounds = sorted(buckets)
    rank = share * buckets[bounds[-1]]
    place = next(place for place, bound in enumerate(bounds) if buckets[bound] >= rank)
    if place == len(bounds) - 1:
        return bounds[-2]
    start, before = (bounds[place - 1], buckets[bounds[place - 1]]) if place else (0.0, 0.0)
    return start + (bounds[place] - start) * (rank - before) / (buckets[bounds[place]] - before)


Look = Callable[..., Awaitable[View]]


@pytest.fixture
async def browser(live: StartLive) -> AsyncIterator[Browser]:
    """A browser, which has gone before the sidecars do."""
    program = tool("chromium", "chromium-browser")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield started
        await started.close()


@pytest.fixture
async def look(browser: Browser) -> AsyncIterator[Look]:
    """Opens pages; at the end none may have met an error, or have asked anybody but its sidecar."""
    views: list[View] = []

    async def opened(origin: str, *, size: Any = WIDE, scheme: Any = "light") -> View:
        context = await browser.new_context(viewport=size, color_scheme=scheme)
        views.append(View(await context.new_page(), origin))
        views[-1].watch()
        await views[-1].page.goto(f"{origin}/")
        return views[-1]

    yield opened
    for view in views:
        await view.page.context.close()
    for view in views:
        view.check()
