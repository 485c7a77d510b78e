"""`python -m ddp_assist` is the same as `ddp-assist`."""

import sys

from ddp_assist.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
