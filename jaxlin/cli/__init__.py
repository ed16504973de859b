"""The command line: `jaxlin COMMAND [options]`.

A command is a module of this folder: a frozen dataclass `Options`, whose documented fields are
the command's options, and `run(options) -> int`, the exit code. Only the module of the command
that was asked for is imported, and it imports JAX only inside `run`, so every `--help` is quick.

Exit codes: 0 done, 1 failure, 2 usage or bad data, 3 the disk is full (or the run is done, but
checkpoints could not be saved), 75 stopped by a signal with everything saved (start again with
`--resume auto`), 130 interrupted.
"""

__all__ = ["COMMANDS", "WITHOUT_JAX", "main"]

import difflib
import errno
import os
import sys
import warnings
from collections.abc import Iterable
from importlib import import_module

from jaxlin.cli.streams import prepare_streams

COMMANDS = {
    "train": "Train a linear classifier and write a run folder with its report.",
    "sweep": "Fit many heads in one pass, choose one on validation, test it once.",
    "evaluate": "Measure a trained classifier on data with labels.",
    "predict": "Classify pictures or arrays with a trained classifier.",
    "gradcheck": "Check a gradient: autodiff's, the hand-derived one, or one's own.",
    "report": "Draw a run's pictures and page again.",
    "landscape": "Draw the loss along rays and planes in parameter space.",
    "features": "Describe and check features in files: shards, classes, range.",
    "data": "List, describe, fetch and verify data sets.",
    "lecture": "Reproduce an introductory lecture: every number, table and figure.",
    "info": "Show versions, devices, and what they compute with.",
}
WITHOUT_JAX = ("data", "features", "report")
"""Commands that compute nothing on a device."""

_HELP = """\
usage: jaxlin COMMAND [options]

Linear image classification in JAX: train, prove the gradient, look at the loss.

commands:
{commands}

`jaxlin COMMAND --help` shows the options of a command; `jaxlin --version` the version.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; a user's mistake costs one sentence."""
    prepare_streams()
    argv = list(sys.argv[1:] if argv is None else argv)
    from jaxlin.distributed.cluster import lost_peer
    from jaxlin.distributed.launch import ABANDONED
    from jaxlin.runs import accelerators

    usual, warnings.formatwarning = warnings.formatwarning, _warning
    try:
        with accelerators.sentences():
            code = _run(*argv)
        sys.stdout.flush()  # a full disk can be told here, and not when the interpreter ends
        return code
    except KeyboardInterrupt:
        print("jaxlin: interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, MemoryError, ModuleNotFoundError) as error:
        if os.environ.get("JAXLIN_TRACEBACK"):
            raise
        if lost_peer(error):
            return ABANDONED
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            _refuse(
                f"{error.filename or 'the disk'}: {error.strerror}. Free some space, start again."
            )
            return 3
        return _refuse(accelerators.refusal(error) or _sentence(error, argv))
    except (RuntimeError, AssertionError) as error:
        if lost_peer(error):
            return ABANDONED
        sentence = None if os.environ.get("JAXLIN_TRACEBACK") else accelerators.refusal(error)
        if sentence is None:
            raise
        return _refuse(sentence)
    finally:
        warnings.formatwarning = usual


def _run(name: str = "help", *rest: str) -> int:
    """What was asked for: help, the version, or a command."""
    if name in ("-h", "--help", "help"):
        table = "\n".join(f"  {name:<11} {summary}" for name, summary in COMMANDS.items())
        print(_HELP.format(commands=table), end="")
        return 0
    if name in ("-V", "--version"):
        from jaxlin import __version__

        print(f"jaxlin {__version__}")
        return 0
    if name not in COMMANDS:
        raise ValueError(f"`{name}` is not a command. {_nearest(name, COMMANDS)}")
    from jaxlin.cli import child
    from jaxlin.cli.parsing import parse
    from jaxlin.distributed import launch

    module = import_module(f"jaxlin.cli.{name}")
    options = parse(module.Options, list(rest), command=name)
    if launch.wanted(options):
        return launch.supervise([*child.COMMAND, name, *rest])
    if name not in WITHOUT_JAX:
        _prepare_jax(quiet=name == "info" or getattr(options, "quiet", False))
    return module.run(options)


def _prepare_jax(*, quiet: bool) -> None:
    """What must be known before JAX starts: what it will find, and where it keeps its programs."""
    from jaxlin.cli import compilation_cache
    from jaxlin.runs import accelerators

    compilation_cache.keep()
    machine = accelerators.detect()
    note = accelerators.note(machine, os.environ.get("JAX_PLATFORMS", ""))
    accelerators.block(machine)
    if note and not quiet:
        print(f"jaxlin: {note}", file=sys.stderr)


def _warning(
    message: Warning | str, category: type, filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning without the file and line that raised it, which are not the user's."""
    return f"jaxlin: {' '.join(str(message).split())}\n"


def _sentence(error: BaseException, argv: list[str]) -> str:
    """The message of `error` on one line, in the words of the command's options.

    For an operating system's error, with its file.
    """
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}."
    if isinstance(error, UnicodeEncodeError):  # the name of a file, say in a run's configuration
        return (
            f"{str(error.object)!r} cannot be a file's name where the encoding is "
            f"{error.encoding}. Set PYTHONUTF8=1, or a locale of UTF-8."
        )
    text = " ".join(str(error).split())
    module = sys.modules.get(f"jaxlin.cli.{argv[0]}") if argv and argv[0] in COMMANDS else None
    if module is not None:
        from jaxlin.runs.wording import in_options

        text = in_options(text, module.Options)
    return text or f"{type(error).__name__} (set JAXLIN_TRACEBACK=1 to see where)."


def _refuse(sentence: str) -> int:
    print(f"jaxlin: {sentence}", file=sys.stderr)
    return 2


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean `{near[0]}`?" if near else f"Known are: {', '.join(known)}."
