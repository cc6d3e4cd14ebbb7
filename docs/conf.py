"""The site: lessons with their stored outputs, guides, the API.

    sphinx-build -W --keep-going -b html docs docs/_build/html

It is built offline; a broken link fails it.
"""

from __future__ import annotations

import re
import shutil
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

DOCS = Path(__file__).resolve().parent
# the pages' own checkout
sys.path[:0] = [str(DOCS.parent / folder) for folder in ("docs", "notebooks", "exporters", "")]

import course as lessons  # noqa: E402
import make_map  # noqa: E402
from lesson_pages import page_of  # noqa: E402

from tensormask_edu import __version__  # noqa: E402

project = "tensormask_edu"
release = __version__
# mathjax-offline: formulas without a network, from the site itself
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx_copybutton", "sphinx-mathjax-offline"]
myst_enable_extensions = ["dollarmath"]
copybutton_selector = "div:not(.output) > div.highlight pre"  # what was printed is not code
exclude_patterns = ["_build", "explorer"]
html_theme = "furo"
html_title = "tensormask_edu"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/icon.svg"
highlight_language = "text"  # of blocks that name none: shapes and lists out of docstrings
html_copy_source = False
html_show_copyright = False
nb_execution_mode = "off"  # the notebooks hold their outputs; a test keeps them current
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# The pages of the exporter need its docstrings, not its packages.
OPTIONAL = ("onnx", "onnxscript")
autodoc_mock_imports = [name for name in OPTIONAL if find_spec(name) is None]


def copy_pages(app: Any) -> None:
    """Bring notebooks, docstrings and the plugin page under the site's source."""
    lessons, rooms = DOCS / "lessons", DOCS / "api"
    for folder in (lessons, rooms):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for name, page in make_map.api().items():
        (rooms / f"{name}.md").write_text(page, encoding="utf-8")
    for notebook in sorted((DOCS.parent / "notebooks").glob("*.ipynb")):
        page = page_of(notebook, app.tags.has("explorer"))
        (lessons / notebook.name).write_text(page, encoding="utf-8")
    text = (DOCS.parent / "plugins" / "README.md").read_text(encoding="utf-8")
    (DOCS / "plugins.md").write_text(text.replace("](../docs/", "]("), encoding="utf-8")


def add_notebooks(app: Any, error: Exception | None) -> None:
    """Copy the notebooks as files, for whoever wants to run one."""
    if error is None and app.builder.format == "html":
        folder = Path(app.outdir) / "notebooks"
        folder.mkdir(exist_ok=True)
        for notebook in (DOCS.parent / "notebooks").glob("*.ipynb"):
            shutil.copyfile(notebook, folder / notebook.name)


EXPLORER = DOCS / "explorer"
BUILT = EXPLORER / "built"  # by `make explorer`; the site does without it
PARTS = (
    "index.html",
    "page.js",
    "page.css",
    "runtime.wasm.gz",
    "model.onnx.gz",
    "tensormask.html",
)
if (BUILT / "tensormask.html").is_file():
    tags.add("explorer")  # type: ignore[name-defined]  # noqa: F821 (Sphinx's own name)


def add_explorer(app: Any, error: Exception | None) -> None:
    """Copy the explorer into the site, where it was built."""
    if error is not None or app.builder.format != "html" or not app.tags.has("explorer"):
        return
    folder = Path(app.outdir) / "explorer"
    folder.mkdir(exist_ok=True)
    for name in PARTS:
        shutil.copyfile(BUILT / name, folder / name)


def inline_figure(app: Any, page: str, source: list[str]) -> None:
    """Put the home page's moving figure into it: its scripts in the page open from disk too."""
    if page != "index":
        return
    texts = [(EXPLORER / "src" / name).read_text() for name in ("shear.js", "home.js")]
    # One module of two: what they hand each other is now in one place
    script = re.sub(r"^(import .*\n|export )", "", "\n".join(texts), flags=re.M)
    style = (EXPLORER / "src" / "home.css").read_text()
    inside = f'<style>{style}</style>\n<script type="module">\n{script}</script>'
    source[0] = source[0].replace("<!-- shear -->", inside)


def link_copies(app: Any, page: str, source: list[str]) -> None:
    """Links to what was copied lead to the copy; the table of lessons is filled in."""
    source[0] = source[0].replace("](../plugins/README.md)", "](plugins.md)")
    if page in ("course", "index"):
        source[0] = source[0].replace(lessons.MAP, lessons.table("lessons/"))


def keep_layout(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Docstrings are plain text: prose is set as prose, lists and indented parts stay.

    The first paragraph is a sentence, whatever it looks like. Which file to read next is left
    out: the site has an order of its own.
    """
    first, *others = "\n".join(lines).strip("\n").split("\n\n")
    shown = [*map(as_prose, first.split("\n")), ""]
    for part in (paragraph.split("\n") for paragraph in others):
        if part[0].startswith("next: "):
            continue
        if any(line.startswith(" ") for line in part) or re.match(r"[\w, ]+: ", part[0]):
            shown += ["::", "", *(f"    {line}" for line in part), ""]
        else:
            shown += [*map(as_prose, part), ""]
    lines[:] = shown


def as_prose(line: str) -> str:
    """A line of plain text in reST: `code` as code, every other mark as itself."""
    parts = re.split(r"`([^`]+)`", line)
    escaped = [re.sub(r"([\\*`|_])", r"\\\1", text) for text in parts[::2]]
    code = [rf"\ ``{text}``\ " for text in parts[1::2]]
    return "".join(piece for pair in zip(escaped, [*code, ""], strict=True) for piece in pair)


LINKS = {  # tag, attribute
    ("a", "href"),
    ("iframe", "src"),
    ("img", "src"),
    ("link", "href"),
    ("script", "src"),
}


class Links(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key == "id" and value:
                self.anchors.add(value)
            if value and (tag, key) in LINKS:
                self.links.add(value)


def broken_links(folder: Path) -> list[str]:
    """Links within the site that lead nowhere, file or anchor."""
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    broken = []
    for page, found in pages.items():
        for link in sorted(found.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchors = pages[target].anchors | {""} if target in pages else set()
            # The explorer makes its places by script; a test holds links to their names
            named = target.parent.name == "explorer" or parts.fragment in anchors
            no_anchor = target in pages and not named
            if no_anchor or not target.exists():
                broken.append(f"{page.relative_to(folder)}: {link}")
    return broken


def check_links(app: Any, error: Exception | None) -> None:
    """Fail the build on a broken internal link."""
    from sphinx.errors import SphinxError

    if error is not None or app.builder.format != "html":
        return
    if broken := broken_links(Path(app.outdir)):
        raise SphinxError("links that lead nowhere:\n" + "\n".join(broken))


def keep_options(
    app: Any, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Mark the options in a page: a line may end after any hyphen, but not after theirs."""
    option = r'<span class="pre">(--?[a-z][^<]{0,24})</span>'
    marked = r'<span class="pre option">\1</span>'
    context["body"] = re.sub(option, marked, context.get("body", ""))


def setup(app: Any) -> None:
    """Register the steps above."""
    app.connect("builder-inited", copy_pages)
    app.connect("source-read", link_copies)
    app.connect("source-read", inline_figure)
    app.connect("html-page-context", keep_options)
    app.connect("build-finished", add_notebooks)
    app.connect("build-finished", add_explorer)  # before the links are looked at
    app.connect("autodoc-process-docstring", keep_layout)
    app.connect("build-finished", check_links)
