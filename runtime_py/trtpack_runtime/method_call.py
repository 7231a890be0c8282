# SPDX-License-Identifier: Apache-2.0
"""All that a call of one method needs, found out before the first one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import is_
from typing import Any, Literal, get_args

import torch

from .calling import Convention
from .device_faults import raise_fault
from .errors import ConfigError
from .execution import Segments
from .given_outputs import OutputCheck, copy_out, run_into
from .input_check import InputCheck, InputPolicy
from .manifest import Method
from .module_weights import state_buffer
from .program import Program
from .repeat import Repeat, repeat_of
from .state_slots import StateSlots, unaliased
from .tracing import Origin, call
from .whole_graph import WholeGraphs, whole_graphs

OutputPolicy = Literal["fresh", "reused"]
"""Whether a call's outputs are the caller's own, or memory that the next call writes to again."""

GraphPolicy = Literal["off", "on", "auto"]
"""Whether calls become CUDA graphs; ``on`` warns where they cannot."""

_KEPT_OUTPUTS = 8
"""For how many shapes of inputs ``reused`` outputs are kept."""


@dataclass(frozen=True)
class CallOptions:
    """How calls treat their inputs and outputs, and whether they become CUDA graphs."""

    inputs: InputPolicy = "refuse"
    outputs: OutputPolicy = "fresh"
    cuda_graphs: GraphPolicy = "off"
    graphs: int = 8

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> CallOptions:
        """Those among the options of a load; others are not looked at.

        Raises:
            ConfigError: an option has another value than it may have.
        """
        given = {name: options[name] for name in cls.__dataclass_fields__ if name in options}
        given = {name: value for name, value in given.items() if value is not None}
        graphs = given.get("cuda_graphs")
        if isinstance(graphs, bool):
            given["cuda_graphs"] = "on" if graphs else "off"
        return cls()._with(**given)

    def _with(self, **given: Any) -> CallOptions:
        for name, allowed in _ALLOWED.items():
            if name in given:
                check_option(name, given[name], get_args(allowed))
        return replace(self, **given)


_ALLOWED = {"inputs": InputPolicy, "outputs": OutputPolicy, "cuda_graphs": GraphPolicy}


def check_option(name: str, value: object, allowed: Collection[str]) -> None:
    """ConfigError where an option of a load has another value than these."""
    if value not in allowed:
        words = " or ".join(map(repr, allowed))
        raise ConfigError(f"unknown value {value!r} of the option {name}", hint=f"give {words}")


class MethodCall:
    """One method over loaded segments; its state is given with every call."""

    def __init__(
        self,
        described: Method,
        program: Program,
        segments: Segments,
        stored: Mapping[str, torch.Tensor],
        device: torch.device,
        options: CallOptions,
        origin: Origin,
    ) -> None:
        self.described, self.device, self._origin = described, device, origin
        self.convention = Convention(
            described.in_tree, described.out_tree, program.inputs, len(program.outputs)
        )
        self.check = InputCheck(described.inputs, device, options.inputs)
        names = [spec.name for spec in described.inputs]
        self.check_out = OutputCheck(described.outputs, names, device)
        self.plan = segments.plan(program, stored)
        self.slots = tuple(slot.slot for slot in program.state)
        self.reuses = options.outputs == "reused"
        self._held: OrderedDict[Any, list[torch.Tensor]] = OrderedDict()
        self.graphs: WholeGraphs | None = None
        if options.cuda_graphs != "off" and device.type == "cuda":
            loud = options.cuda_graphs == "on"
            self.graphs = whole_graphs(
                program, segments, stored, device, loud=loud, size=options.graphs
            )
        self._repeat: Repeat | None = None if self.reuses else repeat_of(self.plan)

    def __call__(self, tensors: Sequence[Any], state: StateSlots) -> Any:
        """The nested answer to a call with these tensors; InputMismatchError where they do not
        fit."""
        inputs = self.check(tensors)
        outputs = self.run(inputs, state)
        return self.convention.answer(self.plan.leaves(outputs, inputs))

    def traced(
        self, tensors: Sequence[torch.Tensor], module: torch.nn.Module
    ) -> list[torch.Tensor]:
        """The outputs as nodes of the program that is traced; it changes the module's state."""
        return call(tensors, self._origin, [state_buffer(module, name) for name in self.slots])

    def run_on(
        self, inputs: Sequence[torch.Tensor], states: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """What a traced program's operator does: answers the outputs, then what the states become,
        which the program holds.

        Raises:
            InputMismatchError: an input that is not what the manifest says.
            ConfigError: a state changes its size, for which a traced program has no room.
        """
        with torch.no_grad():
            inputs = self.check(inputs)
            values = self.plan.run(self.plan.values(inputs, states))
            after = [values[slot] for slot in self.plan.kept]
        for name, old, new in zip(self.slots, states, after, strict=True):
            if old.shape != new.shape:
                raise ConfigError(
                    f"the state {name} changes its size from {list(old.shape)} to "
                    f"{list(new.shape)}, which it cannot in a traced program",
                    hint="call the bundle outside torch.export, torch.jit.trace and torch.compile",
                )
        return [*self.plan.outputs(values), *after]

    def flat(
        self,
        inputs: Sequence[torch.Tensor],
        state: StateSlots,
        out: Sequence[torch.Tensor] | None,
    ) -> list[torch.Tensor]:
        """The flat outputs to flat inputs, in ``out`` where that is given; InputMismatchError where
        either do not fit."""
        if out is None:
            return self.run(self.check(inputs), state)
        if self.check_out.again(inputs, out):
            return self.run(inputs, state, out)
        inputs = self.check(inputs)
        return self.run(inputs, state, out, is_plain=self.check_out(inputs, out))

    def again(
        self, inputs: Sequence[Any], out: Sequence[torch.Tensor] | None
    ) -> list[torch.Tensor] | None:
        """The flat outputs of a call that is like an earlier one in everything; None for any other,
        and for tensors that stand for values of a traced program."""
        if self._repeat is None:
            return None
        try:
            return self._repeat(inputs, out)
        except (RuntimeError, MemoryError) as error:
            raise_fault(error)

    def run(
        self,
        inputs: Sequence[torch.Tensor],
        state: StateSlots,
        out: Sequence[torch.Tensor] | None = None,
        *,
        is_plain: bool = True,
    ) -> list[torch.Tensor]:
        """The outputs to inputs that were checked, as ``out`` was; they never need a gradient.

        ``is_plain`` says whether the tensors of ``out`` are contiguous.

        Raises:
            DeviceError: the device has too little memory, after which the next call may go well;
                DeviceLostError where it failed for good.
        """
        with_grad = torch.is_grad_enabled()
        if with_grad:
            torch._C._set_grad_enabled(False)  # what torch.no_grad() does, without its object
        try:
            return self._run(inputs, state, out, is_plain)
        except (RuntimeError, MemoryError) as error:
            raise_fault(error)
        finally:
            if with_grad:
                torch._C._set_grad_enabled(True)

    def _run(
        self,
        inputs: Sequence[torch.Tensor],
        state: StateSlots,
        out: Sequence[torch.Tensor] | None,
        is_plain: bool,
    ) -> list[torch.Tensor]:
        if out is None and self.reuses and self.graphs is None:
            out = self._held.get(_key(inputs))
        if not self.slots:
            outputs = self._replayed(inputs, (), out)
            if outputs is None:
                values = self._values(inputs, (), out, is_plain)
                outputs = self._placed(values, inputs, out)
            if self._repeat is not None and is_plain:
                self._repeat.note(inputs, out)
            return outputs
        with state.lock:
            states = state.tensors(self.slots)
            outputs = self._replayed(inputs, states, out)
            if outputs is None:
                values = self._values(inputs, states, out, is_plain)
                unaliased(values, self.plan.risky, states)
                state.keep(self.slots, [values[slot] for slot in self.plan.kept])
                outputs = self._placed(values, inputs, out)
            return outputs

    def _replayed(
        self,
        inputs: Sequence[torch.Tensor],
        states: Sequence[torch.Tensor],
        out: Sequence[torch.Tensor] | None,
    ) -> list[torch.Tensor] | None:
        """What a CUDA graph of the whole program answers; None where there is none for this."""
        if self.graphs is None:
            return None
        return self.graphs.run(inputs, states, out, lend=self.reuses)

    def _values(
        self,
        inputs: Sequence[torch.Tensor],
        states: Sequence[torch.Tensor],
        out: Sequence[torch.Tensor] | None,
        is_plain: bool,
    ) -> list[Any]:
        plan = self.plan
        values = plan.values(inputs, states)
        if out is None:
            return plan.run(values)
        if is_plain and plan.is_direct:
            return plan.run_direct(values, out)
        return run_into(plan, values, out)

    def _placed(
        self,
        values: list[Any],
        inputs: Sequence[torch.Tensor],
        out: Sequence[torch.Tensor] | None,
    ) -> list[torch.Tensor]:
        """The outputs where the caller wants them."""
        outputs = self.plan.outputs(values)
        if out is None:
            return self._kept(outputs, inputs) if self.reuses else outputs
        if all(map(is_, outputs, out)):
            return list(out)
        is_own = self.reuses and out is self._held.get(_key(inputs))
        if is_own and any(a.shape != b.shape for a, b in zip(outputs, out, strict=True)):
            return self._kept(outputs, inputs)  # the data told another size
        copy_out(outputs, out)
        return list(out)

    def _kept(
        self, outputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Keeps outputs for the next call with inputs of these shapes, as memory to write to."""
        taken = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        with torch.inference_mode(False):  # else they could not be written to outside of it
            held = [
                output
                if output.is_contiguous()
                and not output.is_inference()
                and output.untyped_storage().data_ptr() not in taken
                else output.clone(memory_format=torch.contiguous_format)
                for output in outputs
            ]
        self._held[_key(inputs)] = held
        if len(self._held) > _KEPT_OUTPUTS:
            self._held.popitem(last=False)
        return list(held)


def _key(inputs: Sequence[torch.Tensor]) -> tuple[torch.Size, ...]:
    return tuple([tensor.shape for tensor in inputs])
