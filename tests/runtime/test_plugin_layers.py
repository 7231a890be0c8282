# SPDX-License-Identifier: Apache-2.0
"""Layers of plugins: what a creator is given, what a network keeps, what evaluates them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.runtime.emission import emitted
from tests.runtime.trt_double import double, has
from trtpack_runtime import network as networks
from trtpack_runtime import reference
from trtpack_runtime.dims import dim
from trtpack_runtime.engines._emit import emit
from trtpack_runtime.errors import ConfigError, EngineBuildError, NetworkError
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_tools.recorder import Recorder

FIELDS = (("scale", 1.5), ("sizes", (2, 3)), ("mode", "fast"))


def network(**more: Any) -> Network:
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (dim("x", 0), 4)))
    attributes = {"plugin": "Scaled", "version": "1", "results": (("FLOAT", x.shape),)} | more
    (y,) = recorder.add("plugin", {"inputs": (x,)}, attributes, name="y", origin="net.py:1")
    return recorder.finish([y.name], [Profile({"x": ((1, 4), (2, 4), (8, 4))})])


def with_creator(release: str, kind: str) -> Any:
    """A double whose registry has the plugin Scaled, by a creator of one kind."""
    trt = double(release)

    class Field(trt.PluginField):  # type: ignore[name-defined,misc]  # a double's class is a value
        def _do_init(self, name: str, data: Any, type: Any) -> None:
            self._given = (name, list(data), type.name)

    class Creator(getattr(trt, kind)):  # type: ignore[misc]  # a double's class is a value
        def _do_create_plugin(self, name: str, field_collection: Any, phase: Any = None) -> Any:
            assert (phase and phase.name) == ("BUILD" if kind == "IPluginCreatorV3One" else None)
            read = {"FLOAT32": float, "INT32": int, "CHAR": chr}
            fields: list[Any] = []
            for key, data, type_ in (field._given for field in field_collection):
                values = tuple(read[type_](value) for value in data)
                plain = "".join(map(str, values)) if type_ == "CHAR" else values
                fields.append((key, plain if len(values) > 1 else values[0]))
            told = {"plugin": name, "version": "1", "fields": tuple(fields)}
            made = trt.IPluginV2._made()
            object.__setattr__(
                made, "_told", lambda inputs: told | {"results": (("FLOAT", inputs[0].shape),)}
            )
            return made

    def find(self: Any, type: str, version: str, plugin_namespace: str = "") -> Any:
        return Creator._made() if (type, version, plugin_namespace) == ("Scaled", "1", "") else None

    names = {"_do_get_creator": find, "_do_get_plugin_creator": find}
    registry = type("Registry", (trt.IPluginRegistry,), names)
    trt.get_plugin_registry = registry._made  # type: ignore[attr-defined]  # a double is made of names
    trt.PluginField, trt.PluginFieldCollection = Field, list
    return trt


@pytest.mark.parametrize(
    ("release", "kind"),
    [
        ("8.6", "IPluginCreator"),
        ("10.3", "IPluginCreator"),
        ("10.3", "IPluginCreatorV3One"),
        ("10.16", "IPluginCreatorV3One"),
        ("11.1", "IPluginCreatorV3One"),
    ],
)
def test_a_plugin_is_made_by_its_creator_and_added(release: str, kind: str) -> None:
    made = network(fields=FIELDS)
    (layer,) = emitted(with_creator(release, kind), made).definition._layers
    method = "add_plugin_v3" if kind == "IPluginCreatorV3One" else "add_plugin_v2"
    assert type(layer).__name__ == {"3": "IPluginV3Layer", "2": "IPluginV2Layer"}[method[-1]]
    assert has(release, f"INetworkDefinition.{method}")


def test_a_plugin_that_nobody_registered_is_told() -> None:
    made = network(namespace="ours")
    trt = with_creator("10.3", "IPluginCreatorV3One")
    with pytest.raises(EngineBuildError, match="no plugin Scaled 1 in namespace ours"):
        emit(trt, made, {})


def test_tensorrt_rtx_has_none() -> None:
    with pytest.raises(EngineBuildError, match="this TensorRT has no such layer"):
        emit(double("rtx-1.7"), network(), {})


def test_it_is_saved_with_its_fields() -> None:
    made = network(fields=FIELDS, reference="ours::scaled")
    assert networks.from_bytes(made.to_bytes()) == made


@pytest.mark.parametrize(
    ("name", "value"),
    [("fields", (("scale", None),)), ("fields", (("scale", ()),)), ("results", (("FLOAT",),))],
)
def test_what_no_plugin_takes_is_refused(name: str, value: Any) -> None:
    with pytest.raises(NetworkError, match=f"attribute {name}"):
        network(**{name: value})


def test_its_reference_is_what_the_evaluator_calls() -> None:
    library = torch.library.Library("plugin_layers", "DEF")
    library.define("scaled(Tensor x, float scale) -> Tensor")
    library.impl("scaled", lambda x, scale: x * scale, "CPU")
    x = torch.randn(2, 4)
    made = network(fields=(("scale", 1.5),), reference="plugin_layers::scaled")
    (answer,) = reference.evaluate(made, {}, [x])
    torch.testing.assert_close(answer, x * 1.5)


def test_without_a_reference_only_tensorrt_computes_it() -> None:
    x = torch.randn(2, 4)
    with pytest.raises(ConfigError, match="only TensorRT can compute the plugin Scaled 1"):
        reference.evaluate(network(), {}, [x])
    with pytest.raises(ConfigError, match=r"no imported module defines nowhere::op\.x"):
        reference.evaluate(network(reference="nowhere::op.x"), {}, [x])
