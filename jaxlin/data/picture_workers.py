"""Processes that decode pictures: many small ones keep the interpreter's lock most of the time.

They are started as programs of their own, so that nothing of the caller's is run again in them and
no state of JAX is copied, and are asked through pipes.
"""

__all__ = ["Worker", "serve"]

import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from jaxlin.core import DataError

_PROGRAM = "import sys; sys.path[:] = {path!r}; from {module} import serve; serve()"


class Worker:
    """One process, which calls a function of a module for whoever asks."""

    def __init__(self) -> None:
        program = _PROGRAM.format(path=sys.path, module=__name__)
        pipes: dict[str, Any] = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.DEVNULL,
        }
        self.process = subprocess.Popen([sys.executable, "-c", program], **pipes)

    def __call__(self, function: Callable, *arguments: Any) -> Any:
        """`function(*arguments)`, made there.

        Raises:
          DataError: what the function raised, or that the process has died.
        """
        try:
            asked, answers = self.process.stdin, self.process.stdout
            assert asked is not None  # both are pipes
            assert answers is not None
            pickle.dump((function, arguments), asked, pickle.HIGHEST_PROTOCOL)
            asked.flush()
            result = pickle.load(answers)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise DataError(
                "a process that decodes pictures has died, perhaps for lack of memory. Start again."
            ) from None
        if isinstance(result, DataError):
            raise result
        return result

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def serve() -> None:
    """Answer until the other side is gone: what runs in the process."""
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            result = function(*arguments)
        except DataError as error:
            result = error
        pickle.dump(result, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()
