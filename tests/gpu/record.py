"""A pytest plugin: what each check saw, one line of JSON, into TENSORMASK_GPU_RECORD.

Each line is written at once, so that it stays if a later check ends the process.
"""

from __future__ import annotations

import json
import os
from typing import Any


def pytest_runtest_logreport(report: Any) -> None:
    if report.passed and report.when != "call":
        return
    row = {
        "check": report.nodeid.split("/")[-1],
        "ok": not report.failed,
        "outcome": report.outcome,
        "seconds": round(report.duration, 2),
        **dict(report.user_properties),
    }
    if not report.passed:
        row["why"] = report.longreprtext[-2000:]
    with open(os.environ["TENSORMASK_GPU_RECORD"], "a", encoding="utf-8") as file:
        file.write(json.dumps(row, default=str) + "\n")
