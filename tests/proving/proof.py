# SPDX-License-Identifier: Apache-2.0
"""Runs trials, many to an engine, and finds those that fail."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby
from queue import SimpleQueue
from threading import Lock
from typing import Any, Protocol

import torch

from tests.proving.comparing import difference
from tests.proving.merging import merge
from tests.proving.trial import Trial
from trtpack_runtime.engines._widened import is_widened
from trtpack_runtime.errors import EngineBuildError, TrtpackError
from trtpack_runtime.network import Network

T = torch.Tensor
Answers = list[list[T]]
Result = dict[str, Any]
"""``state`` (passed, built, failed or skipped), ``digest``, and ``why`` where it says something."""
NO_KERNEL = "Could not find any implementation for node"
"""What TensorRT says of a layer that it takes and has no kernel for."""
LEFT_TO_PYTORCH = "this TensorRT has no kernel for a layer of it, which builds leave to PyTorch"


_SLOWER = 4
"""How many times as long an engine of open sizes takes: 29 cases 237 s where 39 of fixed sizes took
64 s (TensorRT 8.6 on an H200, float16)."""


class Engine(Protocol):
    """Builds and runs one network."""

    def answers(
        self, network: Network, constants: Mapping[str, T], samples: Sequence[Mapping[str, T]]
    ) -> Answers | None:
        """The outputs for each sample; None where engines are only built.

        Raises:
            TrtpackError: it cannot be built or run.
        """


class TimeIsUp(Exception):
    """The run has to end; what is not done has no result."""


def prove(
    trials: Sequence[Trial],
    engines: Sequence[Engine],
    *,
    pack: int,
    until: float = float("inf"),
    on_results: Callable[[Mapping[str, Result]], None] = lambda results: None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Runs every trial, ``pack`` to an engine, as many side by side as there are ``engines``.

    ``on_results`` is told results by name as they come, one call at a time. No engine is begun
    after ``until``, by ``time.monotonic``.
    """
    packs = list(_packs(trials, pack))
    free: SimpleQueue[Engine] = SimpleQueue()
    for engine in engines:
        free.put(engine)
    lock, stopped = Lock(), False

    def run(together: list[Trial]) -> str:
        engine, began, count = free.get(), time.monotonic(), Counter[str]()
        try:
            for results in _run(together, engine, lambda: stopped or time.monotonic() > until):
                with lock:
                    if stopped:
                        raise TimeIsUp
                    on_results(results)
                count.update(result["state"] for result in results.values())
        finally:
            free.put(engine)
        words = ", ".join(f"{n} {state}" for state, n in sorted(count.items(), reverse=True))
        return f"{time.monotonic() - began:5.1f} s  {together[0].group}: {words}"

    lanes = ThreadPoolExecutor(len(engines))
    late = False
    try:
        for number, done in enumerate(as_completed([lanes.submit(run, p) for p in packs]), 1):
            try:
                say(f"{number:3}/{len(packs)}  {done.result()}")
            except TimeIsUp:
                late = True
    finally:
        stopped = True
        lanes.shutdown(wait=False, cancel_futures=True)
    if late:
        say("the time is up: run this again for the rest")


def _packs(trials: Sequence[Trial], size: int) -> Iterator[list[Trial]]:
    """Trials of one group, in packs of about equal size; those with scales widen what is beside."""
    ordered = sorted(trials, key=_sharing)
    for (group, _), found in groupby(ordered, key=_sharing):
        members = list(found)
        most = max(1, size // _SLOWER) if group.startswith("dynamic") else size
        count = -(-len(members) // most)
        yield from (members[i::count] for i in range(count))


def _sharing(trial: Trial) -> tuple[str, bool]:
    return trial.group, is_widened(trial.network)


def _run(
    trials: list[Trial], engine: Engine, is_up: Callable[[], bool]
) -> Iterator[dict[str, Result]]:
    """Results of a pack; where it fails as a whole, of its parts."""
    if is_up():
        raise TimeIsUp
    try:
        answers = together(trials, engine)
    except TrtpackError as error:
        if len(trials) == 1:
            (trial,) = trials
            if NO_KERNEL in f"{error}":
                yield {trial.name: skipped(trial, LEFT_TO_PYTORCH)}
            else:
                yield {trial.name: _result(trial, "failed", f"{error}")}
            return
        for part in _parts(trials, error):
            yield from _run(part, engine, is_up)
        return
    yield {
        trial.name: _judged(trial, None if answers is None else answers[trial.name])
        for trial in trials
    }


def together(trials: Sequence[Trial], engine: Engine) -> dict[str, Answers] | None:
    """Every trial's answers by its name, sample by sample, from one engine.

    A trial with fewer samples than others has its last one run again, and answered once.
    """
    network = merge({key: trial.network for key, trial in _keyed(trials)})
    constants = {
        f"{key}.{name}": value
        for key, trial in _keyed(trials)
        for name, value in trial.constants.items()
    }
    samples = [
        {
            f"{key}.{name}": value
            for key, trial in _keyed(trials)
            for name, value in trial.samples[min(i, len(trial.samples) - 1)].inputs.items()
        }
        for i in range(max(len(trial.samples) for trial in trials))
    ]
    answers = engine.answers(network, constants, samples)
    if answers is None:
        return None
    found: dict[str, Answers] = {}
    begin = 0
    for trial in trials:
        end = begin + len(trial.network.outputs)
        found[trial.name] = [given[begin:end] for given in answers[: len(trial.samples)]]
        begin = end
    return found


def _keyed(trials: Iterable[Trial]) -> Iterator[tuple[str, Trial]]:
    return ((f"t{i}", trial) for i, trial in enumerate(trials))


def _parts(trials: list[Trial], error: TrtpackError) -> list[list[Trial]]:
    """What to try apart: those TensorRT named and the others, or halves."""
    layers = error.layers if isinstance(error, EngineBuildError) else ()
    named = {layer.split(".", 1)[0] for layer in layers}
    blamed = [trial for key, trial in _keyed(trials) if key in named]
    if 0 < len(blamed) < len(trials):
        return [blamed, [trial for trial in trials if trial not in blamed]]
    middle = len(trials) // 2
    return [trials[:middle], trials[middle:]]


def _judged(trial: Trial, answers: Answers | None) -> Result:
    if answers is None:
        return _result(trial, "built")
    why = difference(trial, answers)
    return _result(trial, "failed" if why else "passed", why)


def _result(trial: Trial, state: str, why: str | None = None) -> Result:
    result = {
        "state": state,
        "subject": trial.subject,
        "dtype": trial.dtype,
        "digest": trial.digest,
    }
    return result | ({"why": why} if why else {})


def skipped(trial: Trial, why: str) -> Result:
    """The result of a trial that this TensorRT cannot have."""
    return _result(trial, "skipped", why)
