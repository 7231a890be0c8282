# SPDX-License-Identifier: Apache-2.0
"""What an image is made of: the base of its target, and only what that lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packager.containers.bundles import write
from trtpack.containers import dockerfile, recipe_for
from trtpack.errors import ConfigError
from trtpack.target import catalogue
from trtpack_runtime import ledger
from trtpack_runtime.errors import BundleError


@pytest.mark.parametrize(
    ("target", "base", "wheels", "platform"),
    [
        ("cpu", "debian:bookworm-slim", (), "linux/amd64"),
        ("orin@jetpack-6.0", "nvcr.io/nvidia/l4t-tensorrt:r8.6.2-runtime", (), "linux/arm64"),
        ("orin", "nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime", ("numpy<2",), "linux/arm64"),
        (
            "thor@jetpack-7.0",
            "nvcr.io/nvidia/cuda:13.0.1-base-ubuntu24.04",
            ("tensorrt-cu13==10.13.3.9",),
            "linux/arm64",
        ),
        ("thor@jetpack-7.2", "nvcr.io/nvidia/cuda:13.2.1-base-ubuntu24.04", (), "linux/arm64"),
        (
            "h100@tensorrt-11.4",
            "nvcr.io/nvidia/cuda:13.0.1-base-ubuntu24.04",
            ("tensorrt-cu13==11.4.0.106",),
            "linux/amd64",
        ),
        (
            "rtx-4090",
            "nvcr.io/nvidia/cuda:13.0.1-base-ubuntu24.04",
            ("tensorrt-rtx==1.7.1.116",),
            "linux/amd64",
        ),
    ],
)
def test_a_target_has_its_base(
    target: str, base: str, wheels: tuple[str, ...], platform: str, tmp_path: Path
) -> None:
    recipe = recipe_for(write(tmp_path / "b.tar", target))
    assert (recipe.image.base, recipe.image.wheels, recipe.platform) == (base, wheels, platform)
    assert recipe.gpu == (target != "cpu")
    assert recipe.jetson == target.startswith(("orin", "thor"))


def test_a_device_of_ones_own_has_the_base_of_its_stack(tmp_path: Path) -> None:
    (tmp_path / "robot.toml").write_text('like = "orin"\ndevice = "our robot"\nmemory_gib = 32\n')
    recipe = recipe_for(write(tmp_path / "b.tar", str(tmp_path / "robot.toml")))
    assert (recipe.target, recipe.jetson) == ("robot@jetpack-6.2", True)
    assert recipe.image.base == "nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime"


def test_every_stack_but_one_has_a_base_and_every_wheel_an_exact_release() -> None:
    images = {name: stack.image for name, stack in catalogue().stacks.items()}
    assert [name for name, image in images.items() if image is None] == ["igx-sw-1.0dp"]
    for name, image in images.items():
        tensorrt = catalogue().stacks[name].tensorrt
        release = ".".join(map(str, tensorrt or ()))
        installed = [*image.wheels, *image.debs] if image else []
        assert all(release in text for text in installed if "numpy" not in text), name


def test_an_image_is_for_one_variant(tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar", "cpu", "orin")
    assert recipe_for(path, variant="orin").variant == "orin"
    with pytest.raises(ConfigError, match=r"for one variant, and .* has cpu, orin") as error:
        recipe_for(path)
    assert error.value.hint == "add --target cpu"
    with pytest.raises(ConfigError, match="no variant 'orinn', it has cpu, orin") as error:
        recipe_for(path, variant="orinn")
    assert error.value.hint == "did you mean orin?"


def test_a_target_without_a_known_base_needs_one(tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar", "igx-orin@igx-sw-1.0dp")
    with pytest.raises(ConfigError, match=r"no base image is known for IGX-SW 1\.0") as error:
        recipe_for(path)
    assert "--base" in error.value.hint
    recipe = recipe_for(path, base="registry.example/igx:1@sha256:" + "0" * 64)
    assert recipe.image.base.startswith("registry.example/igx:1@")
    assert not recipe.image.wheels


def test_pytorch_is_there_only_where_a_segment_needs_it(tmp_path: Path) -> None:
    assert recipe_for(write(tmp_path / "a.tar", "orin")).torch is None
    recipe = recipe_for(write(tmp_path / "b.tar", "orin", torch_segment=True))
    assert (recipe.torch, recipe.image.torch_index) == (
        "torch==2.8.0",
        "https://pypi.jetson-ai-lab.io/jp6/cu126",
    )
    compiled = recipe_for(write(tmp_path / "c.tar", "cpu"))
    assert (compiled.torch, compiled.image.torch_index) == (
        "torch==2.13.0",
        "https://download.pytorch.org/whl/cpu",
    )


def test_pytorch_that_the_images_lack_is_told(tmp_path: Path) -> None:
    old = write(tmp_path / "a.tar", "orin@jetpack-6.0", torch_segment=True)
    with pytest.raises(ConfigError, match="no PyTorch is known for this target's images"):
        recipe_for(old)
    assert recipe_for(old, base="mine:1").torch is None
    new = write(tmp_path / "b.tar", "orin", torch_segment=True, requires=("format:1", "torch>=2.9"))
    with pytest.raises(ConfigError, match=r"needs PyTorch 2\.9, this target's images have 2\.8\.0"):
        recipe_for(new)


def test_machine_code_is_loaded_where_this_machine_built_it_or_a_user_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    path = write(tmp_path / "b.tar", "cpu", "orin")
    stranger = recipe_for(path, variant="cpu")
    assert (stranger.code, stranger.trust) == (True, False)
    assert recipe_for(path, variant="cpu", trust=True).arguments == ("--target", "cpu", "--trust")
    assert not recipe_for(path, variant="orin", trust=True).trust
    ledger.record(path)
    assert recipe_for(path, variant="cpu").trust


def test_modules_of_operators_need_a_base_that_has_them(tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar", "orin", requires=("format:1", "module:my_ops"))
    with pytest.raises(ConfigError, match="operators of the module 'my_ops'"):
        recipe_for(path)
    recipe = recipe_for(path, base="mine:1")
    assert recipe.arguments == ("--target", "orin", "--import", "my_ops")


def test_what_is_no_bundle_is_told(tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(b"no tar")
    with pytest.raises(BundleError):
        recipe_for(tmp_path / "b.tar")


def test_a_bundles_words_cannot_become_instructions(tmp_path: Path) -> None:
    evil = "x\nRUN evil"
    path = write(tmp_path / "a.tar", "cpu", name=evil, told={"key": evil, "device": evil})
    lines = dockerfile(recipe_for(path)).splitlines()
    assert not [line for line in lines if line.startswith("RUN evil")]
    with pytest.raises(BundleError, match="is no release of PyTorch"):
        recipe_for(write(tmp_path / "b.tar", "cpu", torch=evil))
    with pytest.raises(ConfigError, match="is no image"):
        recipe_for(path, base=f"debian:{evil}")
    assert recipe_for(write(tmp_path / "c.tar", "cpu", torch="2.9.1; evil")).torch == "torch==2.9.1"


def test_a_machine_without_images_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "b.tar", "cpu", told={"arch": "riscv64"})
    with pytest.raises(ConfigError, match="no image is known for riscv64"):
        recipe_for(path)
