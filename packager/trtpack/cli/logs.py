# SPDX-License-Identifier: Apache-2.0
"""Where messages go: warnings to the terminal, everything to ``--log-file``."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigError

_LOGGERS = ("trtpack", "trtpack_runtime", "py.warnings", "torch")
_LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}


@contextmanager
def logging_to(verbosity: int, file: Path | None) -> Iterator[None]:
    """Within the block trtpack's messages, TensorRT's too, go to the terminal and to ``file``.

    ``verbosity`` is -1 for errors only, 0 for warnings, 1 for what is done, 2 for everything.
    Python warnings and torch's own messages go to the file alone.

    Raises:
        ConfigError: the log file cannot be written.
    """
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(_LEVELS[max(-1, min(verbosity, 2))])
    terminal.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    terminal.addFilter(lambda record: record.name.startswith("trtpack"))
    handlers: list[logging.Handler] = [terminal]
    if file is not None:
        try:
            written = logging.FileHandler(file, mode="w", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"cannot write the log file {file}: {error.strerror}",
                hint="choose a folder that exists and is writable",
            ) from error
        written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(written)
    before = [(logger, logger.level, logger.propagate) for logger in map(_logger, _LOGGERS)]
    for logger, _, _ in before:
        if logger.name.startswith("trtpack"):
            logger.setLevel(logging.DEBUG)
        logger.propagate = False
        for handler in handlers:
            logger.addHandler(handler)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            logging.captureWarnings(True)
            yield
    finally:
        logging.captureWarnings(False)
        for logger, level, propagate in before:
            logger.setLevel(level)
            logger.propagate = propagate
            for handler in handlers:
                logger.removeHandler(handler)
        for handler in handlers:
            handler.close()


def _logger(name: str) -> logging.Logger:
    return logging.getLogger(name)
