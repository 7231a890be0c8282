# SPDX-License-Identifier: Apache-2.0
"""Where messages go: warnings to the terminal, everything to ``--log-file``."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from ..errors import ConfigError

STEPS = "trtpack.steps"
"""What the terminal learns otherwise, by progress and by the error: for the log file alone."""

_LOGGERS = ("trtpack", "trtpack_runtime", "py.warnings")
_LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}


@contextmanager
def logging_to(
    verbosity: int, file: Path | None, say: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Within the block trtpack's messages, TensorRT's too, go to the terminal and to ``file``.

    ``verbosity`` is -1 for errors only, 0 for warnings, 1 for what is done, 2 for everything.
    ``say`` prints a line where something is drawn on the terminal; without it standard error does.
    Python warnings go to the file alone; so do lines that libraries print on standard error
    (torch.export prints whole graphs), unless ``verbosity`` is at least 1.

    Raises:
        ConfigError: the log file cannot be written.
    """
    terminal: logging.Handler = logging.StreamHandler(sys.stderr) if say is None else _Said(say)
    terminal.setLevel(_LEVELS[max(-1, min(verbosity, 2))])
    terminal.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    terminal.addFilter(lambda record: record.name.startswith("trtpack") and record.name != STEPS)
    handlers: list[logging.Handler] = [terminal]
    if file is not None:
        try:
            written = _LogFile(file, mode="w", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"cannot write the log file {file}: {error.strerror}",
                hint="choose a folder that exists and is writable",
            ) from error
        written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(written)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger, logger.level, logger.propagate) for logger in loggers]
    for logger, _, _ in before:
        if logger.name.startswith("trtpack"):
            logger.setLevel(logging.DEBUG if file is not None else terminal.level)
        logger.propagate = False
        for handler in handlers:
            logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            logging.captureWarnings(True)
            with redirect_stderr(_Lines(logging.getLogger("trtpack.stderr"))):
                yield
    except BaseException:
        logging.getLogger(STEPS).debug("the command ended with", exc_info=True)
        raise
    finally:
        logging.captureWarnings(False)
        for logger, level, propagate in before:
            logger.setLevel(level)
            logger.propagate = propagate
            for handler in handlers:
                logger.removeHandler(handler)
        for handler in handlers:
            handler.close()


class _Said(logging.Handler):
    """Messages for whoever draws on the terminal, a line each."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(self.format(record))


class _LogFile(logging.FileHandler):
    """A log file that says once that it can no longer be written; the build goes on."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        self._end()
        if isinstance(error, OSError):
            logging.getLogger("trtpack").warning(
                "the log file %s ends early: %s", self.baseFilename, (error.strerror or "").lower()
            )

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()

    def _end(self) -> None:
        self.addFilter(lambda record: False)
        self.close()


class _Lines(io.TextIOBase):
    """A stream whose lines become messages."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger, self._rest = logger, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self._logger.info("%s", line)
        return len(text)
