"""`python -m toolchain` is `bitwright`."""

import sys

from toolchain.cli import main

sys.exit(main())
