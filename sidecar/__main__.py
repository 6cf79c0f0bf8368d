"""`python -m sidecar` is `tokensidecar`."""

import sys

from sidecar.cli.main import main

sys.exit(main())
