# SPDX-License-Identifier: Apache-2.0
"""The manifest: read as written, and every value out of place named with its place."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.bundles import manifest_json
from trtpack_runtime.dims import dim
from trtpack_runtime.errors import BundleError, ConfigError
from trtpack_runtime.manifest import EngineRef, Manifest, in_order
from trtpack_runtime.tar_layout import Entry

DIGEST = "0123456789abcdef" * 4


def changed(path: str, value: Any) -> dict[str, Any]:
    """A sound manifest with one value replaced, or removed where ``value`` is ``...``."""
    top = copy.deepcopy(manifest_json())
    here: Any = top
    *way, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    for key in way:
        here = here[key]
    if value is ...:
        del here[last]
    else:
        here[last] = value
    return top


def test_what_is_written_is_read() -> None:
    entries = (Entry("a", 3, DIGEST), Entry("b/c", 0, DIGEST))
    manifest = Manifest.from_json(manifest_json()).with_members(entries)
    data = manifest.to_bytes()
    assert Manifest.from_bytes(data) == manifest
    assert Manifest.from_bytes(data).to_bytes() == data
    assert data.endswith(b"}\n")
    assert json.loads(data)["members"] == [
        {"name": "a", "size": 3, "sha256": DIGEST},
        {"name": "b/c", "size": 0, "sha256": DIGEST},
    ]


def test_what_it_says() -> None:
    manifest = Manifest.from_json(manifest_json())
    method = manifest.methods["forward"]
    assert method.inputs[0].shape == (dim("x", 0), 3)
    assert method.inputs[0].opt == (4, 3)
    assert method.outputs[1].shape == (None,)
    assert method.outputs[1].min is None
    assert method.golden[0].outputs == ("output.0", "output.1")
    assert manifest.variants["orin"].engines["forward_0"] == EngineRef(
        "tensorrt", deferred="no such GPU here"
    )
    assert manifest.state[0].initial == "fc.steps"
    assert manifest.metadata == {"labels": ["cat", "dog"]}


def following(**follows: Any) -> dict[str, Any]:
    """A manifest whose methods each have a sample that follows others."""
    top = manifest_json()
    forward = top["methods"].pop("forward")
    for name, value in follows.items():
        sample = {**forward["golden"][0], "follows": value}
        top["methods"][name] = {**forward, "golden": [sample]}
    return top


def test_samples_follow_other_methods() -> None:
    value = following(c=["b"], b=["a"], a=[], d=["a", "c"])
    manifest = Manifest.from_json(value)
    assert manifest.methods["d"].golden[0].follows == ("a", "c")
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert "follows" not in manifest.to_json()["methods"]["a"]["golden"][0]
    order = in_order(manifest.methods)
    assert sorted(order) == ["a", "b", "c", "d"]
    assert order.index("a") < order.index("b") < order.index("c") < order.index("d")
    methods = {**manifest.methods, "z": replace(manifest.methods["a"], golden=())}
    assert sorted(in_order(methods)) == ["a", "b", "c", "d", "z"]


OTHER = "wants another method with a golden sample"


@pytest.mark.parametrize(
    ("follows", "complaint"),
    [
        ({"a": ["b"]}, rf'methods\.a\.golden\[0\]\.follows\[0\] {OTHER}, has "b"'),
        ({"a": [], "b": ["a", "b"]}, rf'methods\.b\.golden\[0\]\.follows\[1\] {OTHER}, has "b"'),
        ({"a": ["b"], "b": ["a"]}, r"methods\.(a|b)\.golden follows (b, which follows a|a, which)"),
        ({"a": ["c"], "b": ["a"], "c": ["b"], "d": []}, r"methods\.[abc]\.golden follows .*which"),
        ({"a": "b"}, r"follows wants a list"),
        ({"a": [3]}, r"follows\[0\] wants a string"),
    ],
)
def test_what_cannot_be_followed_is_named(follows: Any, complaint: str) -> None:
    with pytest.raises(BundleError, match=f"malformed manifest: .*{complaint}"):
        Manifest.from_json(following(**follows))


def test_a_sample_that_is_not_there_is_not_followed() -> None:
    value = following(a=["b"], b=[])
    value["methods"]["b"]["golden"] = []
    with pytest.raises(BundleError, match=rf'a\.golden\[0\]\.follows\[0\] {OTHER}, has "b"'):
        Manifest.from_json(value)


LEVELS = ("", "methods/forward/", "methods/forward/inputs/0/", "weights/", "variants/cpu/",
          "variants/cpu/engines/forward_0/")  # fmt: skip


@pytest.mark.parametrize("where", LEVELS)
def test_unknown_keys_are_ignored(where: str) -> None:
    value = changed(f"{where}from_the_future", {"x": 1})
    assert Manifest.from_json(value) == Manifest.from_json(manifest_json())


@pytest.mark.parametrize(
    "requires", [["format:1", "torch>=2.6"], ["module:my_ops.sub"], ["golden:follows"], []]
)
def test_known_requirements(requires: list[str]) -> None:
    assert Manifest.from_json(manifest_json(requires=requires)).requires == tuple(requires)


@pytest.mark.parametrize("text", ["format:2", "golden:", "sandbox", "torch>=", "torch>2.6",
                                  "module:a b", "module:os;x", "torch>=2.6\n"])  # fmt: skip
def test_unknown_requirements_are_refused(text: str) -> None:
    with pytest.raises(BundleError, match="which this runtime does not know") as caught:
        Manifest.from_json(manifest_json(requires=["format:1", text]))
    assert caught.value.wants == text
    assert "update trtpack-runtime" in caught.value.hint


def test_a_newer_schema_says_what_to_do() -> None:
    with pytest.raises(BundleError, match=r"trtpack\.bundle/12, this runtime") as caught:
        Manifest.from_json({"schema": "trtpack.bundle/12", "unheard": "of"})
    assert "update trtpack-runtime" in caught.value.hint


OUT_OF_PLACE = [
    ("schema", "zip", r'schema wants trtpack\.bundle/1, has "zip"'),
    ("schema", ..., "schema is missing"),
    ("name", "", 'name wants a string, has ""'),
    ("name", 3, "name wants a string, has 3"),
    ("requires", "format:1", 'requires wants a list, has "format:1"'),
    ("members", [{"name": "../x", "size": 0, "sha256": DIGEST}], r"members\[0\]\.name '\.\./x'"),
    ("members", [{"name": "x", "size": -1, "sha256": DIGEST}], r"members\[0\]\.size wants"),
    ("members", [{"name": "x", "size": 1.0, "sha256": DIGEST}], r"members\[0\]\.size wants"),
    ("members", [{"name": "x", "size": 1, "sha256": "AB"}], r"members\[0\]\.sha256 wants a sha256"),
    (
        "members",
        [{"name": "x", "size": 1, "sha256": DIGEST}] * 2,
        r"members\[1\]\.name wants a nam",
    ),
    ("methods", [], "methods wants an object"),
    ("methods/forward/inputs", ..., r"methods\.forward\.inputs is missing"),
    ("methods/forward/inputs/0/dtype", "FLOAT99", r"forward\.inputs\[0\]\.dtype wants one of BF16"),
    ("methods/forward/inputs/0/shape", [-1], r"shape\[0\] wants a size from 0, has -1"),
    ("methods/forward/inputs/0/shape/0", {"op": "/"}, r"shape\[0\] wants a size expression"),
    ("methods/forward/inputs/0/shape/0", 2.5, r"shape\[0\] wants a size expression"),
    ("methods/forward/inputs/0/min", [1], r"inputs\[0\]\.min wants 2 sizes"),
    ("methods/forward/inputs/0/max/1", True, r"inputs\[0\]\.max\[1\] wants an integer"),
    ("methods/forward/tolerance/y", 3, r"methods\.forward\.tolerance\.y wants an object"),
    ("methods/forward/golden/0/member", None, r"golden\[0\]\.member is missing"),
    ("state/0/initial", [], r"state\[0\]\.initial wants a string"),
    ("weights/parameters", {"a": 1}, r"weights\.parameters\.a wants a string"),
    ("variants/cpu/target", {"name": "cpu"}, r"variants\.cpu\.target\.kind is missing"),
    ("variants/cpu/engines/forward_0/record", 1, r"forward_0\.record wants an object"),
    ("metadata", [], "metadata wants an object"),
]


@pytest.mark.parametrize(("path", "value", "complaint"), OUT_OF_PLACE)
def test_a_value_out_of_place_is_named(path: str, value: Any, complaint: str) -> None:
    with pytest.raises(BundleError, match=f"malformed manifest: .*{complaint}"):
        Manifest.from_json(changed(path, value))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is no JSON"),
        (b"\xff{}", "is no JSON"),
        (b"[1, 2]", "the top wants an object"),
        (b'{"a": NaN}', "holds NaN"),
        (b'{"a": 1, "a": 1}', "key 'a' stands twice"),
        (b"[" * 200_000, "nested too deeply"),
    ],
)
def test_what_is_no_strict_json(data: bytes, complaint: str) -> None:
    with pytest.raises(BundleError, match=f"malformed manifest: .*{complaint}"):
        Manifest.from_bytes(data)


def places(value: Any, path: str = "") -> list[str]:
    children = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in children:
        found.append(f"{path}{key}")
        if isinstance(item, dict | list):
            found.extend(places(item, f"{path}{key}/"))
    return found


@given(
    st.sampled_from(places(manifest_json())),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    ),
)
@settings(max_examples=400)
def test_any_replaced_value_is_read_or_refused(path: str, value: Any) -> None:
    try:
        read = Manifest.from_json(changed(path, value))
    except BundleError:
        return
    assert Manifest.from_bytes(read.to_bytes()) == read


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, "\ud800"])
def test_metadata_that_json_cannot_hold(value: Any) -> None:
    manifest = Manifest.from_json(manifest_json(metadata={"mean": [value]}))
    with pytest.raises(ConfigError, match="metadata is no JSON"):
        manifest.to_bytes()


def test_references_to_members_that_are_not_listed() -> None:
    with pytest.raises(BundleError, match=r"methods\.forward\.golden\[0\]\.member refers to") as e:
        Manifest.from_json(manifest_json()).check_references()
    assert e.value.member == "golden/forward-0.safetensors"


def test_how_an_engine_is_built_and_its_tactics_are_kept() -> None:
    engine = {"kind": "tensorrt", "deferred": "x", "options": {"tf32": True}, "content": DIGEST}
    cache = {"member": "caches/orin/timing.cache", "lock": None, "key": {"sm": "8.7"}}
    value = changed("variants/orin/engines/forward_0", engine)
    value["variants"]["orin"]["caches"] = {"timing": cache}
    manifest = Manifest.from_json(value)
    orin = manifest.variants["orin"]
    assert orin.engines["forward_0"].options == {"tf32": True}
    assert orin.engines["forward_0"].content == DIGEST
    assert orin.caches == {"timing": cache}
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert ("variants.orin.caches.timing.member", cache["member"]) in list(manifest.references())


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("engines/forward_0/content", "AB", r"forward_0\.content wants a sha256"),
        ("engines/forward_0/options", [], r"forward_0\.options wants an object"),
        ("caches", {"timing": {"key": {}}}, r"timing\.member is missing"),
        ("caches", {"timing": {"member": "x"}}, r"timing\.key is missing"),
        ("caches", {"timing": {"member": "x", "key": {}, "lock": 3}}, r"timing\.lock wants a str"),
    ],
)
def test_a_wrong_engine_or_cache_is_named(key: str, value: Any, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        Manifest.from_json(changed(f"variants/orin/{key}", value))
