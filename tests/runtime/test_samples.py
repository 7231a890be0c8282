# SPDX-License-Identifier: Apache-2.0
"""Inputs from files and images, outputs to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from trtpack_runtime import samples
from trtpack_runtime.errors import ConfigError, TrtpackError
from trtpack_runtime.samples import Wanted

IMAGE = Wanted("pixels", "FLOAT", (None, 3, 4, 4))
TWO = [Wanted("ids", "INT64", (1, 3)), Wanted("mask", "BOOL", (1, 3))]
IDS, MASK = torch.tensor([[1, 2, 3]]), torch.tensor([[True, False, True]])


def test_arrays_keep_their_names_whatever_numpy_calls_its_arguments(tmp_path: Path) -> None:
    wanted = {"file": torch.ones(2), "allow_pickle": torch.tensor(3), "a.b/c": torch.zeros(0, 2)}
    samples.write_outputs(tmp_path / "y.npz", wanted)
    found = samples.read_tensors(tmp_path / "y.npz")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_files_give_inputs_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"both{suffix}"
    samples.write_outputs(path, {"ids": IDS, "mask": MASK})
    found = samples.read_inputs([str(path)], TWO, {})
    assert torch.equal(found["ids"], IDS)
    assert torch.equal(found["mask"], MASK)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_one_tensor_goes_to_the_input_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"one{suffix}"
    samples.write_outputs(path, {"anything": IDS})
    assert torch.equal(samples.read_inputs([f"ids={path}"], TWO, {})["ids"], IDS)
    assert torch.equal(samples.read_inputs([str(path)], TWO[:1], {})["ids"], IDS)


def test_an_array_is_one_tensor(tmp_path: Path) -> None:
    numpy.save(tmp_path / "a=b.npy", IDS.numpy())
    found = samples.read_inputs([str(tmp_path / "a=b.npy")], TWO[:1], {})
    assert torch.equal(found["ids"], IDS)


def test_types_that_numpy_lacks_need_safetensors(tmp_path: Path) -> None:
    value = {"y": torch.tensor([1.5, -2], dtype=torch.bfloat16), "s": torch.tensor(3)}
    samples.write_outputs(tmp_path / "y.safetensors", value)
    found = samples.read_tensors(tmp_path / "y.safetensors")
    assert torch.equal(found["y"], value["y"])
    assert found["s"].shape == ()
    with pytest.raises(ConfigError, match="numpy has no such type") as caught:
        samples.write_outputs(tmp_path / "y.npz", value)
    assert "safetensors" in caught.value.hint
    assert not (tmp_path / "y.npz").exists()


@pytest.mark.parametrize(
    ("argument", "content", "said"),
    [
        ("missing.npz", None, "there is no input file"),
        ("nope=x.npz", {"ids": IDS}, "there is no input 'nope', the inputs are ids, mask"),
        ("x.npz", {"idz": IDS, "mask": MASK}, "holds 'idz', the inputs are ids, mask"),
        ("x.npz", {"anything": IDS}, "may be any of the inputs ids, mask"),
        ("ids=x.npz", {"a": IDS, "b": IDS}, "holds 2 tensors, none is called 'ids'"),
        ("x.csv", b"1,2", "cannot read inputs from"),
        ("x.npz", b"not a zip", "cannot read"),
        ("x.npz", numpy.array([{}], dtype=object), "cannot read"),
    ],
)
def test_bad_inputs_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, content: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(argument.rpartition("=")[2])
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        samples.write_outputs(path, content)
    elif content is not None:
        numpy.savez(path, content)
    with pytest.raises(TrtpackError, match=said) as caught:
        samples.read_inputs([argument], TWO, {})
    assert caught.value.exit_code in (2, 5)
    assert caught.value.hint


def test_output_names_are_checked_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write outputs to out\.txt"):
        samples.check_output_path(Path("out.txt"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    pixels = numpy.random.default_rng(0).integers(0, 255, (9, 6, 3), dtype=numpy.uint8)
    image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_preprocessing_is_resize_crop_scale_normalize(picture: Path) -> None:
    from PIL import Image

    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    steps = {"resize": 5, "crop": 4, "mean": mean, "std": std}
    got = samples.read_image(picture, IMAGE, steps)
    resized = Image.open(picture).resize((5, 7), Image.Resampling.BILINEAR)
    pixels = numpy.asarray(resized, dtype=numpy.float32)[2:6, 0:4] / 255
    want = torch.from_numpy((pixels - mean) / std).permute(2, 0, 1)[None].float()
    torch.testing.assert_close(got, want)
    assert got.shape == (1, 3, 4, 4)


@pytest.mark.parametrize(
    ("height", "width", "first"),  # torchvision.transforms.functional.center_crop of 6 by 6
    [(9, 7, (2, 0)), (11, 8, (2, 1)), (6, 5, (0, 0)), (3, 1, (-1, -2)), (4, 9, (-1, 2))],
)
def test_crops_are_centred_as_in_torchvision(
    height: int, width: int, first: tuple[int, int], tmp_path: Path
) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = numpy.arange(1, 1 + height * width, dtype=numpy.uint8).reshape(height, width)
    image.fromarray(pixels).save(tmp_path / "x.png")
    steps = {"crop": 6, "channels": "L", "scale": 1}
    got = samples.read_image(tmp_path / "x.png", IMAGE, steps)[0, 0].int().numpy()
    top, left = first
    padded = numpy.pad(pixels, 10)
    want = padded[10 + top : 16 + top, 10 + left : 16 + left]
    assert numpy.array_equal(got, want)


@pytest.mark.parametrize(
    ("steps", "dtype", "shape"),
    [
        ({"resize": [2, 3], "layout": "NHWC"}, "HALF", (1, 2, 3, 3)),
        ({"channels": "L", "interpolation": "bicubic", "resize": [2, 3]}, "FLOAT", (1, 1, 2, 3)),
        ({}, "UINT8", (1, 3, 9, 6)),
    ],
)
def test_layouts_and_types(picture: Path, steps: Any, dtype: str, shape: Any) -> None:
    got = samples.read_image(picture, Wanted("x", dtype, (None,) * 4), steps)
    assert got.shape == shape
    if dtype == "UINT8":
        assert got.dtype == torch.uint8
        assert got.max() > 200


def test_channels_can_be_swapped(picture: Path) -> None:
    rgb = samples.read_image(picture, IMAGE, {})
    bgr = samples.read_image(picture, IMAGE, {"channels": "BGR"})
    assert torch.equal(rgb.flip(1), bgr)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (None, "the bundle says no preprocessing"),
        ({"rotate": 90}, "unknown step 'rotate'"),
        ({"interpolation": "magic"}, "unknown interpolation 'magic'"),
    ],
)
def test_images_need_preprocessing(picture: Path, steps: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        samples.read_inputs([str(picture)], [IMAGE], {"preprocess": steps})


def test_a_file_that_is_no_image_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"not an image")
    with pytest.raises(ConfigError, match="cannot read the image"):
        samples.read_image(tmp_path / "x.jpg", IMAGE, {})


def test_the_best_classes_are_labelled() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0, 9.0], [5.0, 0.0, 0.0, 0.0]])
    (first, second) = samples.top_classes(logits, ["a", "b", "c"], count=2)
    assert [label for label, _ in first] == ["b"]
    assert second[0][0] == "a"
    assert second[0][1] == pytest.approx(float(logits[1].softmax(0)[0]))
