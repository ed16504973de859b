"""A command in a process that was forked from one that had imported everything.

`tests/cli/conftest.py` has its server of forks run this file, with `ASKED` among its names. Python,
JAX, scikit-learn and Matplotlib take some four seconds of a processor to import, more than such a
command computes. Nothing that was imported has started a backend or a thread that matters.
"""

import atexit
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace


def ended(function) -> int:
    """The exit code of a function that ends a process, after what runs at a process's end."""
    try:
        code = function()
    except SystemExit as stop:
        code = stop.code
    atexit._run_exitfuncs()  # JAX leaves its cluster there
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code or 0


class Fork:
    """What a supervisor starts, as `subprocess.Popen`, but forked from it."""

    def __init__(self, command, *, env, pass_fds, **settings):
        (out, printed), (err, warned) = os.pipe(), os.pipe()
        self.pid, self.code = os.fork(), None
        if not self.pid:
            os.setsid()
            os.dup2(printed, 1)
            os.dup2(warned, 2)
            last = 2
            for kept in (*sorted(pass_fds), os.sysconf("SC_OPEN_MAX")):
                os.closerange(last + 1, kept)
                last = kept
            os.environ.clear()
            os.environ.update(env)
            sys.argv = ["-c", *command[3:]]
            from jaxlin.cli.child import child

            os._exit(ended(child))
        os.close(printed)
        os.close(warned)
        self.stdout, self.stderr = os.fdopen(out, "rb"), os.fdopen(err, "rb")

    def poll(self, how=os.WNOHANG):
        if self.code is None:
            pid, status = os.waitpid(self.pid, how)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self):
        return self.poll(0)

    def send_signal(self, number):
        os.kill(self.pid, number)


def blank(figure, target, **settings):
    """Drawing takes longer than these runs: a picture is a file without pixels."""
    target.write(b"") if hasattr(target, "write") else Path(target).touch()


def run(asked) -> None:
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    for number, path in ((1, asked["stdout"]), (2, asked["stderr"])):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    import jax
    from matplotlib.figure import Figure

    jax.config.update("jax_enable_x64", os.environ.get("JAX_ENABLE_X64") == "1")
    from jaxlin.checkpoint import store
    from jaxlin.cli import main
    from jaxlin.distributed import launch

    launch.subprocess = SimpleNamespace(Popen=Fork, PIPE=None)
    Figure.savefig = blank
    if asked["linger"]:
        sync_folder = store.sync_folder  # what a save does last
        store.sync_folder = lambda home: (sync_folder(home), time.sleep(asked["linger"]))
    os._exit(ended(lambda: main(asked["words"])))


if __name__ == "__main__":
    run(json.loads(ASKED))  # noqa: F821
