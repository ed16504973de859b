"""`python -m jaxlin`: the command `jaxlin` of this interpreter, wherever scripts are installed."""

import sys

from jaxlin.cli import main

if __name__ == "__main__":
    sys.exit(main())
