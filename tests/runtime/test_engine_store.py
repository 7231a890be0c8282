# SPDX-License-Identifier: Apache-2.0
"""Built engines are kept by all they depend on, within a limit; no trouble there is an error."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtpack_runtime.dims import dim
from trtpack_runtime.engine_store import EngineStore, content_of, engine_key, tensorrt_parts
from trtpack_runtime.network import Network, Profile, Tensor
from trtpack_tools.recorder import Recorder

FACTS: dict[str, Any] = {
    "gpus": [{"name": "NVIDIA H200", "sm": "9.0", "multiprocessors": 132}],
    "tensorrt": "10.3.0.30",
    "driver": {"version": "550.1"},
    "jetson": None,
    "runtime": "0.1.0",
    "os": "linux",
    "arch": "x86_64",
}


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines", limit_bytes=250)


def put(store: EngineStore, key: str, size: int = 100) -> None:
    plan = store.folder.parent / "plan"
    plan.write_bytes(bytes(size))
    store.put(key, plan, {"sm": "9.0"}, about={"model": key}, seconds=2.5)


def test_what_is_put_is_found(store: EngineStore) -> None:
    assert store.get("a") is None
    put(store, "a")
    found = store.get("a")
    assert found is not None
    assert found.path.read_bytes() == bytes(100)
    assert (found.record, found.seconds, found.nbytes) == ({"sm": "9.0"}, 2.5, 100)
    assert abs(found.built_at - time.time()) < 60
    assert store.remove("a")
    assert store.get("a") is None


def test_what_is_used_least_goes_first(store: EngineStore) -> None:
    for age, key in enumerate("ab"):
        put(store, key)
        os.utime(store.folder / f"{key}.engine", (1000 + age, 1000 + age))
    assert store.get("a") is not None  # used now
    put(store, "c")
    assert {entry.key for entry in store.entries()} == {"a", "c"}
    put(store, "large", 1000)
    assert [entry.key for entry in store.entries()] == ["large"]
    assert [entry.key for entry in store.prune(older_than_s=-1)] == ["large"]


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_damaged_entry_is_dropped(store: EngineStore, content: bytes) -> None:
    put(store, "a")
    (store.folder / "a.engine").write_bytes(content)
    assert store.get("a") is None
    assert list(store.folder.glob("a*")) == []
    put(store, "a")
    (store.folder / "a.json").write_bytes(content)
    assert store.get("a") is None


def test_an_engine_with_one_wrong_bit_is_dropped(store: EngineStore) -> None:
    put(store, "a")
    (store.folder / "a.engine").write_bytes(bytes(99) + b"\x01")
    assert len(store.entries()) == 1  # a list does not read gigabytes
    assert store.get("a") is None
    assert store.entries() == []


def test_what_builds_that_died_left_is_dropped(store: EngineStore) -> None:
    put(store, "a")
    for name in ("dead.engine", ".a.engine.x.partial", "now.engine"):
        (store.folder / name).write_bytes(b"half")
        if name != "now.engine":
            os.utime(store.folder / name, (1000, 1000))
    put(store, "b")
    assert sorted(path.name for path in store.folder.iterdir() if path.stem not in "ab") == [
        "now.engine"
    ]


def test_what_cannot_be_removed_is_not_said_to_be(
    store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    assert store.prune(0) == []
    assert store.get("a") is not None
    monkeypatch.setattr(os, "utime", refuse)
    assert store.get("a") is not None


def test_an_engine_is_found_by_the_beginning_of_its_key(store: EngineStore) -> None:
    put(store, "abc")
    put(store, "abd")
    assert [entry.key for entry in store.find("abc")] == ["abc"]
    assert {entry.key for entry in store.find("ab")} == {"abc", "abd"}


def test_a_disk_that_refuses_is_no_error(
    store: EngineStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    none = EngineStore(tmp_path / "file")
    put(none, "a")
    assert none.get("a") is None
    assert none.entries() == []
    with none.lock("a"):
        pass

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    put(store, "a")
    assert store.get("a") is None
    assert list(store.folder.iterdir()) == []


def test_a_lock_is_held_by_one_at_a_time(store: EngineStore) -> None:
    order = []

    def wait() -> None:
        with store.lock("a"):
            order.append("second")

    thread = threading.Thread(target=wait)
    with store.lock("a"), store.lock("b"):
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    "change",
    [
        {"gpus": [{**FACTS["gpus"][0], "name": "NVIDIA H100"}]},
        {"gpus": [{**FACTS["gpus"][0], "sm": "8.9"}]},
        {"gpus": [{**FACTS["gpus"][0], "multiprocessors": 114}]},
        {"tensorrt": "10.3.0.31"},
        {"driver": {"version": "550.2"}},
        {"jetson": {"module": "p3767-0000"}},
        {"runtime": "0.2.0"},
        {"arch": "aarch64"},
    ],
    ids=str,
)
def test_an_engine_of_another_machine_is_another(change: dict[str, Any]) -> None:
    parts = tensorrt_parts("a" * 64, {"tf32": True}, FACTS)
    assert engine_key(parts) == engine_key(tensorrt_parts("a" * 64, {"tf32": True}, FACTS))
    assert engine_key(parts) != engine_key(tensorrt_parts("a" * 64, {"tf32": True}, FACTS | change))
    assert engine_key(parts) != engine_key(tensorrt_parts("a" * 64, {"tf32": False}, FACTS))
    assert engine_key(parts) != engine_key(tensorrt_parts("b" * 64, {"tf32": True}, FACTS))


def pooled(stride: int = 2, slope: float = 0.1, axis: int = 1, swapped: bool = False) -> Network:
    """Layers of the same kinds, names, shapes and order, whatever is given."""
    recorder = Recorder()
    x = recorder.input(Tensor("x", "FLOAT", (1, 4, 1, 1)))
    y = recorder.input(Tensor("y", "FLOAT", (1, 4, 1, 1)))
    (p,) = recorder.add(
        "pooling_nd",
        {"input": x},
        {
            "type": "MAX",
            "window_size": (1, 1),
            "stride_nd": (stride, stride),
            "pre_padding": (0, 0),
            "post_padding": (0, 0),
            "padding_mode": "EXPLICIT_ROUND_DOWN",
        },
        name="pool",
    )
    leaky = {"type": "LEAKY_RELU", "alpha": slope}
    (a,) = recorder.add("activation", {"input": y}, leaky, name="leaky")
    (s,) = recorder.add("softmax", {"input": a}, {"axes": (axis,)}, name="softmax")
    edges = {"input1": s, "input2": p} if swapped else {"input1": p, "input2": s}
    (d,) = recorder.add("elementwise", edges, {"op": "SUB"}, name="difference")
    return recorder.finish([d.name])


def shapes(network: Network) -> list[Any]:
    return [(layer.kind, layer.name, *layer.outputs) for layer in network.layers] + [
        str(tensor) for tensor in network.tensors.values()
    ]


@pytest.mark.parametrize(
    "change", [{"stride": 1}, {"slope": 0.2}, {"axis": 2}, {"swapped": True}], ids=str
)
def test_networks_that_differ_in_one_attribute_or_edge_are_others(change: dict[str, Any]) -> None:
    one, other = pooled(), pooled(**change)
    assert shapes(one) == shapes(other)  # a key of kinds, names and shapes would be the same
    assert content_of(one, {}) == content_of(pooled(), {})
    assert content_of(one, {}) != content_of(other, {})


@settings(max_examples=40, deadline=None)
@given(
    *[
        st.fixed_dictionaries(
            {
                "stride": st.integers(1, 3),
                "slope": st.sampled_from([0.0, -0.0, 0.1, 0.1000000001, 1e-45]),
                "axis": st.integers(0, 3),
                "swapped": st.booleans(),
            }
        )
    ]
    * 2
)
def test_only_equal_networks_are_one(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = {k: repr(v) for k, v in one.items()} == {k: repr(v) for k, v in other.items()}
    assert (content_of(pooled(**one), {}) == content_of(pooled(**other), {})) == same


def test_weights_profiles_and_names_of_weights_count() -> None:
    def product(weight: str, largest: int) -> Network:
        recorder = Recorder()
        x = recorder.input(Tensor("x", "FLOAT", (dim("x", 0), 4)))
        w = recorder.constant("FLOAT", (4, 4), weight)
        plain = {"op0": "NONE", "op1": "NONE"}
        (y,) = recorder.add("matrix_multiply", {"input0": x, "input1": w}, plain, name="product")
        return recorder.finish([y.name], [Profile({"x": ((1, 4), (2, 4), (largest, 4))})])

    one = content_of(product("w", 8), {"w": "1" * 64})
    assert one != content_of(product("w", 8), {"w": "2" * 64})
    assert one != content_of(product("w", 9), {"w": "1" * 64})
    assert one != content_of(product("v", 8), {"v": "1" * 64})


def test_weights_that_a_network_does_not_read_do_not_count() -> None:
    network = pooled()
    assert content_of(network, {}) == content_of(network, {"fc.weight": "1" * 64})
