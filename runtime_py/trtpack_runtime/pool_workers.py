# SPDX-License-Identifier: Apache-2.0
"""What a pool's workers call: twins of a module, each on a stream of its own, or of a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, InputMismatchError

if TYPE_CHECKING:
    import torch

    from .module import BundleModule
    from .session import Session


@dataclass(frozen=True)
class Arrival:
    """When a request's inputs are there: at ``event``, on the caller's ``stream``."""

    stream: torch.cuda.Stream
    event: torch.cuda.Event


class ModuleStaff:
    """Workers over a ``BundleModule``, in PyTorch."""

    def __init__(self, module: BundleModule, method: str | None, *, fresh_state: bool) -> None:
        self._module, self._method = module, method or "forward"
        module.method(self._method)  # refuses one that is not there
        module.wait_ready()  # twins keep the engines they begin with
        _check_state(module.states, fresh_state)

    def arrive(self) -> Arrival | None:
        """An event on the caller's stream; None on the CPU, where inputs are there at once."""
        if self._module.device.type != "cuda":
            return None
        import torch

        stream = torch.cuda.current_stream(self._module.device)
        return Arrival(stream, stream.record_event())

    def worker(self) -> ModuleWorker:
        """One more twin, on a stream of its own."""
        return ModuleWorker(self._module.twin().configured(outputs="fresh"), self._method)


class ModuleWorker:
    """Calls one method of one module on one stream, and waits for what it computes."""

    def __init__(self, module: BundleModule, method: str) -> None:
        self._module, self._call = module, module.method(method)
        self._resets = bool(module.states)
        self._stream: torch.cuda.Stream | None = None
        if module.device.type == "cuda":
            import torch

            self._stream = torch.cuda.Stream(module.device)
            self._done = torch.cuda.Event(blocking=True)  # a thread that spins slows the others

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], arrival: Any) -> Any:
        """The method's outputs, computed, for use on the stream that the request came from."""
        if self._stream is None:
            return self._answer(args, kwargs)
        import torch
        from torch.utils._pytree import tree_leaves

        with torch.cuda.stream(self._stream):
            self._stream.wait_event(arrival.event)
            try:
                result = self._answer(args, kwargs)
            finally:  # until then the device reads the inputs
                self._done.record(self._stream)
                self._done.synchronize()
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.is_cuda:
                leaf.record_stream(arrival.stream)
        return result

    def close(self) -> None:
        """Nothing: the module goes with its last reference."""

    def _answer(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self._resets:
            self._module.reset()
        return self._call(*args, **kwargs)


class SessionStaff:
    """Workers over a ``Session``, without PyTorch."""

    def __init__(self, session: Session, method: str | None, *, fresh_state: bool) -> None:
        self._session, self._method = session, method
        _check_state(session.states, fresh_state)

    def arrive(self) -> None:
        """Nothing: a session itself waits for what is computed on its GPU."""

    def worker(self) -> SessionWorker:
        """One more twin."""
        return SessionWorker(self._session.twin(), self._method)


class SessionWorker:
    """Runs one session, whose answers are the host's and ready when it returns."""

    def __init__(self, session: Session, method: str | None) -> None:
        self._session, self._method = session, method
        self._resets = bool(session.states)

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], arrival: Any) -> Any:
        """The session's outputs by name.

        Raises:
            InputMismatchError: another request than one mapping or sequence of inputs.
        """
        if len(args) != 1 or kwargs:
            raise InputMismatchError(
                f"wanted a session's inputs as one argument, got {len(args)}, "
                f"and {len(kwargs)} by name",
                hint="give them as Session.run takes them",
            )
        return self._answer(*args)

    def close(self) -> None:
        """Gives back the session's memory."""
        self._session.close()

    def _answer(self, inputs: Any) -> Any:
        if self._resets:
            self._session.reset()
        return self._session.run(inputs, method=self._method)


def _check_state(states: Mapping[str, Any], fresh_state: bool) -> None:
    if states and not fresh_state:
        some = ", ".join(list(states)[:3])
        raise ConfigError(
            f"the bundle keeps state between calls ({some}), and a pool's requests have no order",
            hint="give fresh_state=True where each request begins from the first state, "
            "or call the module itself",
        )
