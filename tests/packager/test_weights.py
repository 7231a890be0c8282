# SPDX-License-Identifier: Apache-2.0
"""The weight store: each content once, nothing copied, names kept."""

from __future__ import annotations

import torch

from trtpack.weights import WeightStore, content_digest, raw_bytes, renamed_constants


def test_a_tensor_keeps_its_name() -> None:
    store = WeightStore()
    assert store.put("conv.weight", torch.ones(2, 3)) == "conv.weight"


def test_equal_contents_are_stored_once() -> None:
    store = WeightStore()
    store.put("a", torch.ones(2, 3))
    assert store.put("b", torch.ones(2, 3)) == "a"
    assert store.nbytes == 24


def test_one_expanded_element_has_its_bytes() -> None:
    assert bytes(raw_bytes(torch.tensor(2.5).expand(1))) == bytes(raw_bytes(torch.tensor([2.5])))
    assert bytes(raw_bytes(torch.zeros(0, 3))) == b""


def test_equal_weights_have_names_of_their_own_and_the_same_bytes() -> None:
    store = WeightStore()
    names = [store.put(name, torch.arange(4.0), follows=name) for name in "abc"]
    names.append(store.put("d", torch.arange(4.0).reshape(1, 4), any_shape=True, follows="made"))
    assert names == ["a", "b", "c", "d"]
    assert store.same == {"b": "a", "c": "a", "d": "a"}
    assert [name for name, _ in store.items()] == ["a"]
    assert store.nbytes == 16
    assert len({store.digest(name) for name in names}) == 1
    assert store.put("d", torch.arange(4.0).reshape(4, 1), any_shape=True, follows="made") == "d"


def test_weights_that_are_all_zeros_or_ones_stay_apart() -> None:
    store = WeightStore()
    names = {store.put(name, torch.zeros(3), follows=name) for name in ("a.bias", "b.bias")}
    assert names == {"a.bias", "b.bias"}
    assert store.put("mask", torch.zeros(3)) == "mask"
    assert store.put("view", torch.zeros(1, 3), any_shape=True) == "mask"
    assert store.put("again", torch.zeros(3), follows="a.bias") == "a.bias"
    eighth = torch.zeros(3).to(torch.float8_e4m3fn)
    assert {store.put(name, eighth.clone(), follows=name) for name in "xy"} == {"x", "y"}
    tied = torch.zeros(4)
    assert store.put("first", tied, follows="first") == store.put("other", tied, follows="other")


def test_tied_weights_are_found_by_their_memory() -> None:
    store = WeightStore()
    weight = torch.randn(4)
    assert store.put("wte.weight", weight) == store.put("lm_head.weight", weight.detach())


def test_equal_bytes_of_another_type_or_shape_are_another_tensor() -> None:
    store = WeightStore()
    names = {
        store.put("a", torch.zeros(4)),
        store.put("b", torch.zeros(4, dtype=torch.int32)),
        store.put("c", torch.zeros(2, 2)),
    }
    assert names == {"a", "b", "c"}


def test_a_view_of_other_elements_is_another_tensor() -> None:
    store = WeightStore()
    weight = torch.arange(4.0)
    assert store.put("even", weight[::2]) != store.put("first", weight[:2])


def test_a_view_in_another_shape_can_share_the_bytes() -> None:
    store = WeightStore()
    store.put("weight", torch.arange(6.0).reshape(2, 3))
    assert store.put("view", torch.arange(6.0).reshape(1, 2, 3), any_shape=True) == "weight"
    assert store.put("other", torch.arange(6.0).reshape(6)) == "other"


def test_a_taken_name_gets_a_number() -> None:
    store = WeightStore()
    store.put("a", torch.zeros(1))
    assert store.put("a", torch.ones(1)) == "a.2"


def test_reused_memory_is_not_mistaken_for_the_tensor_that_had_it() -> None:
    store = WeightStore()
    store.put("zeros", torch.zeros(8))
    for i in range(1, 50):
        value = torch.zeros(8)  # equal content, soon freed
        store.put(f"z{i}", value)
        del value
        other = torch.full((8,), float(i))  # likely at the same address
        assert store.put(f"v{i}", other) == f"v{i}"


def test_raw_bytes_share_the_tensors_memory() -> None:
    tensor = torch.zeros(2, 2)
    view = raw_bytes(tensor)
    tensor[0, 0] = 1.0
    assert bytes(view[:4]) == b"\x00\x00\x80?"


def test_bfloat16_and_bool_have_bytes_too() -> None:
    assert bytes(raw_bytes(torch.ones(1, dtype=torch.bfloat16))) == b"\x80?"
    assert bytes(raw_bytes(torch.tensor([True, False]))) == b"\x01\x00"
    assert content_digest(torch.ones(1)) != content_digest(torch.zeros(1))


def test_renaming_touches_only_constants_by_name() -> None:
    value = {"args": [{"constant": "a"}, {"constant": 3}, {"value": "a"}, [{"constant": "b"}]]}
    assert renamed_constants(value, {"a": "x"}) == {
        "args": [{"constant": "x"}, {"constant": 3}, {"value": "a"}, [{"constant": "b"}]]
    }
