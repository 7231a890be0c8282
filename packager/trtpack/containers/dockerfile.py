# SPDX-License-Identifier: Apache-2.0
"""The Dockerfile of one bundle.

Three stages: the base with what runs, pip's work on top of it, and the base again with what pip
left. It needs no BuildKit. What is installed by apt besides TensorRT is of the base's own release,
so that pinning the base (``--build-arg BASE=NAME@sha256:...``) pins it as far as that release goes.

Source: https://docs.docker.com/reference/dockerfile/
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence

from trtpack_runtime import __version__

from .recipe import Recipe

MARK = "# trtpack wrote this"
"""How a Dockerfile of ours begins."""

BUNDLE = "/bundle/bundle.tar"
UID = 10001
IGNORED = "# everything but what the Dockerfile copies\n*\n!bundle.tar\n!wheels\n"
"""The ``.dockerignore``."""

_APT = "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends"
_PIP = "/opt/trtpack/bin/pip install --no-cache-dir"
_PYTHON = "/opt/trtpack/bin/python"
_COMPILE = "from trtpack_runtime.packed_modules import compile_all; compile_all()"
"""What the image's user, who may not write there, would have compiled at each start."""

_KEYRING = "/etc/apt/keyrings/trtpack.asc"


def dockerfile(recipe: Recipe) -> str:
    """Its text; the same for the same recipe."""
    parts = (_head(recipe), _base(recipe), _install(recipe), _final(recipe))
    return "\n".join("\n".join(part) + "\n" for part in parts)


def run_flags(recipe: Recipe) -> str:
    """What ``docker run`` needs to give a container the GPU."""
    if not recipe.gpu:
        return ""
    return "--runtime nvidia " if recipe.jetson else "--gpus all "


def _head(recipe: Recipe) -> Iterator[str]:
    yield f"{MARK} with release {__version__}, for {recipe.target}"
    yield f"#   docker build --platform {recipe.platform} -t NAME ."
    yield f"#   docker run --rm {run_flags(recipe)}NAME"
    yield "# An exact base, by its digest: --build-arg BASE=IMAGE@sha256:..."
    yield f"ARG BASE={recipe.image.base}"


def _base(recipe: Recipe) -> Iterator[str]:
    image = recipe.image
    yield "FROM ${BASE} AS base"
    if recipe.own_base:
        yield "# hadolint ignore=DL3002"
        yield "USER 0"
    packages = ["python3"]
    if recipe.torch:
        packages.append("libgomp1")
    if image.repository:
        packages += image.debs
        yield f"ADD {image.key} {_KEYRING}"
        source = f"deb [signed-by={_KEYRING}] {image.repository}"
        listed = f'echo "{source}" > /etc/apt/sources.list.d/trtpack.list'
        yield from _run(f"chmod 0644 {_KEYRING}", listed)
    group = " --groups video" if recipe.jetson else ""
    yield from _run(
        *_apt(packages),
        f"useradd --uid {UID} --user-group --create-home{group} trtpack",
        "install -d -o trtpack -g trtpack /var/cache/trtpack",
    )


def _install(recipe: Recipe) -> Iterator[str]:
    yield "FROM base AS install"
    yield from _run(*_apt(["python3-venv"]))
    if recipe.torch and recipe.image.torch_index:
        yield f"ARG TORCH_INDEX={recipe.image.torch_index}"
    yield from _run(*_environment(recipe))
    yield "COPY wheels /wheels"
    commands = [
        f"{_PIP} /wheels/*.whl",
        f'env -u PYTHONDONTWRITEBYTECODE {_PYTHON} -c "{_COMPILE}"',
    ]
    if recipe.module:  # found, not imported, which needs the GPU's driver
        code = f"from importlib.util import find_spec; assert find_spec('{recipe.module}')"
        commands.append(f'{_PYTHON} -c "{code}"')
    yield from _run(*commands)


def _environment(recipe: Recipe) -> Iterator[str]:
    sees = " --system-site-packages" if recipe.gpu or recipe.own_base else ""
    yield f"python3 -m venv{sees} /opt/trtpack"
    if recipe.torch:
        index = '--index-url "${TORCH_INDEX}" ' if recipe.image.torch_index else ""
        yield f"{_PIP} {index}{shlex.quote(recipe.torch)}"
    if recipe.image.wheels:
        yield f"{_PIP} {shlex.join(recipe.image.wheels)}"


def _final(recipe: Recipe) -> Iterator[str]:
    run = ("trtpack", "run", BUNDLE, *recipe.arguments)
    yield "FROM base"
    yield "COPY --from=install /opt/trtpack /opt/trtpack"
    yield f"COPY bundle.tar {BUNDLE}"
    yield 'ENV PATH="/opt/trtpack/bin:${PATH}" XDG_CACHE_HOME=/var/cache PYTHONUNBUFFERED=1'
    yield from _labels(recipe)
    yield f"USER {UID}:{UID}"
    yield "WORKDIR /home/trtpack"
    yield f"RUN trtpack verify {BUNDLE}"
    yield "HEALTHCHECK --interval=10m --timeout=5m --start-period=15m --retries=2 \\"
    yield f"    CMD {json.dumps([*run, '--no-bench', '--quiet'])}"
    yield f"ENTRYPOINT {json.dumps(run)}"


def _labels(recipe: Recipe) -> Iterator[str]:
    labels = {
        "org.opencontainers.image.title": recipe.name,
        "org.opencontainers.image.base.name": recipe.image.base,
        "trtpack.bundle.digest": recipe.digest,
        "trtpack.target": recipe.target,
        "trtpack.variant": recipe.variant,
        "trtpack.runtime": __version__,
    }
    lines = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in labels.items()]
    yield "LABEL " + " \\\n    ".join(line.replace("$", "\\$") for line in lines)


def _apt(packages: Sequence[str]) -> tuple[str, ...]:
    names = " ".join(packages)
    return ("apt-get update", f"{_APT} {names}", "rm -rf /var/lib/apt/lists/*")


def _run(*commands: str) -> Iterator[str]:
    if any(_APT in command for command in commands):
        yield "# hadolint ignore=DL3008"  # versions are those of the base's release
    yield "RUN " + " \\\n    && ".join(commands)
