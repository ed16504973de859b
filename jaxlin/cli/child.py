"""What `jaxlin.distributed.launch` supervises: a command in a process of its own."""

__all__ = ["COMMAND", "child"]

import os
import sys
import traceback

from jaxlin.distributed.launch import ABANDONED

COMMAND = (sys.executable, "-c", "from jaxlin.cli.child import child; child()")
"""How such a process is started; the words of the command follow."""


def child() -> None:
    """Run the command of `sys.argv` and end the process.

    After an error it ends at once: an orderly end waits for all other processes, and they wait for
    this one.
    """
    from jaxlin.cli import main

    try:
        code, orderly = main(sys.argv[1:]), True
    except Exception:
        traceback.print_exc()
        code, orderly = 1, False
    sys.stdout.flush()
    sys.stderr.flush()
    if code in (2, 130, ABANDONED) or not orderly:
        os._exit(code)
    sys.exit(code)
