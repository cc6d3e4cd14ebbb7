"""`python benchmarks/gpu`: nothing has to be installed for it, so the paths are set here."""

import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(ROOT), str(ROOT / "benchmarks")]

from gpu import run  # noqa: E402

# Whoever ends the day ends the step at work: it is a session of its own.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
sys.exit(run.main())
