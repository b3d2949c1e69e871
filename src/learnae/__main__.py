"""`python -m learnae` is the command `learnae`."""

import sys

from learnae.cli import main

sys.exit(main())
