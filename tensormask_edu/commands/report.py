"""A run's report from plain data: report.json, and from it the same page as HTML and as text.

Every number stands beside another way to get it: a claim names what it was checked against, the
difference and the limit. The HTML is one file with the pictures inside: no links, no scripts,
readable on a phone and in print.

next: demo.py
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..base.files import write_json, written_whole
from ..evaluation.coco_scores import SCORE_NAMES

State = Literal["done", "not run", "failed"]


@dataclass(frozen=True)
class Claim:
    """One claim and its check. `difference` None: not checked here, and `note` says why."""

    claim: str
    against: str
    difference: float | None
    limit: float | None
    note: str = ""
    at_least: bool = False  # the number must reach the limit instead of staying below it

    @property
    def holds(self) -> bool | None:
        """None where the check did not run."""
        if self.difference is None or self.limit is None:
            return None
        return self.difference >= self.limit if self.at_least else self.difference <= self.limit

    @property
    def verdict(self) -> str:
        return {None: "not run", True: "holds", False: "FAILS"}[self.holds]


@dataclass(frozen=True)
class Stage:
    """One step of the run: what it did in words, or why it did not run."""

    name: str
    state: State
    seconds: float
    words: str


@dataclass(frozen=True)
class Picture:
    """A PNG beside the report; `file` is relative to the report's folder."""

    file: str
    title: str
    caption: str
    part: Literal["results", "method"] = "method"


@dataclass
class Report:
    """Everything the page shows.

    scores: {"segm": {score name: value}, "bbox": {...}, "ceiling": {"segm": {...}}}, as
    evaluate gives them.
    onnx: per raw output the largest absolute difference over all inputs.
    engine: what was built, in words: {"backend": ..., "size": ...}.
    """

    title: str
    made: str
    machine: Mapping[str, str] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    scores: dict[str, Any] = field(default_factory=dict)
    onnx: dict[str, float] = field(default_factory=dict)
    engine: dict[str, str] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """What went wrong: failed stages and claims that do not hold."""
        stages = [
            f"{stage.name}: {stage.words}" for stage in self.stages if stage.state == "failed"
        ]
        return stages + [
            f"{claim.claim}: {claim.verdict}" for claim in self.claims if claim.holds is False
        ]

    @property
    def summary(self) -> str:
        """The page in one sentence."""
        counts = {
            word: sum(claim.verdict == word for claim in self.claims)
            for word in ("holds", "FAILS", "not run")
        }
        parts = [f"{counts['holds']} of {len(self.claims)} claims hold"]
        if counts["FAILS"]:
            parts.append(f"{counts['FAILS']} FAIL")
        if counts["not run"]:
            parts.append(f"{counts['not run']} not run")
        if failed := sum(stage.state == "failed" for stage in self.stages):
            parts.append(f"{failed} of {len(self.stages)} stages FAILED")
        if "segm" in self.scores:
            reachable = self.scores.get("ceiling", {}).get("segm", {}).get("AP")
            beside = f" where {reachable:.3f} is reachable" if reachable is not None else ""
            parts.append(f"mask AP {self.scores['segm']['AP']:.3f}{beside}")
        return ", ".join(parts) + "."


# --- Tables, once for both forms --------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A titled table of words."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def tables(report: Report) -> dict[str, Table]:
    """The report's tables by part, the empty ones left out."""
    made = {
        "claims": Table(
            "What was checked",
            ("claim", "checked against", "difference", "limit", "verdict"),
            [_claim_row(claim) for claim in report.claims],
        ),
        "scores": _score_table(report.scores),
        "onnx": Table(
            "ONNX Runtime and PyTorch",
            ("raw output", "largest difference"),
            [(name, _number(value)) for name, value in report.onnx.items()],
            "Largest absolute difference over all inputs compared.",
        ),
        "engine": Table("TensorRT engine", ("what", "value"), list(report.engine.items())),
        "stages": Table(
            "The run",
            ("stage", "state", "seconds", "result"),
            [(s.name, s.state, f"{s.seconds:.1f}", s.words) for s in report.stages],
        ),
        "machine": Table("The machine", ("what", "value"), list(report.machine.items())),
    }
    return {part: table for part, table in made.items() if table.rows}


def _claim_row(claim: Claim) -> tuple[str, ...]:
    if claim.difference is None or claim.limit is None:
        return claim.claim, claim.against, "-", "-", f"not run: {claim.note}"
    limit = f"at least {_number(claim.limit)}" if claim.at_least else _number(claim.limit)
    difference = (
        f"value {_number(claim.difference)}" if claim.at_least else _number(claim.difference)
    )
    note = f" ({claim.note})" if claim.note else ""
    return claim.claim, claim.against, difference, limit, claim.verdict + note


def _score_table(scores: Mapping[str, Any]) -> Table:
    columns = {"masks": scores.get("segm"), "boxes": scores.get("bbox")}
    columns["masks, ceiling"] = scores.get("ceiling", {}).get("segm")
    shown = {title: values for title, values in columns.items() if values}
    rows = (
        [(name, *(_score(values[name]) for values in shown.values())) for name in SCORE_NAMES]
        if shown
        else []
    )
    note = (
        "COCO scores by pycocotools on the held-out images. The ceiling pastes the true masks, "
        "cut into the model's own windows and bins: what learning its targets exactly would score."
    )
    return Table("Average precision", ("score", *shown), rows, note)


def _score(value: float) -> str:
    return "-" if value < 0 else f"{value:.3f}"  # -1: no object of that size


def _number(value: float) -> str:
    """Three digits: 0.531, 3.1e-07, 0."""
    return f"{value:.3g}"


# --- Text -------------------------------------------------------------------------------------


def to_text(report: Report) -> str:
    """The report for a terminal."""
    parts = [f"{report.title}\n{report.made}\n{report.summary}"]
    parts += [f"{table.title}\n{_text_table(table)}" for table in tables(report).values()]
    parts += (
        ["Pictures\n" + "\n".join(f"  {p.file}  {p.title}" for p in report.pictures)]
        if report.pictures
        else []
    )
    parts += (
        ["FAILED\n" + "\n".join(f"  {line}" for line in report.failures)]
        if report.failures
        else []
    )
    return "\n\n".join(parts) + "\n"


def _text_table(table: Table) -> str:
    lines = [table.head, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.head))]
    rows = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    ]
    return "\n".join(f"  {row}".rstrip() for row in rows)


# --- HTML -------------------------------------------------------------------------------------

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
.summary { font-size: 1.15rem; border-left: 4px solid #009E73; padding-left: .8rem; }
.summary.failed { border-color: #D55E00; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd; }
td.bad, .bad { font-weight: bold; color: #B34700; }
figure { margin: 1.5rem 0; } figcaption { color: #444; max-width: 45rem; }
img { max-width: 100%; height: auto; }
@media (max-width: 40rem) {
  .stacked tr { display: block; padding: .5rem 0; border-bottom: 1px solid #ccc; }
  .stacked tr:first-child { display: none; }
  .stacked td { display: block; border: 0; padding: 0; }
  .stacked td:first-child { font-weight: bold; }
  .stacked td::before { content: attr(data-head) ": "; color: #666; font-weight: normal; }
}
@media print { body { max-width: none; font-size: 11px; } figure, tr { break-inside: avoid; } }
"""


def to_html(report: Report, folder: Path) -> str:
    """The report as one HTML page; pictures are read from `folder` and put inside."""
    shown = tables(report)
    failed = " failed" if report.failures else ""
    results = [p for p in report.pictures if p.part == "results"]
    method = [p for p in report.pictures if p.part == "method"]
    parts = [
        f"<h1>{_safe(report.title)}</h1>",
        f"<p>{_safe(report.made)}</p>",
        f'<p class="summary{failed}">{_safe(report.summary)}</p>',
        _html_list(report.failures),
        *(_html_table(shown[part]) for part in ("claims", "scores") if part in shown),
        _html_pictures("Training and predictions", results, folder),
        *(_html_table(shown[part]) for part in ("engine",) if part in shown),
        _html_pictures("How it works", method, folder),
        *(_html_table(shown[part]) for part in ("onnx", "stages", "machine") if part in shown),
    ]
    body = "\n".join(part for part in parts if part)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    title = f"<title>{_safe(report.title)}</title><style>{STYLE}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}{title}</head>\n<body>\n{body}\n</body></html>\n'


def _safe(words: str) -> str:
    return html.escape(words)


def _html_list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{_safe(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{_safe(cell)}</th>" for cell in table.head)
    rows = "\n".join(f"<tr>{_html_cells(table, row)}</tr>" for row in table.rows)
    stacked = ' class="stacked"' if len(table.head) > 3 and not table.note else ""
    note = f"<p>{_safe(table.note)}</p>" if table.note else ""
    lines = f'<div class="wide"><table{stacked}>\n<tr>{head}</tr>\n{rows}\n</table></div>'
    return f"<h2>{_safe(table.title)}</h2>\n{lines}\n{note}"


def _html_cells(table: Table, row: Sequence[str]) -> str:
    """One row; each cell knows its column's name, which a narrow screen shows instead of the
    header."""
    cells = []
    for head, cell in zip(table.head, row, strict=True):
        mark = ' class="bad"' if cell.startswith(("FAILS", "failed")) else ""
        cells.append(f'<td data-head="{_safe(head)}"{mark}>{_safe(cell)}</td>')
    return "".join(cells)


def _html_pictures(title: str, pictures: Sequence[Picture], folder: Path) -> str:
    figures = "\n".join(_html_picture(picture, folder) for picture in pictures)
    return f"<h2>{_safe(title)}</h2>\n{figures}" if figures else ""


def _html_picture(picture: Picture, folder: Path) -> str:
    data = base64.b64encode((folder / picture.file).read_bytes()).decode("ascii")
    image = f'<img src="data:image/png;base64,{data}" alt="{_safe(picture.title)}">'
    return f"<figure>{image}<figcaption>{_safe(picture.caption)}</figcaption></figure>"


def write_report(report: Report, folder: str | Path) -> Path:
    """Write report.json, report.txt and report.html into `folder`, each whole; returns the
    HTML's path."""
    folder = Path(folder)
    claims = [{**asdict(claim), "holds": claim.holds} for claim in report.claims]
    write_json(
        folder / "report.json",
        {**asdict(report), "claims": claims, "failures": report.failures},
    )
    for name, content in (
        ("report.txt", to_text(report)),
        ("report.html", to_html(report, folder)),
    ):
        with written_whole(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return folder / "report.html"
