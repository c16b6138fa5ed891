"""The status page shows what callers send, to operators only, and runs nothing but its own script."""

import re
from pathlib import Path

from playwright.async_api import expect

from proxy.edge import status
from proxy.simulator import Simulator
from tests.monitoring.browser import PATIENCE, Look
from tests.reload.conftest import StartLive, one

PAGE = Path(status.__file__).with_name("status.html").read_text(encoding="utf-8")
HOSTILE = '<img src=x onerror="window.hacked = true"><script>window.hacked = true</script>'
TOKEN = "only-for-operators-0123456789"


def test_the_page_is_whole_and_builds_nothing_from_text() -> None:
    """One style, one script, no address of anybody else, and no way for a name to become anything but text."""
    assert re.findall(r"<(style|script)\b([^>]*)>", PAGE) == [
        ("style", ' nonce="__NONCE__"'), ("script", ' nonce="__NONCE__"')
    ]  # fmt: skip
    assert PAGE.count("__NONCE__") == 2
    for pattern in (r"https?:", r"\burl\(", r"@import", r"<link", r"<img", r"\sstyle=", r"\son[a-z]+="):
        assert not re.search(pattern, PAGE), pattern
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "localStorage",
    ):
        assert word not in PAGE
    assert len(PAGE.encode()) <= 40 * 1024


async def test_the_policy_lets_nothing_else_run(live: StartLive, simulator: Simulator) -> None:
    """Each answer has a nonce of its own, and the headers that keep the page to itself."""
    sidecar, nonces = await live(one(simulator)), set()
    for _ in range(2):
        async with sidecar.http.get(sidecar.admin_url) as response:
            text, policy = await response.text(), response.headers["content-security-policy"]
        (nonce,) = set(re.findall(r'nonce="([^"]+)"', text))
        nonces.add(nonce)
        assert policy.startswith("default-src 'none'; ")
        assert policy.count(f"'nonce-{nonce}'") == 2
        assert "unsafe" not in policy
        assert response.headers["cache-control"] == "no-store"
    assert len(nonces) == 2


async def test_the_token_is_asked_for_and_kept_in_the_tab(live: StartLive, look: Look, simulator: Simulator) -> None:
    """Who is not on this machine types it once; a wrong one is refused; no other tab, and no address, has it."""
    sidecar = await live(one(simulator, server={"admin_token": TOKEN}))
    elsewhere = f"http://octet.test:{sidecar.app.admin}".replace("127.0.0.1:", "")
    view = await look(elsewhere)
    await expect(view.at("#token")).to_be_focused(timeout=PATIENCE)
    await view.shows("#state", "locked")
    await view.at("#token").fill("a wrong one")
    await view.at("#token").press("Enter")
    await view.shows("#door-text", "refuses")
    await view.at("#token").fill(TOKEN)
    await view.at("#door button").click()
    await view.is_live()
    await expect(view.at("#door")).to_be_hidden()
    await view.page.reload()
    await view.is_live()
    assert await view.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    assert TOKEN not in "".join([view.page.url, *view.requests])
    other = await look(elsewhere)
    await other.shows("#state", "locked")
    for each in (view, other):
        each.allowed("status of 403")


async def test_what_callers_send_stays_text(live: StartLive, look: Look, simulator: Simulator) -> None:
    """A model's name with tags in it is shown letter by letter."""
    sidecar = await live(one(simulator))
    view = await look(sidecar.admin_url)
    await sidecar.told(HOSTILE)
    summary = view.at("#calls summary")
    await expect(summary).to_contain_text(HOSTILE, timeout=PATIENCE)
    await summary.click()
    await expect(view.at("#calls dd").filter(has_text=HOSTILE)).to_be_visible()
    assert await view.evaluate("[document.images.length, document.scripts.length, String(window.hacked)]") == [
        0, 1, "undefined"
    ]  # fmt: skip
