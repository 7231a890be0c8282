# SPDX-License-Identifier: Apache-2.0
"""What a loaded bundle is made of as a module: engines, weights, state, and how they change."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, cast

import torch

from . import compiling
from . import program as program_json
from .bundle import Bundle
from .engine_module import EngineModule, refuse_copies
from .errors import BundleError, ConfigError, TrtpackError
from .execution import LoadedSegment, Placed, Segments
from .finish import Finished
from .input_check import InputPolicy
from .manifest import TensorSpec
from .method_call import CallOptions, MethodCall, OutputPolicy
from .module_weights import destination, keep_state, register_state, register_weights
from .picking import Picked, pick
from .resolve import Choice
from .segment_loading import in_pytorch, load_segments
from .signatures import with_signature
from .startup import Startup
from .state_slots import StateSlots
from .tracing import SEGMENT, Origin, attach
from .weight_changes import Changes, Stale, check_taken, every_segment, others, written

if TYPE_CHECKING:
    from typing_extensions import Self

    from .module import BundleModule

_SHARED = (
    "startup",
    "_bundle",
    "_choice",
    "_own",
    "_failed",
    "_trust",
    "_avoided",
    "_call_options",
    "_programs",
    "_loaded",
    "_changes",
    "_sharers",
)
"""What twins have in common."""


@dataclass(frozen=True)
class Loaded:
    """What calls run on, exchanged as one: a call reads it once."""

    segments: Segments
    stored: dict[str, torch.Tensor]
    device: torch.device
    calls: Mapping[str, MethodCall]


class LoadedModule(torch.nn.Module):
    """A variant's segments with the original's weights and state; ``BundleModule`` is called."""

    def __init__(
        self,
        bundle: Bundle,
        choice: Choice,
        device: torch.device,
        *,
        own: Mapping[str, Finished] | None = None,
        failed: Mapping[str, str] | None = None,
        avoided: Mapping[str, str] | None = None,
        trust: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Loads every segment.

        ``options`` are those of ``CallOptions`` and of ``LoadContext``; the other arguments are
        those of ``load_segments``.
        """
        super().__init__()
        forward = bundle.manifest.methods.get("forward")
        if forward is not None:
            self.__class__ = with_signature(type(self), forward.in_tree)
        self.startup = Startup()
        self._bundle, self._choice = bundle, choice
        self._own, self._failed, self._trust = dict(own or {}), dict(failed or {}), trust
        self._avoided, self._options = dict(avoided or {}), dict(options or {})
        self._call_options = CallOptions.of(self._options)
        self._changes = Changes()
        self._stale: Stale | None = None
        self._made: dict[str, torch.nn.Parameter] = {}
        self._refitting, self._sharers = threading.RLock(), weakref.WeakSet[LoadedModule]([self])
        variant = bundle.manifest.variants[choice.variant]
        self._programs = {
            method: program_json.from_json(bundle.json(member))
            for method, member in variant.programs.items()
        }
        views = bundle.weights
        stored = {  # what is equal is stored once; here each is written to by itself
            name: view.tensor() if view.same_as is None else view.tensor().clone()
            for name, view in views.items()
        }
        host = torch.device("cpu")
        self._loaded = Loaded(Segments({}), stored, host, {})
        self._state = self._new_state()
        self.register_load_state_dict_post_hook(keep_state)
        self.eval()
        if device == host:
            self._engage(self._load_segments(host, stored), stored, host)
        else:
            self._register()
            self.to(device)

    def engine(self, segment: str) -> EngineModule:
        """A segment as a module of its own, also found as ``engines.<segment>``.

        Raises:
            ConfigError: the variant has no such segment.
        """
        engines = self._modules["engines"]
        found = engines._modules.get(segment) if engines is not None else None
        if not isinstance(found, EngineModule):
            names = [s.name for loaded in self._loaded.segments.methods.values() for s in loaded]
            raise ConfigError(
                f"there is no segment {segment!r}, there are {', '.join(names)}",
                hint="choose one of them",
            )
        return found

    def configured(
        self, *, inputs: InputPolicy | None = None, outputs: OutputPolicy | None = None
    ) -> Self:
        """Changes how calls treat their inputs and outputs; answers the module itself.

        Args:
            inputs: ``"refuse"`` what is on another device or of another type, as PyTorch does, or
                ``"convert"`` it where nothing is lost.
            outputs: ``"fresh"`` tensors, which are the caller's, or ``"reused"`` ones, which the
                next call with equal shapes overwrites.

        Raises:
            ConfigError: another value.
        """
        given = {k: v for k, v in (("inputs", inputs), ("outputs", outputs)) if v is not None}
        self._call_options = CallOptions.of({**self._options, **given})
        self._options |= given
        self._loaded = self._compiled(self._loaded.segments)
        return self

    def twin(self) -> Self:
        """Another module over the same engines and weights, with state of its own: first values.

        Neither engines nor weights are loaded or copied; it may be made and called while this one
        is called by another thread.
        """
        self._refit()
        twin = type(self).__new__(type(self))
        torch.nn.Module.__init__(twin)
        for name in _SHARED:
            twin.__dict__[name] = self.__dict__[name]
        twin._stale, twin._made, twin._refitting = None, {}, threading.RLock()
        self._sharers.add(twin)
        twin._options, twin._avoided = dict(self._options), dict(self._avoided)
        twin._state = twin._new_state()
        twin.register_load_state_dict_post_hook(keep_state)
        twin.eval()
        twin._loaded = twin._compiled(self._loaded.segments)
        twin._register()
        return twin

    def take_over(self, other: LoadedModule) -> None:
        """Runs on another one's engines from the next call on; a call that runs meanwhile ends on
        the old ones. The state stays."""
        self._choice, self._own, self._failed = other._choice, other._own, other._failed
        mine = {"inputs": self._call_options.inputs, "outputs": self._call_options.outputs}
        self._avoided, self._options = other._avoided, {**other._options, **mine}
        self._call_options = CallOptions.of(self._options)
        self._loaded = other._loaded
        if self._call_options != other._call_options:  # it was configured meanwhile
            self._loaded = self._compiled(other._loaded.segments)
        self._register()

    def give_up(self, problem: TrtpackError, *, strict: bool) -> None:
        """Stays in PyTorch, since its engines could not be loaded; strict: refuses every call."""
        segments = self._loaded.segments
        failed = dict.fromkeys(segments.failed, problem.message)
        segments = replace(segments, failed=failed)
        self._loaded = self._compiled(segments.refusing(problem) if strict else segments)
        self._register()

    @property
    def loaded(self) -> Loaded:
        """What calls run on now."""
        return self._loaded

    def put_in_pytorch(self, segment: str, reason: str) -> None:
        """Runs a segment in PyTorch from the next call on; ``failed_engines`` tells the reason."""
        self._refit()
        loaded = self._loaded
        placed = Placed(loaded.stored, lambda tensor: tensor.to(loaded.device))
        programs, device = self._programs.values(), loaded.device
        segments = in_pytorch(
            loaded.segments, segment, reason, self._bundle, programs, placed, device
        )
        self._avoided[segment] = reason
        self._engage(segments, {**loaded.stored, **placed.moved}, device)

    def put_back(self, loaded: Loaded) -> None:
        """Runs on what ``loaded`` told before."""
        self._loaded = loaded
        self._avoided = {n: r for n, r in self._avoided.items() if n in loaded.segments.failed}
        self._register()

    # --- weights and state -----------------------------------------------------------------------
    def _new_state(self) -> StateSlots:
        initial = {}
        for slot in self._bundle.manifest.state:
            if slot.initial not in self._loaded.stored:
                raise BundleError(
                    f"the bundle has no tensor {slot.initial!r}, which its manifest names",
                    hint="build the bundle again",
                )
            initial[slot.name] = self._loaded.stored[slot.initial]
        return StateSlots(initial, self._loaded.device, self._on_replaced)

    def _on_replaced(self, slot: str, value: torch.Tensor) -> None:
        register_state(self, self._bundle.manifest.weights, slot, value)

    def _register(self) -> None:
        """Registers the original's weights, every segment below ``engines``, and the module itself
        where traced programs look for it."""
        loaded, weights = self._loaded, self._bundle.manifest.weights
        register_weights(self, weights, loaded.stored, self._state.values, self._made)
        engines = self._modules.setdefault("engines", torch.nn.Module().eval())
        assert engines is not None
        for segments in loaded.segments.methods.values():
            for segment in segments:
                origin = self._origin(SEGMENT + segment.name, loaded.device)
                engines._modules[segment.name] = EngineModule(
                    segment, origin, loaded.device, self._taken(segment)
                )
        attach(cast("BundleModule", self))

    def _taken(self, segment: LoadedSegment) -> Sequence[TensorSpec]:
        """What a compiled segment takes, which its library does not look at."""
        if segment.kind != compiling.KIND:
            return ()
        refs = self._bundle.manifest.variants[self._choice.variant].engines
        built = self._own.get(segment.name) or refs[segment.name]
        return compiling.taken_inputs(built.record)

    def _origin(self, part: str, device: torch.device) -> Origin:
        path = self._bundle.path.absolute()
        return Origin(str(path), self.identity, self._choice.variant, part, str(device))

    @property
    def stale(self) -> bool:
        """Whether weights were loaded that its engines get at the next call."""
        return self._stale is not None

    @property
    def identity(self) -> str:
        """The bundle's digest, and with other weights than its own a mark of these."""
        return "+".join(filter(None, (self._bundle.digest, self._changes.mark)))

    def refit(self) -> None:
        """Gives engines the module's weights: what ``load_state_dict`` gave it, which the next call
        does otherwise, and what was written in place, which only this looks for.

        Every weight is read and compared with the bundle's file.

        Raises:
            BundleError: the file is no longer in place, a constant follows from the weights in a
                way that the bundle does not tell, or (strict) an engine does not take them.
            ConfigError: an engine cannot take them.
            DeviceError: the GPU has no memory for an engine beside the present one.
        """
        self.startup.wait()
        with self._refitting, torch.inference_mode(False), torch.no_grad():
            if self._stale is None or self._bundle.is_in_place():
                given = written(self, self._bundle, self._changes, self._state.values)
                if given:
                    self._change(given)
            self._refit()

    def _refit(self) -> Segments:
        """Gives stale engines their weights; answers the segments that run then."""
        with self._refitting, torch.inference_mode(False), torch.no_grad():
            stale, loaded = self._stale, self._loaded
            if stale is None:
                return loaded.segments
            from .starting import told

            alone = len(self._sharers) == 1  # twins go on with the weights they have
            kept = stale.kept(self._bundle, self._changes, in_place=alone)
            placed = Placed(loaded.stored, lambda tensor: tensor.to(loaded.device))
            segments = self._load_segments(loaded.device, placed, kept)
            self._stale = None
            self._engage(segments, {**loaded.stored, **placed.moved}, loaded.device)
        if segments.failed.keys() & stale.names:
            told(cast("BundleModule", self))
        return segments

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, *rest: Any
    ) -> None:
        """Takes other weights, which engines that can be refitted get at the next call."""
        *_, errors = rest
        names = self._bundle.manifest.weights
        with torch.inference_mode(False):
            given = others(names, self._loaded.stored, state_dict, prefix, self._state.values)
        if given:
            try:
                self._change(given)
            except TrtpackError as error:
                errors.append(f"{error.message}; {error.hint}")
                now = self.state_dict()
                state_dict.update({prefix + name: now[name] for name in given})
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *rest)

    def _change(self, given: Mapping[str, torch.Tensor]) -> None:
        """Takes weights over and marks the engines that read them as stale.

        Raises:
            BundleError: a constant follows from the weights in a way that the bundle does not tell.
            ConfigError: an engine cannot take them.
        """
        self.startup.wait()
        with self._refitting, torch.inference_mode(False), torch.no_grad():
            before, loaded = self._changes, self._loaded
            changes = before.with_state(given, self._bundle, self._programs.values())
            names = before.stored.keys() | changes.stored.keys()
            every = every_segment(self._bundle, self._programs.values())
            strict = bool(self._options.get("strict"))
            affected = check_taken(every, names, changes, self._picked, strict=strict)
            stored = dict(loaded.stored)
            for name in names:
                new = changes.stored.get(name)
                value = self._bundle.weights[name].tensor() if new is None else new
                stored[name] = value.to(stored[name].device)
            self._changes = changes
            stale = self._stale or Stale(loaded.segments)
            self._stale = replace(stale, names=stale.names | affected)
            segments = self._stale.late(self._refit)
            quiet = replace(self._call_options, cuda_graphs="off")
            self._engage(segments, stored, loaded.device, quiet)

    def _picked(self, segment: str) -> Picked | None:
        """The engine that runs a segment; None where PyTorch does."""
        if segment in self._avoided:
            return None
        ref = self._bundle.manifest.variants[self._choice.variant].engines.get(segment)
        return pick(self._choice, segment, ref, self._own.get(segment), trust=self._trust)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """Moves to another device; everything else that ``fn`` may do is refused."""
        self.startup.wait()  # engines that are still to come are for the present device
        self._refit()
        loaded = self._loaded
        device = destination(fn, loaded.stored.values(), loaded.device)
        if device == loaded.device:
            return self
        placed = Placed(loaded.stored, fn)
        segments = self._load_segments(device, placed)
        if not segments.on_engines:
            placed.move_all()
        with self._state.lock:
            self._state.move(fn, device)
            self._engage(segments, {**loaded.stored, **placed.moved}, device)
        return self

    def _engage(
        self,
        segments: Segments,
        stored: dict[str, torch.Tensor],
        device: torch.device,
        options: CallOptions | None = None,
    ) -> None:
        """Makes these segments the ones that calls run on."""
        self._loaded = Loaded(segments, stored, device, {})
        self._loaded = self._compiled(segments, options)
        self._register()

    def _compiled(self, segments: Segments, options: CallOptions | None = None) -> Loaded:
        """These segments with every method ready to be called."""
        stored, device = self._loaded.stored, self._loaded.device
        calls = {
            name: MethodCall(
                self._bundle.manifest.methods[name],
                program,
                segments,
                stored,
                device,
                options or self._call_options,
                self._origin(name, device),
            )
            for name, program in self._programs.items()
        }
        return Loaded(segments, stored, device, calls)

    def _load_segments(
        self,
        device: torch.device,
        constants: Mapping[str, torch.Tensor],
        kept: Segments | None = None,
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
            avoided=self._avoided,
            changes=self._changes,
            kept=kept,
        )

    def __deepcopy__(self, memo: Any) -> NoReturn:
        refuse_copies(str(self._bundle.path))

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        refuse_copies(str(self._bundle.path))
