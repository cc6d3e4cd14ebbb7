"""`python -m tensormask_export`: the command line without an installation."""

import sys

from tensormask_export.cli import main

if __name__ == "__main__":
    sys.exit(main())
