# SPDX-License-Identifier: Apache-2.0
"""A bundle as a ``torch.nn.Module`` that is called like the model it was built from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from . import smoke
from .bundle import Bundle
from .departures import blamed
from .errors import ConfigError
from .execution import LoadedSegment, Placed, Watch
from .finish import Finished
from .input_check import InputPolicy
from .loaded_module import LoadedModule
from .memory_plan import MemoryPlan
from .method_call import MethodCall, OutputPolicy
from .phases import LoadTimes
from .resolve import Choice
from .segment_loading import PORTABLE
from .smoke import Sample, SmokeReport
from .tracing import are_traced, is_recording

NO_STATES: Mapping[str, torch.Tensor] = {}


class BundleModule(LoadedModule):
    """A loaded variant. Inputs and outputs are nested as the original's.

    Its parameters and buffers are the original's, by name, and lie where the bundle is mapped. Its
    segments are modules too, below ``engines``. Outputs never need a gradient.

    Several threads may call it at once; where the bundle has state, calls take turns. ``twin``
    answers a second module with state of its own.
    """

    # --- what it is ------------------------------------------------------------------------------
    @property
    def bundle(self) -> Bundle:
        """The bundle it was loaded from."""
        return self._bundle

    @property
    def variant(self) -> str:
        """The name of the variant that is loaded."""
        return self._choice.variant

    @property
    def choice(self) -> Choice:
        """The variants and why this one was taken."""
        return self._choice

    @property
    def degraded(self) -> bool:
        """Whether something that should be an engine runs in PyTorch."""
        return self._choice.degraded or bool(self.failed_engines) or not self.ready

    @property
    def failed_engines(self) -> Mapping[str, str]:
        """Why segments run in PyTorch whose engine could not be built or loaded, by segment."""
        optional = self._choice.chosen.optional
        failed = {name: why for name, why in self._failed.items() if name not in optional}
        return {**failed, **self._loaded.segments.failed}

    @property
    def uncompiled(self) -> Mapping[str, str]:
        """Why segments that PyTorch runs in any case are not compiled, by segment; one that was
        not to be compiled is not named."""
        chosen, loaded = self._choice.chosen, self._loaded.segments
        if self._choice.degraded:
            return {}
        portable = {
            s.name for found in loaded.methods.values() for s in found if s.kind == PORTABLE
        }
        return {
            name: self._failed.get(name, chosen.engines[name].reason)
            for name in sorted(chosen.optional & portable - loaded.failed.keys())
        }

    @property
    def own_engines(self) -> Mapping[str, Finished]:
        """The engines that this machine built itself, by segment."""
        return dict(self._own)

    @property
    def times(self) -> LoadTimes:
        """How long each phase of its start took."""
        return self.startup.times

    @property
    def memory(self) -> MemoryPlan | None:
        """What memory it was predicted to take and took; None where nobody asked."""
        return self.startup.memory

    @property
    def ready(self) -> bool:
        """Whether every engine is there that will be; not at once after ``load(start="fast")``."""
        return self.startup.ready

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Waits for ``ready``, at most ``timeout`` seconds; answers whether it is."""
        return self.startup.wait(timeout)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._loaded.device

    @property
    def input_policy(self) -> InputPolicy:
        """What becomes of inputs of another type or device: ``refuse`` or ``convert``."""
        return self._call_options.inputs

    @property
    def output_policy(self) -> OutputPolicy:
        """Whose memory outputs are in: ``fresh``, or ``reused`` by the next call."""
        return self._call_options.outputs

    @property
    def stored(self) -> Mapping[str, torch.Tensor]:
        """Every stored tensor by its name in the weight store, where it runs.

        What only engines read is moved there when it is asked for.
        """
        loaded = self._loaded
        return Placed(loaded.stored, lambda tensor: tensor.to(loaded.device))

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of its methods."""
        return tuple(self._programs)

    def segments(self, method: str = "forward") -> tuple[LoadedSegment, ...]:
        """The method's segments in order, each with the kind of engine that runs it."""
        return self._loaded.segments.methods[method]

    def explain(self) -> str:
        """Why this variant was taken and not another, a line each."""
        return self._choice.explain()

    def extra_repr(self) -> str:
        """The bundle's name and variant."""
        return f"{self._bundle.manifest.name!r}, variant={self.variant!r}, device={self.device}"

    # --- calling ---------------------------------------------------------------------------------
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the original's ``forward``; InputMismatchError where the arguments do not fit."""
        return self._call("forward", args, kwargs)

    def method(self, name: str) -> Callable[..., Any]:
        """A method by name, also an attribute where the name is free.

        Raises:
            ConfigError: the bundle has no such method.
        """
        if name not in self._programs:
            raise ConfigError(
                f"the bundle has no method {name!r}, it has {', '.join(self._programs)}",
                hint="choose one of them",
            )
        return lambda *args, **kwargs: self._call(name, args, kwargs)

    def run(
        self,
        method: str,
        inputs: Sequence[torch.Tensor],
        out: Sequence[torch.Tensor] | None = None,
    ) -> list[torch.Tensor]:
        """Runs a method on its flat tensor inputs and answers its flat tensor outputs.

        Args:
            method: its name.
            inputs: the tensors among its arguments, in order.
            out: where the outputs are to be written, one for each; they are answered. None lies in
                the memory of an input.

        Raises:
            InputMismatchError: an input that is not what the manifest says, or an output of another
                type, shape or device.
        """
        call = self._loaded.calls.get(method) or self._method(method)
        recording = is_recording()
        if not recording:
            outputs = call.again(inputs, out)
            if outputs is not None:
                return outputs
        if recording or are_traced(inputs):
            if out is not None:
                raise ConfigError(
                    "a traced program cannot write into given outputs",
                    hint="leave out= away while the program is traced",
                )
            return call.traced(inputs, self)
        return call.flat(inputs, self._state, out)

    def run_on(
        self, method: str, inputs: Sequence[torch.Tensor], states: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """As ``run`` on state that the caller holds, in the program's order, and then what that
        becomes; for the operator of traced programs, and so even while one is traced."""
        return self._method(method).run_on(inputs, states)

    @contextmanager
    def watching(self, watch: Watch) -> Iterator[None]:
        """Runs every segment as ``watch`` says, without CUDA graphs of the whole program, until the
        block ends."""
        self._refit()
        before = self._loaded
        quiet = replace(self._call_options, cuda_graphs="off")
        self._loaded = self._compiled(before.segments.watched(watch), quiet)
        try:
            yield
        finally:
            self._loaded = before

    def smoke(
        self,
        method: str | None = None,
        *,
        degrade: bool = False,
        keep: dict[str, list[tuple[torch.Tensor, ...]]] | None = None,
    ) -> SmokeReport:
        """Replays the golden samples of a method, or of all, each from the state that belongs to
        it; the state is as after ``reset`` when it is done.

        Where outputs are wrong, the report names the segments to blame. With ``degrade`` PyTorch
        runs these from now on, if everything is right then; ``failed_engines`` says so. Where
        ``keep`` is given, the outputs of each sample are put into it by method, in host memory.
        """
        if self._changes.stored:
            raise ConfigError(
                "the golden samples are of the weights that the bundle has, not of those that "
                "were loaded since",
                hint="give these to the bundle with: trtpack update-weights",
            )
        report = SmokeReport(())
        for name in self.methods if method is None else (method,):
            replay = partial(self._replay, name, keep)
            found = replay()
            if not found.passed:
                found = blamed(self, name, found, replay, degrade=degrade)
            report += found
        return report

    def _replay(
        self, method: str, keep: dict[str, list[tuple[torch.Tensor, ...]]] | None
    ) -> SmokeReport:
        described = self._method(method).described
        samples = smoke.golden_samples(self._bundle, described, self.device)
        run: smoke.Run = partial(self._proved, method)
        if keep is not None:
            keep[method] = []
            run = partial(_kept, run, keep[method])
        return smoke.replay(run, samples, described.tolerance)

    def reset(self, states: Mapping[str, torch.Tensor] = NO_STATES) -> None:
        """Puts every state slot back to its first value, or to that of ``states``.

        Raises:
            ConfigError: the bundle has no such slot.
            InputMismatchError: a value that is no tensor of the slot's shape.
        """
        if unknown := sorted(states.keys() - self._state.values.keys()):
            named = ", ".join(self.states) or "none"
            raise ConfigError(
                f"the bundle has no state {unknown[0]!r}, it has {named}",
                hint="choose one of them",
            )
        self._state.reset(states)

    @property
    def states(self) -> Mapping[str, torch.Tensor]:
        """The state slots' present values by name."""
        return dict(self._state.values)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_programs", {}):
            return self.method(name)
        return super().__getattr__(name)

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            call = self._loaded.calls[method]
        except KeyError:
            call = self._method(method)
        tensors = call.convention.tensors(args, kwargs)
        recording = is_recording()
        if not recording:
            outputs = call.again(tensors, None)
            if outputs is not None:
                return call.convention.answer(outputs)
        if recording or are_traced(tensors):
            return call.convention.answer(call.plan.leaves(call.traced(tensors, self), tensors))
        return call(tensors, self._state)

    def _method(self, name: str) -> MethodCall:
        self.method(name)
        return self._loaded.calls[name]

    def _proved(
        self, method: str, sample: Sample
    ) -> tuple[list[torch.Tensor], Mapping[str, torch.Tensor]]:
        self.reset(sample.before)
        outputs = self.run(method, sample.inputs)
        states = {name: value.clone() for name, value in self.states.items()}
        self.reset()
        return outputs, states


def _kept(
    run: smoke.Run, answers: list[tuple[torch.Tensor, ...]], sample: Sample
) -> tuple[Sequence[torch.Tensor], Mapping[str, torch.Tensor]]:
    """What ``run`` answers; its outputs are put into ``answers`` too."""
    outputs, states = run(sample)
    answers.append(tuple(value.cpu().clone() for value in outputs))
    return outputs, states
