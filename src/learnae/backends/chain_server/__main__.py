import sys

from learnae.backends.chain_server import main

sys.exit(main())
