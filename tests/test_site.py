"""The built site, served and opened on a narrow screen: every link, picture and width."""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from conftest import ROOT
from test_live_page import CHROMIUM, EXPLORER, NARROW_PX, node, why_no_browser

SITE = ROOT / "docs" / "_build" / "html"
LEAST_PAGES = 40


def why_not() -> str:
    """Why the site cannot be opened here; "" where it can."""
    is_built = (SITE / "index.html").is_file()
    return why_no_browser() or ("" if is_built else "the site is not built: make docs")


pytestmark = [pytest.mark.long, pytest.mark.skipif(bool(why_not()), reason=why_not())]


class Quiet(SimpleHTTPRequestHandler):
    """A file server that says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Leave the terminal to the tests."""


@pytest.fixture(scope="module")
def crawled(tmp_path_factory) -> dict:
    """Every page that a link leads to, see `docs/explorer/tests/site.mjs`."""
    report = tmp_path_factory.mktemp("site") / "report.json"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        node(EXPLORER / "tests" / "site.mjs", address, str(CHROMIUM), report)
        server.shutdown()
    return json.loads(report.read_text())


def test_every_page_is_found_by_links_and_answers(crawled):
    pages = crawled["pages"]
    built = {path.name for path in SITE.rglob("*.html") if "explorer" not in path.parts}
    found = {Path(unquote(url)).name for url in pages}
    assert built - found <= {"search.html", "py-modindex.html", "genindex.html"}
    assert len(pages) >= LEAST_PAGES
    answers = crawled["files"] | {url: page["status"] for url, page in pages.items()}
    assert {url: status for url, status in answers.items() if status != 200} == {}


def test_every_link_to_a_place_in_a_page_finds_it(crawled):
    pages, lost = crawled["pages"], []
    for url, page in pages.items():
        for link in page["links"]:
            target, anchor = urldefrag(link)
            if anchor and target in pages and unquote(anchor) not in pages[target]["anchors"]:
                lost.append(f"{url}: {link}")
    assert not lost


def test_no_page_asks_another_server_or_reports_an_error(crawled):
    for url, page in crawled["pages"].items():
        assert not page["outside"] and not page["errors"], url


def test_every_page_fits_a_narrow_screen(crawled):
    wide = {url: page["width"] for url, page in crawled["pages"].items()}
    assert {url: width for url, width in wide.items() if width > NARROW_PX} == {}


def test_every_picture_is_there_and_has_words(crawled):
    pictures = [
        (url, each) for url, page in crawled["pages"].items() for each in page["images"]
    ]
    assert len(pictures) > LEAST_PAGES
    for url, each in pictures:
        assert each["isWhole"], url
        assert " " in each["alt"] and "_images" not in each["alt"], (url, each["alt"])
