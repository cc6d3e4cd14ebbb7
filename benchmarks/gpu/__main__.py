"""`python benchmarks/gpu`: nothing has to be installed for it, so the paths are set here."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(ROOT), str(ROOT / "benchmarks")]

from gpu import run  # noqa: E402

sys.exit(run.main())
