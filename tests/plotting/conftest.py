"""Pages are tested in a browser, which sees what a reader sees."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="session")
def browser() -> Iterator:
    api = pytest.importorskip("playwright.sync_api", reason="pages are tested in a browser, driven by playwright")
    if CHROMIUM is None:
        pytest.skip("pages are tested in Chromium, which is not installed")
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser) -> Iterator:
    """Opens a page, which may say nothing on the console and ask for nothing but itself."""
    contexts, said, asked, opened = [], [], [], []

    def open_page(path: Path, **options):
        context = browser.new_context(viewport=options.pop("viewport", {"width": 1400, "height": 900}), **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # milliseconds; a busy machine may take long
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        opened.append(path.as_uri())
        page.goto(path.as_uri())
        return page

    open_page.said = said
    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == opened
