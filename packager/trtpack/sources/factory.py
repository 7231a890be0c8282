# SPDX-License-Identifier: Apache-2.0
"""Models from the user's own code: ``file.py:factory`` and ``package.module:factory``."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import linecache
import sys
import sysconfig
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError, SourceError
from ..spelling import nearest
from .examples import Call
from .loaded import Loaded
from .methods import Method, are_methods, check_methods

GIVEN = "the given model"
"""What messages call a model that is handed over in memory."""
_RETURNS = "return a module, (module, inputs) or (module, args, kwargs) from the factory"
_RAISED = "correct the line, or run the factory in Python to see the whole traceback"
_PLAIN_NAMES = {
    prefix + name
    for prefix in ("", "make", "make_", "build", "build_", "create_", "get_", "load_")
    for name in ("", "model", "net", "module", "factory")
}


def load_file(path: Path, factory: str) -> Loaded:
    """``file.py:factory``; modules beside the file can be imported, as with ``python file.py``.

    Raises:
        SourceError: no such file or factory, code that raises (with its line), a wrong result.
    """
    if not path.is_file():
        raise _no_file(path, f":{factory}")
    try:
        module = import_file(path)
    except (Exception, SystemExit) as error:
        raise raised(error, f"importing {path}") from error
    generic = factory in _PLAIN_NAMES
    return _call(module, factory, str(path), path.stem if generic else factory)


def import_file(path: Path) -> ModuleType:
    """The module that a file makes; it can import modules beside it."""
    name = f"_trtpack_source_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    linecache.checkcache(str(path))
    spec.loader.exec_module(module)
    return module


def origin_of(text: str, *, what: str, flag: str, hint: str) -> tuple[str, str]:
    """The file, or the package's module, of ``file.py:name``, and the name. Imports nothing.

    Raises:
        ConfigError: a text of another form.
        SourceError: there is no such file.
    """
    origin, colon, name = text.rpartition(":")
    if not colon or not origin or not name.isidentifier():
        raise ConfigError(f"bad {what} {text!r}", hint=hint)
    path = Path(origin).expanduser()
    if path.suffix == ".py" and not path.is_file():
        raise SourceError(f"there is no file {path}", hint=f"check the path after {flag}")
    return origin, name


def named_object(text: str, *, what: str, flag: str, hint: str) -> Any:
    """What ``file.py:name`` or ``package.module:name`` names.

    Args:
        text: as it was given.
        what: how messages call it, such as ``metric``.
        flag: the flag it was given with.
        hint: how to write it.

    Raises:
        ConfigError: a text of another form.
        SourceError: no such file, module or name, or importing it raises, with the user's line.
    """
    origin, name = origin_of(text, what=what, flag=flag, hint=hint)
    path = Path(origin).expanduser()
    if path.suffix == ".py":
        try:
            module = import_file(path)
        except (Exception, SystemExit) as error:
            raise raised(error, f"importing {origin}") from error
    else:
        module = _import_package(origin)
    if not hasattr(module, name):
        known = functions_in(path) if path.suffix == ".py" else []
        raise SourceError(
            f"{origin} has no {name!r}",
            hint=f"it has: {', '.join(known[:8])}" if known else f"define a {what} of that name",
        )
    return getattr(module, name)


def load_package(package: str, factory: str) -> Loaded:
    """``package.module:factory``, found as ``python -m`` finds it: the working folder first.

    Raises:
        SourceError: no such module or factory, code that raises (with its line), a wrong result.
    """
    module = _import_package(package)
    name = package.rpartition(".")[2] if factory in _PLAIN_NAMES else factory
    return _call(module, factory, package, name)


def _import_package(package: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(package)
    except (Exception, SystemExit) as error:
        absent = isinstance(error, ModuleNotFoundError) and (
            package == error.name or package.startswith(f"{error.name}.")
        )
        if absent:
            raise SourceError(
                f"there is no Python module {package}",
                hint="install it, or write file.py:factory for a file",
            ) from error
        raise raised(error, f"importing {package}") from error


def from_result(result: Any, name: str, origin: str) -> Loaded:
    """A factory's result: a module, ``(module, inputs)``, ``(module, args, kwargs)``, or with
    ``torch.export``'s dynamic shapes as a fourth; or ``(module, {name: Method(...)})``.

    Raises:
        SourceError: anything else.
    """
    parts = result if isinstance(result, tuple) else (result,)
    module, *rest = parts if parts else (None,)
    if not isinstance(module, nn.Module) or len(rest) > 3:
        raise SourceError(f"{origin} returned {described(result)}", hint=_RETURNS)
    _check_module(module, origin)
    if not rest:
        return Loaded(name, module)
    if len(rest) == 1 and are_methods(rest[0]):
        check_methods(module, rest[0], origin)
        return Loaded(name, module, methods=dict(rest[0]))
    inputs, kwargs, dynamic_shapes = [*rest, None, None][:3]
    call = call_of(Method(inputs, kwargs), origin)
    return Loaded(name, module, call, dynamic_shapes=dynamic_shapes)


def call_of(method: Method, origin: str) -> Call:
    """The positional and keyword arguments that example inputs are.

    Raises:
        SourceError: they are none.
    """
    inputs: Any = method.inputs
    kwargs: Any = method.kwargs
    if isinstance(inputs, Tensor) or not isinstance(inputs, tuple | list | Mapping):
        inputs = (inputs,)
    if isinstance(inputs, Mapping) and kwargs is None:
        inputs, kwargs = (), inputs
    if isinstance(inputs, Mapping) or not isinstance(kwargs, Mapping | None):
        raise SourceError(
            f"{origin} returned arguments of type {type(inputs).__name__} and keyword arguments "
            f"of type {type(kwargs).__name__}",
            hint=_RETURNS,
        )
    return tuple(inputs), dict(kwargs or {})


def _call(module: ModuleType, factory: str, origin: str, name: str) -> Loaded:
    found = getattr(module, factory, None)
    if found is None:
        names = factories(module)
        near = nearest(factory, names)
        listed = f"it has: {', '.join(names[:8])}" if names else "it defines no function"
        raise SourceError(
            f"{origin} has no factory {factory!r}",
            hint=f"did you mean {near}?" if near else f"choose a factory, {listed}",
        )
    if isinstance(found, nn.Module):
        return from_result(found, name, f"{origin}:{factory}")
    if not callable(found):
        raise SourceError(
            f"{factory} in {origin} is {described(found)}, not a factory", hint=_RETURNS
        )
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise SourceError(
            f"factory {factory} in {origin} cannot be called without arguments ({error})",
            hint="give its parameters defaults, or wrap it in a function without parameters",
        ) from error
    except ValueError:
        pass  # a built-in without a signature
    try:
        result = found()
    except (Exception, SystemExit) as error:
        raise raised(error, f"factory {factory} in {origin}") from error
    return from_result(result, name, f"factory {factory} in {origin}")


def factories(module: ModuleType) -> list[str]:
    """The functions and modules that a file defines itself."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (isinstance(value, nn.Module) or callable(value))
        and getattr(value, "__module__", module.__name__) == module.__name__
    ]


def functions_in(path: Path) -> list[str]:
    """The public functions and classes that a Python file defines, read without running it."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return []
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [n.name for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]


def _no_file(path: Path, rest: str) -> SourceError:
    folder = path.parent
    if not folder.is_dir():
        return SourceError(f"there is no folder {folder}", hint="check the path of MODEL")
    near = nearest(path.name, [p.name for p in folder.glob(f"*{path.suffix}")])
    hint = f"did you mean {folder / near}{rest}?" if near else "check the path of MODEL"
    return SourceError(f"there is no file {path}", hint=hint)


def _check_module(module: nn.Module, origin: str) -> None:
    import torch

    returned = f"{origin} is" if origin == GIVEN else f"{origin} returned"
    if isinstance(module, torch.jit.ScriptModule):
        raise SourceError(
            f"{returned} a TorchScript module",
            hint="build from the nn.Module it was scripted from",
        )
    for name, parameter in (*module.named_parameters(), *module.named_buffers()):
        if torch.nn.parameter.is_lazy(parameter):
            raise SourceError(
                f"{returned} a module whose parameters have no shapes yet: {name}",
                hint="call it once with an example before",
            )
        if parameter.is_meta:
            raise SourceError(
                f"{returned} a module without data: {name} is on the meta device",
                hint="load its weights first, or give them with --weights",
            )


def raised(error: BaseException, doing: str, *, hint: str = _RAISED) -> SourceError:
    """One line: what was raised, and the user's own line that raised it."""
    kind = type(error).__name__
    said = " ".join(str(error).split())
    if isinstance(error, SyntaxError) and error.filename:
        place, code = f"{error.filename}:{error.lineno}", (error.text or "").strip()
        said = error.msg
    else:
        place, code = _user_frame(error)
    at = f" at {place}" if place else ""
    shown = f": {code}" if code else ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = f"install it, for example: pip install {error.name.partition('.')[0]}"
    what = f"{kind}: {said[:300]}" if said else kind
    return SourceError(f"{doing} raised {what}{at}{shown}", hint=hint)


def _user_frame(error: BaseException) -> tuple[str, str]:
    """``file:line`` and its text for the innermost frame that is the user's, not a library's."""
    own = str(Path(__file__).parents[1])
    libraries = tuple(
        sysconfig.get_path(key) for key in ("purelib", "platlib", "stdlib", "platstdlib")
    )
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((own, "<", *libraries))
    ]
    if not frames:
        return "", ""
    return f"{frames[-1].filename}:{frames[-1].lineno}", (frames[-1].line or "").strip()


def described(value: Any) -> str:
    """What a value is that should be another: ``the class Linear``, ``an int``."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, tuple) and value:
        return f"a tuple of {', '.join(type(v).__name__ for v in value[:4])}"
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"
