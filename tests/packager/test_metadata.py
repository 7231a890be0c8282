# SPDX-License-Identifier: Apache-2.0
"""What --meta takes, and what it says of a file that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trtpack.errors import ConfigError
from trtpack.metadata import read_metadata
from trtpack_runtime import sample_files


def written(folder: Path, content: Any, name: str = "meta.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_list_of_names_is_labels(tmp_path: Path) -> None:
    assert read_metadata([written(tmp_path, ["cat", "dog"])]) == {"labels": ["cat", "dog"]}


def test_files_are_joined_and_unknown_keys_travel(tmp_path: Path) -> None:
    first = written(tmp_path, {"labels": ["cat"], "license": "MIT"})
    second = written(tmp_path, {"preprocess": {"resize": 256, "mean": [0.5, 0, 1]}}, "b.json")
    assert read_metadata([first, second]) == {
        "labels": ["cat"],
        "license": "MIT",
        "preprocess": {"resize": 256, "mean": [0.5, 0, 1]},
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ('{"x": NaN}', "NaN is not a JSON number"),
        ("3", "holds a number, not an object"),
        ({"labels": [1]}, "labels in .* are not a list of strings"),
        ({"labels": "cat"}, "labels in .* are not a list of strings"),
        ({"preprocess": [1]}, "preprocess in .* is a list, not an object"),
        ({"preprocess": {"resice": 1}}, "unknown step 'resice'"),
        ({"preprocess": {"resize": 0}}, "preprocess.resize in .* is 0"),
        ({"preprocess": {"crop": [1, 2, 3]}}, r"preprocess.crop in .* is \[1, 2, 3\]"),
        ({"preprocess": {"std": [1, 0]}}, "preprocess.std"),
        ({"preprocess": {"layout": "CHW"}}, "preprocess.layout"),
        ({"preprocess": {"scale": True}}, "preprocess.scale"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_metadata([written(tmp_path, content)])
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_a_key_comes_from_one_file(tmp_path: Path) -> None:
    paths = [written(tmp_path, ["a"]), written(tmp_path, ["b"], "b.json")]
    with pytest.raises(ConfigError, match="gives labels a second time"):
        read_metadata(paths)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no metadata file .*none\.json"):
        read_metadata([tmp_path / "none.json"])


def test_every_step_is_one_that_the_runtime_knows() -> None:
    from trtpack.metadata import PREPROCESS_KEYS

    assert set(PREPROCESS_KEYS) == sample_files.PREPROCESS_KEYS
