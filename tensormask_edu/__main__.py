"""`python -m tensormask_edu`: the command line without an installation."""

import sys

from tensormask_edu.cli import main

if __name__ == "__main__":
    sys.exit(main())
