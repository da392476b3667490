"""`python -m weightslab`: the command line, see `weightslab.cli`."""

from __future__ import annotations

import sys

from weightslab.cli.start import main

if __name__ == "__main__":
    sys.exit(main())
