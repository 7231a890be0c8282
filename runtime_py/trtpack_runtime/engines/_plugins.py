# SPDX-License-Identifier: Apache-2.0
"""Layers of TensorRT plugins, whose creators their libraries register under a name.

``add_plugin_v3`` takes what creators of TensorRT 10 make, ``add_plugin_v2`` those of older kind.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._layers import Added, emitter

if TYPE_CHECKING:
    from ._emit import Emitter


@emitter
def plugin(
    e: Emitter,
    inputs: Sequence[Any],
    plugin: str,
    version: str,
    results: Sequence[Any],
    namespace: str = "",
    fields: Sequence[tuple[str, Any]] = (),
    reference: str | None = None,
) -> Added:
    creator = _creator(e, plugin, version, namespace)
    collection = e.trt.PluginFieldCollection([_field(e, *field) for field in fields])
    if e.has("add_plugin_v3") and isinstance(creator, e.trt.IPluginCreatorV3One):
        made = creator.create_plugin(plugin, collection, e.trt.TensorRTPhase.BUILD)
        layer = e.made(e.definition.add_plugin_v3(list(inputs), [], e.kept(e.made(made))))
    elif isinstance(creator, e.trt.IPluginCreator):
        made = creator.create_plugin(plugin, collection)
        layer = e.made(e.definition.add_plugin_v2(list(inputs), e.kept(e.made(made))))
    else:
        raise ValueError(f"{type(creator).__name__} makes no plugin that a network takes")
    return Added((layer,), [layer.get_output(index) for index in range(len(results))])


def _creator(e: Emitter, plugin: str, version: str, namespace: str) -> Any:
    registry = e.trt.get_plugin_registry()
    if hasattr(registry, "get_creator"):
        creator = registry.get_creator(plugin, version, namespace)
    else:
        creator = registry.get_plugin_creator(plugin, version, namespace)
    if creator is None:
        within = f" in namespace {namespace}" if namespace else ""
        raise ValueError(f"no plugin {plugin} {version}{within} is registered, load its library")
    return creator


def _field(e: Emitter, name: str, value: Any) -> Any:
    """A field; its numbers have to stay where they are until the plugin is made."""
    types = e.trt.PluginFieldType
    if isinstance(value, str):
        return e.trt.PluginField(name, e.kept(array("b", value.encode())), types.CHAR)
    numbers = value if isinstance(value, tuple) else (value,)
    if all(isinstance(number, int) for number in numbers):
        return e.trt.PluginField(name, e.kept(array("i", numbers)), types.INT32)
    return e.trt.PluginField(name, e.kept(array("f", numbers)), types.FLOAT32)
