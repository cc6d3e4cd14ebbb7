"""The map of the repository, from the docstrings: the README's tree and reading.md.

    python docs/make_map.py            write them
    python docs/make_map.py --check    1 if they are not what the docstrings say

The first line of a module's docstring says what it is; `next: ...` at its end names the module
to read after it. The chain begins at geometry.py and visits every module once. The site's pages
of docstrings, `api()`, follow it.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "tensormask_edu": ROOT / "tensormask_edu",
    "tensormask_export": ROOT / "exporters" / "tensormask_export",
}
FIRST, LAST = "tensormask_edu/geometry.py", "tensormask_export/cli.py"
WORDS_FROM = 29  # column where the tree's words begin
COLUMNS = 96

# What nobody calls: parsers of commands, a child process, the lessons' own data
NOT_CALLED = {
    "tensormask_edu/cli.py",
    "tensormask_edu/learn/lessons",
    "tensormask_export/cli.py",
    "tensormask_export/engine/child.py",
}

# What has no docstring: path -> words, after the packages
OTHERS = {
    "exporters/cpp/": "The same without Python: one executable; start with run.cpp",
    "exporters/docker/": "The exporter, the runner and Triton on NVIDIA's images; not run",
    "plugins/swap_align2nat/": "Native: core.h, and plain.cu, the kernel to read first",
    "  cpu/": "The library for this processor",
    "  gpu/": "The CUDA kernels, of the torch op and the plugin alike",
    "  ptx/": "A GPU's code, executed on a CPU",
    "  tensorrt/": "The plugin",
    "notebooks/": "The lessons",
    "tests/": "What holds, and where from; gpu/ needs a GPU, mutation/ tests them",
    "benchmarks/": "Timings as ratios, results with device and date; gpu/ the GPU day",
    "docs/": "The site, and log.md: what was tried and did not pay",
    "  explorer/": "The model live in the browser, in JavaScript",
}


def docstring(path: Path) -> str:
    """A module's docstring."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def words(path: Path) -> str:
    """What a module or a room is, in one line: the first of its docstring."""
    return docstring(path / "__init__.py" if path.is_dir() else path).split("\n")[0].rstrip(".")


def sentence(path: Path) -> str:
    """The same with its full stop, or its question mark."""
    return words(path) if words(path).endswith("?") else f"{words(path)}."


def modules() -> dict[str, Path]:
    """Every module by its name in the chain, `tensormask_edu/detector/model.py`."""
    return {
        f"{package}/{path.relative_to(folder)}": path
        for package, folder in PACKAGES.items()
        for path in sorted(folder.rglob("*.py"))
        if not path.name.startswith("__")
    }


def chain() -> list[str]:
    """The modules in the order of reading, as their docstrings name one another.

    Raises:
        ValueError: a module that names none or one that is not there, or a second visit.
    """
    known, order = modules(), [FIRST]
    while order[-1] != LAST:
        found = re.search(r"^next: (\S+)$", docstring(known[order[-1]]), re.M)
        if not found:
            raise ValueError(f"{order[-1]} names no next module")
        inside = found[1].split("/")[0] in PACKAGES
        name = found[1] if inside else f"{order[-1].split('/')[0]}/{found[1]}"
        if name not in known or name in order:
            raise ValueError(f"{order[-1]}: next is {name}, unknown or visited before")
        order.append(name)
    return order


def tree() -> str:
    """Rooms in the order of reading, each with its files."""
    lines = []
    for package, folder in PACKAGES.items():
        shown = f"{folder.relative_to(ROOT)}/"
        lines.append(_line(shown, words(folder)))
        inside = [name.split("/", 1)[1] for name in chain() if name.startswith(f"{package}/")]
        for entry in dict.fromkeys(name.split("/")[0] for name in inside):
            is_room = (folder / entry).is_dir()
            lines.append(_line(f"  {entry}{'/' if is_room else ''}", words(folder / entry)))
            if is_room:
                lines += _wrapped(_files(inside, entry))
    return "\n".join([*lines, *(_line(path, text) for path, text in OTHERS.items())])


def _folder(room: str) -> Path:
    package, *inside = room.split("/")
    return PACKAGES[package].joinpath(*inside)


def _files(inside: list[str], room: str) -> Iterator[str]:
    """The files of a room in the order of reading; a folder inside it by its own name."""
    parts = (name.split("/")[1:] for name in inside if name.startswith(f"{room}/"))
    names = (part[0] + ("/" if len(part) > 1 else "") for part in parts)
    return (name.removesuffix(".py") for name in dict.fromkeys(names))


def _line(path: str, text: str) -> str:
    return f"{path:{WORDS_FROM}}{text}"


def _wrapped(names: Iterator[str]) -> list[str]:
    lines = ["   "]
    for name in names:
        if len(lines[-1]) + len(name) >= COLUMNS:
            lines.append("   ")
        lines[-1] += f" {name}"
    return lines


def reading() -> str:
    """The page with the chain: every module with its line, a heading where a room begins."""
    deploy = chain().index("tensormask_export/contract.py") + 1
    parts = [
        "# Reading order\n\n"
        "One chain from the nouns to the exporter's command line. It visits every module\n"
        "once; each module's docstring names the next one. Who only deploys a model may\n"
        f"begin at number {deploy}."
    ]
    rooms = [""]
    for number, name in enumerate(chain(), start=1):
        path, room = modules()[name], str(Path(name).parent)
        if room != rooms[-1]:
            parts.append(f"\n## {room}/\n")
            if room not in rooms:  # the packages' own rooms are entered more than once
                parts.append(f"{sentence(path.parent)}\n")
            rooms.append(room)
        item, indent = f"{number}. `{name}`: {words(path)}", " " * len(f"{number}. ")
        parts += textwrap.wrap(item, COLUMNS, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(parts) + "\n"


API = """# API

Docstrings as they stand in the source: shapes, units, errors, and the paper's section. Tensors
are named by their axes, `(N, V, U, H, W)`; see the [glossary](../glossary.md). The rooms follow
the [reading order](../reading.md).

"""


def api() -> dict[str, str]:
    """Pages of docstrings, name -> text: one for every room, and `index`.

    A room that offers names stands for its modules.
    """
    known = modules()
    shown: dict[str, list[str]] = {}  # room -> what of it is shown, in the order of reading
    for name in chain():
        room = known[name].parent
        offers = "__all__ = [" in (room / "__init__.py").read_text(encoding="utf-8")
        subject = str(Path(name).parent if offers and room not in PACKAGES.values() else name)
        if not {subject, str(Path(name).parent)} & NOT_CALLED:
            shown.setdefault(str(Path(name).parent), []).append(subject)
    pages = {
        room.replace("/", "."): f"# {room}\n\n{sentence(_folder(room))}\n"
        + "".join(map(_automodule, dict.fromkeys(subjects)))
        for room, subjects in shown.items()
    }
    menu = "```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"
    rooms = (
        f"- [{room}]({room.replace('/', '.')}.md): {sentence(_folder(room))}" for room in shown
    )
    return pages | {"index": API + "\n".join(rooms) + "\n\n" + menu}


def _automodule(subject: str) -> str:
    dotted = subject.removesuffix(".py").replace("/", ".")
    imported = "" if subject.endswith(".py") else "   :imported-members:\n"
    return (
        f"\n## {dotted.split('.', 1)[1]}\n\n"
        f"```{{eval-rst}}\n.. automodule:: {dotted}\n   :members:\n{imported}```\n"
    )


def written() -> dict[Path, str]:
    """File -> what it must hold."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    head, rest = text.split("```text\n", 1)
    return {
        readme: f"{head}```text\n{tree()}\n```{rest.split('```', 1)[1]}",
        ROOT / "docs" / "reading.md": reading(),
    }


def main() -> int:
    """Write the map, or compare it; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if out of date")
    check = parser.parse_args().check
    old = [
        path
        for path, text in written().items()
        if not path.is_file() or path.read_text() != text
    ]
    for path in old:
        print(f"{path.relative_to(ROOT)} {'is out of date' if check else 'written'}")
        if not check:
            path.write_text(written()[path], encoding="utf-8")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
