# SPDX-License-Identifier: Apache-2.0
"""A bundle as a ``torch.nn.Module`` that is called like the model it was built from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import torch

from . import program as program_json
from . import smoke, treespec
from .bundle import Bundle
from .errors import BundleError, ConfigError
from .execution import LoadedSegment, Placed, Segments, Watch
from .finish import Finished
from .input_check import check_inputs
from .manifest import Method
from .resolve import Choice
from .segment_loading import load_segments
from .smoke import SmokeReport


class BundleModule(torch.nn.Module):
    """A loaded variant. Inputs and outputs are nested as the original's.

    Its parameters and buffers are the original's, by name, and lie where the bundle is mapped. It
    holds the bundle's state; calls are not to overlap.
    """

    def __init__(
        self,
        bundle: Bundle,
        choice: Choice,
        device: torch.device,
        *,
        own: Mapping[str, Finished] | None = None,
        failed: Mapping[str, str] | None = None,
        trust: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._bundle, self._choice, self._device = bundle, choice, torch.device("cpu")
        self._own, self._failed, self._trust = dict(own or {}), dict(failed or {}), trust
        self._options = dict(options or {})
        variant = bundle.manifest.variants[choice.variant]
        self._programs = {
            method: program_json.from_json(bundle.json(member))
            for method, member in variant.programs.items()
        }
        self._stored: dict[str, torch.Tensor] = {
            name: view.tensor() for name, view in bundle.weights.items()
        }
        self._states: dict[str, torch.Tensor] = {
            slot.name: self._initial(slot.initial).clone() for slot in bundle.manifest.state
        }
        self._register_weights()
        self.eval()
        if device == self._device:
            self._segments = self._load_segments(self._device, self._stored)
        else:
            self.to(device)

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
        return self._choice.degraded or bool(self.failed_engines)

    @property
    def failed_engines(self) -> Mapping[str, str]:
        """Why segments run in PyTorch whose engine could not be built or loaded, by segment."""
        return {**self._failed, **self._segments.failed}

    @property
    def own_engines(self) -> Mapping[str, Finished]:
        """The engines that this machine built itself, by segment."""
        return dict(self._own)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._device

    @property
    def stored(self) -> Mapping[str, torch.Tensor]:
        """Every stored tensor by its name in the weight store, where it runs.

        What only engines read is moved there when it is asked for.
        """
        return Placed(self._stored, lambda tensor: tensor.to(self._device))

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of its methods."""
        return tuple(self._programs)

    def segments(self, method: str = "forward") -> tuple[LoadedSegment, ...]:
        """The method's segments in order, each with the kind of engine that runs it."""
        return self._segments.methods[method]

    def explain(self) -> str:
        """Why this variant was taken and not another, a line each."""
        return self._choice.explain()

    def extra_repr(self) -> str:
        """The bundle's name and variant."""
        return f"{self._bundle.manifest.name!r}, variant={self.variant!r}, device={self._device}"

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

    def run(self, method: str, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Runs a method on its flat tensor inputs and answers its flat tensor outputs.

        Raises:
            InputMismatchError: an input that is not what the manifest says.
        """
        check_inputs(self._described(method).inputs, inputs, self._device)
        results = self._run(method, inputs)
        return [value for value in results if isinstance(value, torch.Tensor)]

    @contextmanager
    def watching(self, watch: Watch) -> Iterator[None]:
        """Runs every segment as ``watch`` says, until the block ends."""
        before = self._segments
        self._segments = before.watched(watch)
        try:
            yield
        finally:
            self._segments = before

    def smoke(self, method: str | None = None) -> SmokeReport:
        """Replays the golden samples of a method, or of all, each from fresh state; the state is
        as after ``reset`` when it is done."""
        report = SmokeReport(())
        for name in self.methods if method is None else (method,):
            described = self._described(name)
            samples = smoke.golden_samples(self._bundle, described, self._device)
            report += smoke.replay(partial(self._fresh, name), samples, described.tolerance)
        return report

    def reset(self) -> None:
        """Puts every state slot back to its first value."""
        for slot in self._bundle.manifest.state:
            self._set_state(slot.name, self._initial(slot.initial).to(self._device, copy=True))

    @property
    def states(self) -> Mapping[str, torch.Tensor]:
        """The state slots' present values by name."""
        return dict(self._states)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_programs", {}):
            return self.method(name)
        return super().__getattr__(name)

    def _call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        described = self._described(method)
        leaves = treespec.flatten_call(described.in_tree, args, kwargs)
        flat = self._programs[method].inputs
        tensors = [leaf for leaf, name in zip(leaves, flat, strict=True) if name is not None]
        check_inputs(described.inputs, tensors, self._device)
        return treespec.unflatten(described.out_tree, self._run(method, tensors))

    def _run(self, method: str, inputs: Sequence[torch.Tensor]) -> list[Any]:
        program = self._programs[method]
        with torch.no_grad():
            outputs, states = self._segments.run(program, inputs, self._stored, self._states)
            for slot, value in states.items():
                self._set_state(slot, value)
        return outputs

    def _fresh(
        self, method: str, inputs: Sequence[torch.Tensor]
    ) -> tuple[list[torch.Tensor], Mapping[str, torch.Tensor]]:
        self.reset()
        outputs = self.run(method, inputs)
        states = {name: value.clone() for name, value in self._states.items()}
        self.reset()
        return outputs, states

    def _described(self, method: str) -> Method:
        try:
            return self._bundle.manifest.methods[method]
        except KeyError:
            self.method(method)
            raise

    # --- weights and state -----------------------------------------------------------------------
    def _initial(self, name: str) -> torch.Tensor:
        if name not in self._stored:
            raise BundleError(
                f"the bundle has no tensor {name!r}, which its manifest names",
                hint="build the bundle again",
            )
        return self._stored[name]

    def _register_weights(self) -> None:
        """Registers the original's names; tied parameters stay one tensor."""
        weights = self._bundle.manifest.weights
        made: dict[str, torch.nn.Parameter] = {}
        for name, stored in weights.parameters.items():
            if stored not in made:
                made[stored] = torch.nn.Parameter(self._initial(stored), requires_grad=False)
            _owner(self, name)._parameters[_last(name)] = made[stored]
        for name, stored in weights.buffers.items():
            value = self._states.get(name, self._initial(stored))
            _owner(self, name)._buffers[_last(name)] = value

    def _set_state(self, slot: str, value: torch.Tensor) -> None:
        old = self._states[slot]
        if old.shape == value.shape:
            old.copy_(value)
            return
        self._states[slot] = value
        if slot in self._bundle.manifest.weights.buffers:
            _owner(self, slot)._buffers[_last(slot)] = value

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, *rest: Any
    ) -> None:
        """Accepts the weights it has; others would leave the engines behind."""
        *_, errors = rest
        for name, own in self.state_dict().items():
            given = state_dict.get(prefix + name)
            if given is not None and name not in self._states and not _same(own, given):
                errors.append(
                    f"{prefix}{name}: the engines were built with other weights; "
                    "give these to the bundle with: trtpack update-weights"
                )
                state_dict[prefix + name] = own
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *rest)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """Moves to another device; everything else that ``fn`` may do is refused."""
        device = _destination(fn, self._stored.values(), self._device)
        if device == self._device:
            return self
        placed = Placed(self._stored, fn)
        segments = self._load_segments(device, placed)
        if not segments.on_engines:
            placed.move_all()
        self._segments, self._device = segments, device
        self._stored = {**self._stored, **placed.moved}
        self._states = {name: fn(value) for name, value in self._states.items()}
        self._register_weights()
        return self

    def _load_segments(
        self, device: torch.device, constants: Mapping[str, torch.Tensor]
    ) -> Segments:
        return load_segments(
            self._bundle,
            self._choice,
            self._programs.values(),
            constants,
            device,
            self._own,
            trust=self._trust,
            options=self._options,
        )

    def __deepcopy__(self, memo: Any) -> NoReturn:
        self._refuse_copies()

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        self._refuse_copies()

    def _refuse_copies(self) -> NoReturn:
        raise ConfigError(
            "a loaded bundle holds engines and cannot be copied or pickled",
            hint=f"load {self._bundle.path} again where it is needed",
        )


def _destination(
    fn: Callable[[torch.Tensor], torch.Tensor],
    tensors: Iterable[torch.Tensor],
    device: torch.device,
) -> torch.device:
    """Where ``fn`` moves tensors; ConfigError if it changes their type."""
    target = device
    for dtype in {tensor.dtype for tensor in tensors} or {torch.float32}:
        probe = fn(torch.empty(0, dtype=dtype, device=device))
        if probe.dtype != dtype:
            names = [str(t).removeprefix("torch.") for t in (dtype, probe.dtype)]
            raise ConfigError(
                f"cannot turn the {names[0]} weights of a bundle into {names[1]}",
                hint=f"build it with --dtype {names[1]}",
            )
        target = probe.device
    return target


def _owner(root: torch.nn.Module, name: str) -> torch.nn.Module:
    """The module that holds ``name``, made where it is missing.

    Written past ``add_module``: an original's name may be one of this class's own.
    """
    module = root
    for part in name.split(".")[:-1]:
        child = module._modules.get(part)
        if child is None:
            child = module._modules[part] = torch.nn.Module().eval()
        module = child
    return module


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _same(own: torch.Tensor, given: torch.Tensor) -> bool:
    return own.shape == given.shape and own.dtype == given.dtype and torch.equal(
        own, given.to(own.device)
    )  # fmt: skip
