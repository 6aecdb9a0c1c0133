"""`python -m didgen`: the command line."""

import sys

from didgen.cli import main

sys.exit(main())
