# SPDX-License-Identifier: Apache-2.0
"""Nested inputs and outputs as plain JSON, flattened as ``torch.utils._pytree`` flattens them.

    "*"                                a leaf: a tensor, or whatever stands for one (None too)
    {"value": 3}                       a leaf that is no tensor and is always this value
    {"tuple": [...]}  {"list": [...]}  sequences
    {"dict": [[key, spec], ...]}       a dict, in this order; {"ordered_dict": ...} alike
    {"namedtuple": [[name, spec], ...], "class": "module.Name"}
    {"record": [[name, spec], ...], "class": "module.Name"}   a dataclass, transformers' ModelOutput
    {"call": {"parameters": [names], "args": [...], "kwargs": [[name, spec], ...]}}

Classes are named, never loaded: one that the program has imported is used, otherwise a named tuple
is made up and a record becomes a ``Record``. Nothing here needs PyTorch.
"""

from __future__ import annotations

import collections
import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .errors import BundleError, ConfigError, InputMismatchError
from .records import named_tuple, record

LEAF = "*"
Spec = Any
_NO_VALUE = object()
_PLAIN = (bool, int, float, str, type(None))


def encode(structure: Any, leaves: Sequence[Any] | None = None) -> Spec:
    """A torch ``TreeSpec`` or a nested example as JSON.

    ``leaves`` are the values of a TreeSpec's leaves, so that leaves which are no tensors are kept.

    Raises:
        ConfigError: a container type that cannot be stored.
    """
    if hasattr(structure, "num_leaves") and hasattr(structure, "context"):
        return _encode_treespec(structure, iter(leaves) if leaves is not None else None)
    return _encode_value(structure)


def encode_call(
    structure: Any,
    signature: inspect.Signature | None = None,
    leaves: Sequence[Any] | None = None,
) -> Spec:
    """The structure of ``(args, kwargs)`` as JSON; a signature lets positions be given by name."""
    match encode(structure, leaves):
        case {"tuple": [{"tuple": args}, {"dict": kwargs}]}:
            call = {"parameters": _parameters(signature), "args": args, "kwargs": kwargs}
            return {"call": call}
    raise ConfigError(
        "the inputs are not (args, kwargs)", hint="pass positional and keyword arguments"
    )


def flatten(spec: Spec, value: Any, path: str = "") -> list[Any]:
    """The leaves of a value with this structure, in order.

    Raises:
        InputMismatchError: another structure; names the path, wanted and got.
    """
    found: list[Any] = []
    for part, item, where in _children(spec, value, path):
        if part is None:
            found.append(item)
        else:
            found.extend(flatten(part, item, where))
    return found


def flatten_call(spec: Spec, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The leaves of a call, in order; raises as ``flatten``.

    Arguments may be given by position or by name, as the original's signature allows; None for a
    parameter that was not part of the capture is as good as leaving it out.
    """
    if "call" not in spec:
        return flatten(spec, (tuple(args), dict(kwargs)))
    call = spec["call"]
    names, count = call["parameters"], len(call["args"])
    given = _by_name(names or [f"args[{i}]" for i in range(count)], args, kwargs)
    keywords = [name for name, _ in call["kwargs"]]
    positions = names[:count] or [f"args[{i}]" for i in range(count)]
    wanted = [*positions, *keywords]
    given = {k: v for k, v in given.items() if k in wanted or v is not None or k not in names}
    _check_keys(wanted, given, "", "arguments")
    leaves: list[Any] = []
    for i, part in enumerate(call["args"]):
        leaves.extend(flatten(part, given[positions[i]], f"args[{i}]"))
    for name, part in call["kwargs"]:
        leaves.extend(flatten(part, given[name], name))
    return leaves


def unflatten(spec: Spec, leaves: Sequence[Any]) -> Any:
    """The nested value with these leaves; BundleError if their number is another."""
    rest = iter(leaves)
    try:
        value = _build(spec, rest)
    except StopIteration:
        value = _NO_VALUE
    if value is _NO_VALUE or next(rest, _NO_VALUE) is not _NO_VALUE:
        raise BundleError(
            f"malformed structure: {len(leaves)} leaves do not fill it",
            hint="build the bundle again",
        )
    return value


def leaf_paths(spec: Spec, path: str = "") -> list[str]:
    """How a user writes each leaf, in order: ``args[0]['pixel_values']``, ``mask``."""
    return [path + "".join(text for text, _ in steps) for steps in _leaves(spec)]


def leaf_names(spec: Spec, root: str) -> list[str]:
    """A name for each leaf: its keys and positions joined by dots, after ``root`` where it has none
    or begins with a position: ``output``, ``output.0``, ``logits``, ``boxes.1``."""
    names = []
    for steps in _leaves(spec):
        keys = [str(key) for _, key in steps]
        named = steps and isinstance(steps[0][1], str)
        names.append(".".join(keys if named else [root, *keys]))
    return names


def _leaves(spec: Spec) -> Iterator[tuple[tuple[str, str | int], ...]]:
    """The steps to each leaf: how a user writes it, and its key or position."""
    match spec:
        case "*" | {"value": _}:
            yield ()
            return
        case {"call": {"args": args, "kwargs": kwargs}}:
            parts = [(f"args[{i}]", i, s) for i, s in enumerate(args)]
            parts += [(name, name, s) for name, s in kwargs]
        case {"tuple": items} | {"list": items}:
            parts = [(f"[{i}]", i, s) for i, s in enumerate(items)]
        case {"dict": fields} | {"ordered_dict": fields}:
            parts = [(f"[{key!r}]", key, s) for key, s in fields]
        case {"namedtuple": fields} | {"record": fields}:
            parts = [(f".{name}", name, s) for name, s in fields]
        case _:
            raise _malformed(spec)
    for text, key, part in parts:
        for steps in _leaves(part):
            yield ((text, key), *steps)


def _children(spec: Spec, value: Any, path: str) -> Iterator[tuple[Spec, Any, str]]:
    """``(spec, value, path)`` of each part; spec None for a leaf."""
    match spec:
        case "*":
            yield None, value, path
        case {"value": fixed}:
            if type(value) is not type(fixed) or value != fixed:
                raise _mismatch(path, f"the captured value {fixed!r}", repr(value))
            yield None, value, path
        case {"tuple": items} | {"list": items}:
            if not isinstance(value, list | tuple) or len(value) != len(items):
                kind = "tuple" if "tuple" in spec else "list"
                raise _mismatch(path, f"a {kind} of {len(items)}", _described(value))
            for i, part in enumerate(items):
                yield part, value[i], f"{path}[{i}]"
        case {"dict": fields} | {"ordered_dict": fields}:
            if not isinstance(value, Mapping):
                keys = ", ".join(repr(key) for key, _ in fields)
                raise _mismatch(path, f"a dict with keys {keys}", _described(value))
            _check_keys([key for key, _ in fields], value, path, "keys")
            for key, part in fields:
                yield part, value[key], f"{path}[{key!r}]"
        case {"namedtuple": fields, "class": name}:
            if not isinstance(value, tuple) or len(value) != len(fields):
                raise _mismatch(path, f"{name} with {len(fields)} fields", _described(value))
            for i, (field, part) in enumerate(fields):
                yield part, value[i], f"{path}.{field}"
        case {"record": fields, "class": name}:
            for field, part in fields:
                item = _field(value, field)
                if item is _NO_VALUE:
                    raise _mismatch(path, f"{name} with {field!r}", _described(value))
                yield part, item, f"{path}.{field}"
        case _:
            raise _malformed(spec)


def _build(spec: Spec, leaves: Iterator[Any]) -> Any:
    match spec:
        case "*" | {"value": _}:
            return next(leaves)
        case {"tuple": items}:
            return tuple([_build(part, leaves) for part in items])
        case {"list": items}:
            return [_build(part, leaves) for part in items]
        case {"dict": fields}:
            return {key: _build(part, leaves) for key, part in fields}
        case {"ordered_dict": fields}:
            return collections.OrderedDict((key, _build(part, leaves)) for key, part in fields)
        case {"namedtuple": fields, "class": str(name)}:
            return named_tuple(name, {key: _build(part, leaves) for key, part in fields})
        case {"record": fields, "class": str(name)}:
            return record(name, {key: _build(part, leaves) for key, part in fields})
    raise _malformed(spec)


def _encode_treespec(spec: Any, leaves: Iterator[Any] | None) -> Spec:
    if spec.type is None or spec.is_leaf():
        return _encode_leaf(next(leaves)) if leaves is not None else LEAF
    children = list(spec.children() if callable(getattr(spec, "children", None)) else
                    spec.children_specs)  # fmt: skip
    parts = [_encode_treespec(child, leaves) for child in children]
    context = spec.context
    if spec.type in (tuple, list):
        return {spec.type.__name__: parts}
    if spec.type is collections.namedtuple:
        return _named("namedtuple", context, context._fields, parts)
    if issubclass(spec.type, tuple):
        return _named("namedtuple", spec.type, _fields_of(spec.type), parts)
    if spec.type is collections.defaultdict:
        context = context[1]
    if issubclass(spec.type, dict) and spec.type.__module__ in ("builtins", "collections"):
        kind = "ordered_dict" if spec.type is collections.OrderedDict else "dict"
        return {kind: [[_key(key), part] for key, part in zip(context, parts, strict=True)]}
    if dataclasses.is_dataclass(spec.type):
        names = context[0] if context and isinstance(context[0], list | tuple) else context
        return _named("record", spec.type, names, parts)
    raise _unknown(spec.type)


def _encode_value(value: Any) -> Spec:
    kind = type(value)
    if kind in (tuple, list):
        return {kind.__name__: [_encode_value(item) for item in value]}
    if isinstance(value, tuple) and _fields_of(kind):
        return _named("namedtuple", kind, _fields_of(kind), [_encode_value(item) for item in value])
    if dataclasses.is_dataclass(kind):
        names = list(value) if isinstance(value, Mapping) else _set_fields(value)
        return _named("record", kind, names, [_encode_value(_field(value, n)) for n in names])
    if isinstance(value, dict):
        name = "ordered_dict" if kind is collections.OrderedDict else "dict"
        return {name: [[_key(key), _encode_value(item)] for key, item in value.items()]}
    return _encode_leaf(value)


def _encode_leaf(value: Any) -> Spec:
    return {"value": value} if isinstance(value, _PLAIN) and value == value else LEAF


def _named(kind: str, cls: type, names: Sequence[str], parts: Sequence[Spec]) -> Spec:
    fields = [[name, part] for name, part in zip(names, parts, strict=True)]
    return {kind: fields, "class": f"{cls.__module__}.{cls.__qualname__}"}


def _fields_of(cls: type) -> tuple[str, ...]:
    fields: Any = getattr(cls, "_fields", None) or getattr(cls, "__match_args__", ())
    return tuple(fields)


def _set_fields(value: Any) -> list[str]:
    names = [field.name for field in dataclasses.fields(value)]
    return [name for name in names if getattr(value, name) is not None]


def _key(key: Any) -> str | int:
    if isinstance(key, str | int) and not isinstance(key, bool):
        return key
    raise ConfigError(
        f"cannot store a dict with key {key!r} of type {type(key).__name__}",
        hint="use strings or integers as keys of nested inputs and outputs",
    )


def _field(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(name, _NO_VALUE)
    return getattr(value, name, _NO_VALUE)


def _parameters(signature: inspect.Signature | None) -> list[str]:
    if signature is None:
        return []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in signature.parameters.values() if p.kind not in variadic]


def _by_name(
    names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    if len(args) > len(names):
        raise _mismatch("", f"at most {len(names)} positional arguments", str(len(args)))
    given = dict(zip(names, args))  # noqa: B905 fewer positions than names
    for name, value in kwargs.items():
        if name in given:
            raise _mismatch(name, "one value", "two, by position and by name")
        given[name] = value
    return given


def _check_keys(wanted: Sequence[Any], got: Mapping[Any, Any], path: str, what: str) -> None:
    missing = [key for key in wanted if key not in got]
    extra = [key for key in got if key not in wanted]
    if missing or extra:
        raise _mismatch(path, f"{what} {_names(wanted) or 'none'}", _names(list(got)) or "none")


def _names(keys: Sequence[Any]) -> str:
    return ", ".join(map(repr, keys))


def _described(value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, Mapping):
        return f"a {kind} with keys {_names(list(value)) or 'none'}"
    if isinstance(value, list | tuple):
        return f"a {kind} of {len(value)}"
    return f"a {kind}"


def _mismatch(path: str, wanted: str, got: str) -> InputMismatchError:
    where = f"input {path}" if path else "inputs"
    return InputMismatchError(
        f"{where}: wanted {wanted}, got {got}",
        hint="call it as the model was called when it was built, trtpack inspect shows how",
    )


def _malformed(spec: Any) -> BundleError:
    return BundleError(f"malformed structure: {spec!r}", hint="build the bundle again")


def _unknown(cls: type) -> ConfigError:
    return ConfigError(
        f"cannot store inputs or outputs of type {cls.__module__}.{cls.__qualname__}",
        hint="return tensors in tuples, lists, dicts, named tuples or dataclasses",
    )
