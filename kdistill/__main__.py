"""The command line, for `python -m kdistill`."""

import sys

from .cli.main import main

sys.exit(main())
