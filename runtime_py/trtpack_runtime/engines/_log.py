# SPDX-License-Identifier: Apache-2.0
"""TensorRT's messages, collected instead of printed."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TextIO

AUTOTUNED = re.compile(r"Autotuning op (.+?) ?\(key: (0x[0-9a-f]+)\)")
"""How TensorRT names an operator whose tactics it measures and its key in an editable timing cache
(from 10.8). Source: NVIDIA's sampleEditableTimingCache, which reads the same line."""

ERRORS = frozenset({"ERROR", "INTERNAL_ERROR"})
_KEPT = 4000


@dataclass(frozen=True)
class Message:
    """One line of TensorRT's log; ``severity`` is the enum's name."""

    severity: str
    text: str


@dataclass
class Log:
    """The last messages, and how many errors there ever were.

    ``logger`` is the ``ILogger`` to give to TensorRT, ``verbose`` whether it keeps VERBOSE lines.
    ``measured`` are the operators whose tactics were measured, by their key in the timing cache.
    ``errors_to`` is a file that gets each error at once: what a crash leaves.
    """

    logger: Any = None
    verbose: bool = False
    messages: deque[Message] = field(default_factory=lambda: deque(maxlen=_KEPT))
    errors: list[str] = field(default_factory=list)
    measured: dict[str, str] = field(default_factory=dict)
    errors_to: TextIO | None = None

    def take(self, severity: str, text: str) -> None:
        """Keeps one message."""
        if "Autotuning op " in text and (match := AUTOTUNED.search(text)):
            self.measured.setdefault(match[2], match[1])
        if severity == "VERBOSE" and not self.verbose:
            return
        self.messages.append(Message(severity, text))
        if severity in ERRORS:
            self.errors.append(text)
            if self.errors_to is not None:
                print(text, file=self.errors_to, flush=True)

    def tail(self, count: int = 10) -> list[str]:
        """The last lines, warnings and errors before anything else."""
        chosen = [m for m in self.messages if m.severity in ERRORS | {"WARNING"}]
        return [m.text for m in (chosen or list(self.messages))[-count:]]


@cache
def log_of(trt: Any) -> Log:
    """The one log of a TensorRT module; a process can register only one logger with it."""

    class Collector(trt.ILogger):
        def __init__(self, log: Log) -> None:
            trt.ILogger.__init__(self)
            self._log = log

        def log(self, severity: Any, msg: str) -> None:
            self._log.take(severity.name, msg)

    log = Log()
    log.logger = Collector(log)
    return log
