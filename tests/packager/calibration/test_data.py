# SPDX-License-Identifier: Apache-2.0
"""Where calibration data comes from, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from torch import nn

from tests.packager.calibration.models import captured_of
from trtpack.calibration.data import calibration_data
from trtpack.capture import Captured, capture
from trtpack.errors import CalibrationError, ConfigError, SourceError
from trtpack_runtime.sample_files import Wanted, image_numbers


class Pair(nn.Module):
    def forward(self, image: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return image.sum() + ids.sum()


@pytest.fixture(scope="module")
def pair() -> Captured:
    return captured_of(Pair(), (torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.int64)))


@pytest.fixture(scope="module")
def image() -> Captured:
    return captured_of(nn.ReLU(), (torch.zeros(1, 3, 8, 6),))


def given(tmp_path: Path, code: str) -> str:
    """A file of the user's that defines ``loader``."""
    file = tmp_path / "data.py"
    file.write_text(f"import torch\n{code}\n")
    return f"{file}:loader"


IMAGE, IDS = "torch.arange(6.).reshape(2, 3)", "torch.ones(2, 4, dtype=torch.int64)"


@pytest.mark.parametrize(
    "item",
    [
        f"({IMAGE}, {IDS})",
        f"[{IMAGE}, {IDS}, 'a label']",
        f"{{'ids': {IDS}, 'image': {IMAGE}, 'label': 3}}",
        f"({IMAGE}.numpy(), {IDS}.int())",
        f"({IMAGE}.double(), {IDS})",
    ],
)
@pytest.mark.parametrize("form", ["loader = [{}]", "def loader():\n    yield {}"])
def test_every_form_of_an_item(tmp_path: Path, pair: Captured, item: str, form: str) -> None:
    (sample,) = calibration_data(given(tmp_path, form.format(item)), pair, {}, 8)
    assert torch.equal(sample["image"], torch.arange(6.0).reshape(2, 3))
    assert torch.equal(sample["ids"], torch.ones(2, 4, dtype=torch.int64))


def test_a_data_loader_with_labels_and_larger_batches(tmp_path: Path) -> None:
    code = (
        "from torch.utils.data import DataLoader, TensorDataset\n"
        "loader = DataLoader(TensorDataset(torch.arange(30.).reshape(10, 3), torch.zeros(10)), 5)"
    )
    captured = captured_of(nn.ReLU(), (torch.zeros(2, 3),))
    (name,) = (n for n in captured.inputs if n is not None)
    found = calibration_data(given(tmp_path, code), captured, {}, 8)
    rows = [sample[name][:, 0].tolist() for sample in found]
    assert rows == [[0.0, 3.0], [6.0, 9.0], [15.0, 18.0], [21.0, 24.0]]
    assert len(calibration_data(given(tmp_path, code), captured, {}, 3)) == 3


SMALLER = (
    "from torch.utils.data import DataLoader, TensorDataset\n"
    "loader = DataLoader(TensorDataset(torch.arange(21.).reshape(7, 3), torch.zeros(7)), 2)"
)


def test_a_last_smaller_batch_is_left_out(tmp_path: Path) -> None:
    captured = captured_of(nn.ReLU(), (torch.zeros(2, 3),))
    assert len(calibration_data(given(tmp_path, SMALLER), captured, {}, 8)) == 3


@pytest.mark.parametrize(
    ("sizes", "told"), [("[1]", "sample 0, input"), ("[2, 1, 2]", "sample 1, input")]
)
def test_only_a_last_batch_of_several_may_be_smaller(tmp_path: Path, sizes: str, told: str) -> None:
    captured = captured_of(nn.ReLU(), (torch.zeros(2, 3),))
    code = f"loader = [torch.rand(size, 3) for size in {sizes}]"
    with pytest.raises(CalibrationError, match=f"{told} .*: wanted the shape 2x3, got 1x3") as info:
        calibration_data(given(tmp_path, code), captured, {}, 8)
    assert info.value.hint == "give batches of 2, only the last of several may be smaller"


def test_a_last_batch_that_is_wrong_otherwise_is_refused(tmp_path: Path) -> None:
    captured = captured_of(nn.ReLU(), (torch.zeros(2, 3),))
    code = "loader = [torch.rand(2, 3), torch.rand(1, 4)]"
    with pytest.raises(CalibrationError, match="wanted the shape 2x3, got 1x4"):
        calibration_data(given(tmp_path, code), captured, {}, 8)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("torch.rand(1, 8, 6)", "axis 1 is missing: stack 3 of them along it"),
        ("torch.rand(3, 8, 6)", "axis 0, the batch, is missing: add it with unsqueeze(0)"),
        ("torch.rand(3, 8)", "let the loader give what the model takes"),
    ],
)
def test_a_missing_axis_is_named(tmp_path: Path, image: Captured, value: str, hint: str) -> None:
    with pytest.raises(CalibrationError, match="wanted the shape 1x3x8x6") as info:
        calibration_data(given(tmp_path, f"loader = [{value}]"), image, {}, 8)
    assert info.value.hint == hint


def test_a_dynamic_batch_takes_batches_as_they_are(tmp_path: Path) -> None:
    dynamic = capture(
        nn.ReLU(), (torch.zeros(2, 3),), {}, {"input": {0: torch.export.Dim("b", max=8)}}, {}
    )
    (name,) = (n for n in dynamic.inputs if n is not None)
    found = calibration_data(given(tmp_path, "loader = [torch.rand(5, 3)]"), dynamic, {}, 8)
    assert [tuple(sample[name].shape) for sample in found] == [(5, 3)]


def test_files_of_tensors(tmp_path: Path, pair: Captured) -> None:
    for number in range(3):
        pixels = numpy.arange(number, number + 6, dtype="f4").reshape(2, 3)
        values = {"image": pixels, "ids": numpy.zeros((2, 4), "i8")}
        numpy.savez(tmp_path / f"{number}.npz", **values)
    found = calibration_data(str(tmp_path), pair, {}, 8)
    assert [float(sample["image"][0, 0]) for sample in found] == [0.0, 1.0, 2.0]
    assert len(calibration_data(str(tmp_path / "1.npz"), pair, {}, 8)) == 1


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"image": numpy.ones((2, 4), "f4")}, "input image: wanted the shape 2x3, got 2x4"),
        ({"image": numpy.full((2, 3), "nan", "f4")}, "input image: it has numbers that are not"),
        ({"ids": None}, "input ids: it is missing, the sample has image"),
        ({"image": None, "pixels": numpy.ones((2, 3), "f4")}, "input image: it is missing"),
    ],
)
def test_a_file_that_does_not_fit_is_named(
    tmp_path: Path, pair: Captured, values: dict[str, numpy.ndarray | None], told: str
) -> None:
    good = {"image": numpy.ones((2, 3), "f4"), "ids": numpy.zeros((2, 4), "i8")}
    bad = {name: value for name, value in (good | values).items() if value is not None}
    numpy.savez(tmp_path / "a.npz", **good)
    numpy.savez(tmp_path / "b.npz", **bad)
    with pytest.raises(CalibrationError, match=rf"sample 1 in .*b\.npz, {told}") as info:
        calibration_data(str(tmp_path), pair, {}, 8)
    assert info.value.hint == "correct the file, or take it away"


def test_a_file_of_other_names_is_refused(tmp_path: Path, image: Captured) -> None:
    pixels = numpy.ones((1, 3, 8, 6), "f4")
    numpy.savez(tmp_path / "a.npz", pixels=pixels, label=numpy.ones(1))
    with pytest.raises(CalibrationError, match="it is missing, the sample has pixels, label"):
        calibration_data(str(tmp_path), image, {}, 8)


def test_an_empty_folder_is_told_what_may_be_in_it(tmp_path: Path, image: Captured) -> None:
    with pytest.raises(SourceError, match="has no sample files") as info:
        calibration_data(str(tmp_path), image, {}, 8)
    assert info.value.hint == "put .safetensors, .npz, .npy or image files in it"


ZEROS, ONES = "torch.zeros(2, 3)", "torch.ones(2, 4, dtype=torch.int64)"


@pytest.mark.parametrize(
    ("items", "told"),
    [
        (f"[({ZEROS}, {ONES})] * 3", "every number of input image is 0 in all 3 samples"),
        (f"[({ZEROS} + 2.5, {ONES})]", "every number of input image is 2.5 in the only sample"),
    ],
)
def test_data_of_one_number_is_refused(
    tmp_path: Path, pair: Captured, items: str, told: str
) -> None:
    with pytest.raises(CalibrationError) as info:
        calibration_data(given(tmp_path, f"loader = {items}"), pair, {}, 8)
    assert info.value.message == told


@pytest.mark.parametrize(
    "items",
    [
        f"[({ZEROS}, torch.arange(8).reshape(2, 4))]",
        f"[({ZEROS}, {ONES}), ({ZEROS} + 1, {ONES})]",
    ],
)
def test_one_input_may_be_one_number(tmp_path: Path, pair: Captured, items: str) -> None:
    assert calibration_data(given(tmp_path, f"loader = {items}"), pair, {}, 8)


def test_images_go_through_the_models_preprocessing(tmp_path: Path, image: Captured) -> None:
    images = pytest.importorskip("PIL.Image")
    images.new("RGB", (24, 16), (255, 0, 51)).save(tmp_path / "b.png")
    images.new("L", (6, 12), 255).save(tmp_path / "a.png")
    preprocess = {"resize": 8, "crop": [8, 6], "mean": [0.5] * 3, "std": [0.5, 1.0, 1.0]}
    found = calibration_data(str(tmp_path), image, {"preprocess": preprocess}, 8)
    (name,) = (n for n in image.inputs if n is not None)
    first, second = (sample[name] for sample in found)
    assert first.shape == (1, 3, 8, 6)
    assert first[0, :, 4, 3].tolist() == pytest.approx([1.0, 0.5, 0.5])
    assert second[0, :, 0, 0].tolist() == pytest.approx([1.0, -0.5, -0.3])
    with pytest.raises(ConfigError, match="the bundle says no preprocessing"):
        calibration_data(str(tmp_path), image, {}, 8)
    (tmp_path / "c.png").write_text("no image")
    with pytest.raises(ConfigError, match=r"c\.png"):
        calibration_data(str(tmp_path), image, {"preprocess": preprocess}, 8)


def test_images_are_what_a_run_makes_of_them_in_the_models_batches(tmp_path: Path) -> None:
    images = pytest.importorskip("PIL.Image")
    noise = numpy.random.default_rng(0).integers(0, 256, (5, 40, 30, 3), dtype="u1")
    for number, pixels in enumerate(noise):
        images.fromarray(pixels).save(tmp_path / f"{number}.png")
    captured = captured_of(nn.ReLU(), (torch.zeros(2, 3, 8, 6),))
    (name,) = (n for n in captured.inputs if n is not None)
    preprocess = {"resize": 9, "crop": [8, 6], "interpolation": "bicubic", "channels": "BGR"}
    found = calibration_data(str(tmp_path), captured, {"preprocess": preprocess}, 8)
    assert len(found) == 2, "the fifth is left over"
    path = tmp_path / "3.png"
    wanted = image_numbers(path, Wanted(name, "FLOAT", ()), preprocess)
    assert torch.equal(found[1][name][1], torch.from_numpy(wanted)[0])


def test_images_are_for_models_of_one_input(tmp_path: Path, pair: Captured) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ConfigError, match="the model takes 2 inputs"):
        calibration_data(str(tmp_path), pair, {}, 8)


@pytest.mark.parametrize(
    ("code", "error", "told"),
    [
        ("loader = []", CalibrationError, "gives no sample"),
        (f"loader = [({IMAGE},)]", CalibrationError, "sample 0, input ids: it is missing"),
        (f"loader = [{{'image': {IMAGE}}}]", CalibrationError, "input ids: it is missing"),
        (
            f"loader = [(torch.ones(2, 5), {IDS})]",
            CalibrationError,
            "sample 0, input image: wanted the shape 2x3, got 2x5",
        ),
        (f"loader = [(torch.ones(1, 3), {IDS}[:1])]", CalibrationError, "wanted the shape 2x3"),
        (f"loader = [({IDS}, {IDS})]", CalibrationError, "input image: wanted float32, got int64"),
        (
            f"loader = [({IMAGE}, {IDS}), ({IMAGE} / 0, {IDS})]",
            CalibrationError,
            "sample 1, input image: it has numbers that are not finite",
        ),
        (f"loader = [(object(), {IDS})]", CalibrationError, "input image: it is no tensor"),
        ("loader = 3", SourceError, "is no iterable, it is a int"),
        ("other = 3", SourceError, "has no 'loader'"),
        ("def loader():\n    raise OSError('no disk')", SourceError, "no disk"),
        ("def loader():\n    yield torch.ones(2, 3) @ 3", SourceError, "data.py"),
        ("1 / 0", SourceError, "division by zero"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, pair: Captured, code: str, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        calibration_data(given(tmp_path, code), pair, {}, 8)


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("nothing", SourceError, "there is no file or folder nothing"),
        ("data.py:a b", ConfigError, "bad loader"),
        ("missing.py:loader", SourceError, "there is no file missing.py"),
        ("no.such.module:loader", SourceError, "no.such.module"),
        ("missing.npz", SourceError, "there is no file missing.npz"),
    ],
)
def test_bad_names(pair: Captured, text: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        calibration_data(text, pair, {}, 8)
