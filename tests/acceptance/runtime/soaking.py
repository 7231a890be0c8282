# SPDX-License-Identifier: Apache-2.0
"""What the soak is made of: known answers, callers of every kind, readings of memory."""

from __future__ import annotations

import ctypes
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from trtpack_runtime.errors import BusyError, InputMismatchError
from trtpack_runtime.pool import Pool
from trtpack_runtime.smoke import judge

COMPARED = 100
"""How many results are compared: every thousandth of a hundred thousand."""
WARM, WINDOWS = 0.2, 4
"""The part of all calls after which memory has to stay as it is, and in how many parts the others
are looked at."""
_C, _M_ARENA_MAX = ctypes.CDLL(None), -8
PATIENCE_S, GIVEN_UP_AFTER_S = 60.0, 1e-4
READ_EVERY_S = 0.1


@dataclass(frozen=True)
class Sample:
    """Inputs of one shape, and what the original answers to them."""

    inputs: tuple[torch.Tensor, ...]
    wanted: tuple[torch.Tensor, ...]

    def fresh(self) -> tuple[torch.Tensor, ...]:
        """Copies that nobody else keeps."""
        return tuple(value.clone() for value in self.inputs)

    def problem(self, answer: Any) -> str | None:
        """What is wrong with an answer, or None."""
        for got, want in zip(tree_leaves(answer), self.wanted, strict=True):
            failure = judge("sample", "output", torch.as_tensor(got), want.cpu()).failure
            if failure is not None:
                return failure
        return None


@dataclass
class Tally:
    """How many calls were made of each kind, what was wrong with which, and readings of memory.

    A reading is (calls done, bytes of this process, bytes of the GPU taken).
    """

    total: int
    """How many calls there will be."""
    kinds: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    readings: list[tuple[int, int, int]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_compared(self, i: int) -> bool:
        """Whether the caller's ``i``-th result, from 0, is one of those that are compared."""
        every = max(1, self.total // COMPARED)
        return i % every == every - 1

    def count(self, kind: str, problem: str | None = None) -> None:
        """Notes a call that is over."""
        with self._lock:
            self.kinds[kind] += 1
            if problem is not None:
                self.problems.append(problem)

    def read(self, device: torch.device) -> None:
        """Takes a reading of memory."""
        taken = 0
        if device.type == "cuda":
            free, whole = torch.cuda.mem_get_info(device)
            taken = whole - free
        with self._lock:
            done = self.kinds.total()
        self.readings.append((done, _own_bytes(), taken))

    def medians(self, column: int) -> list[float]:
        """A reading's column (1 or 2) in equal parts of the calls after the warm ones."""
        first, span = self.total * WARM, self.total * (1 - WARM)
        parts: dict[int, list[int]] = {}
        for reading in self.readings:
            if reading[0] >= first:
                part = min(int((reading[0] - first) / span * WINDOWS), WINDOWS - 1)
                parts.setdefault(part, []).append(reading[column])
        return [float(statistics.median(parts[part])) for part in sorted(parts)]

    def change_percent(self, column: int) -> float:
        """How far a part's median is from the first one's, of the part that is furthest."""
        medians = self.medians(column)
        if len(medians) < 2:
            return float("nan")  # too short to tell, which no demand takes for well
        furthest = max(medians, key=lambda m: abs(m - medians[0]))
        return 100 * (furthest / medians[0] - 1) if medians[0] else 0.0


def share_one_arena() -> None:
    """Lets all threads allocate from one arena, before there are any: how glibc scatters what is
    free over an arena for each would look like a leak for tens of thousands of calls."""
    _C.mallopt(_M_ARENA_MAX, 1)


def _own_bytes() -> int:
    """Memory that this process holds: neither pages of mapped files, which come and go with the
    system's cache, nor what the allocator keeps although it is free."""
    _C.malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


def call_directly(
    call: Callable[..., Any], samples: Sequence[Sample], tally: Tally, device: torch.device, n: int
) -> float:
    """Calls one module from ``n`` threads, each on a stream of its own; answers the seconds."""

    def caller(seed: int) -> None:
        rng = random.Random(seed)
        with _stream(device):
            for i in range(tally.total // n):
                sample = rng.choice(samples)
                answer = call(*sample.fresh())
                if tally.is_compared(i):
                    tally.count("compared", sample.problem(answer))
                else:
                    tally.count("not compared")

    return _side_by_side(caller, tally, device, n)


Ask = Callable[[Sample], tuple[Any, ...]]
"""What a pool is given for a sample, as positional arguments."""


def call_by_pool(
    pool: Pool,
    samples: Sequence[Sample],
    malformed: Sequence[tuple[Any, ...]],
    tally: Tally,
    device: torch.device,
    n: int,
    ask: Ask = Sample.fresh,
) -> float:
    """Hands requests to a pool from ``n`` threads; answers the seconds.

    Of twenty callers two send what is ``malformed``, two cancel, two stop waiting at once, and two
    take no full queue.
    """

    def caller(seed: int) -> None:
        rng = random.Random(seed)
        good = 0
        with _stream(device):
            for _ in range(tally.total // n):
                sample, what = rng.choice(samples), rng.randrange(20)
                if what < 2:
                    _send_malformed(pool, rng.choice(malformed), tally)
                elif what < 4:
                    pool.submit(*ask(sample)).cancel()
                    tally.count("cancelled")
                elif what < 6:
                    _stop_waiting(pool, ask(sample), tally)
                elif what < 8:
                    _without_patience(pool, ask(sample), tally)
                else:
                    answer = pool.submit(*ask(sample)).result(PATIENCE_S)
                    compared = tally.is_compared(good)
                    good += 1
                    problem = sample.problem(answer) if compared else None
                    tally.count("compared" if compared else "not compared", problem)

    return _side_by_side(caller, tally, device, n)


def _send_malformed(pool: Pool, given: tuple[Any, ...], tally: Tally) -> None:
    error = pool.submit(*given).exception(PATIENCE_S)
    wrong = not isinstance(error, InputMismatchError)
    tally.count("malformed", f"malformed inputs gave {error!r}" if wrong else None)


def _stop_waiting(pool: Pool, given: tuple[Any, ...], tally: Tally) -> None:
    try:
        pool.submit(*given).result(GIVEN_UP_AFTER_S)
    except TimeoutError:
        tally.count("given up")
    else:
        tally.count("not compared")


def _without_patience(pool: Pool, given: tuple[Any, ...], tally: Tally) -> None:
    try:
        pool.submit(*given, timeout=0).result(PATIENCE_S)
    except BusyError:
        tally.count("turned away")
    else:
        tally.count("not compared")


def _stream(device: torch.device) -> AbstractContextManager[Any]:
    if device.type != "cuda":
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(device))


def _side_by_side(
    caller: Callable[[int], None], tally: Tally, device: torch.device, n: int
) -> float:
    def guarded(seed: int) -> None:
        try:
            caller(seed)
        except BaseException as error:  # told with the row
            tally.count("died", f"a caller died: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=guarded, args=(seed,), daemon=True) for seed in range(n)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        tally.read(device)
        time.sleep(READ_EVERY_S)
    return time.monotonic() - began
