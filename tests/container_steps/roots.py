# SPDX-License-Identifier: Apache-2.0
"""Does what a Dockerfile says, in folders that begin as debootstrap makes them.

Debian's images are that themselves (its variant ``minbase``). Each command runs in a mount and
process namespace of its own with the stage's folder as its root, as the stage's user. Of this
machine it is told how to reach the network and the package registries, as ``docker build`` is by
its proxy arguments, and no more.
"""

from __future__ import annotations

import glob
import os
import shlex
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.aarch64.root import MIRROR, MachineError

from .stages import PATH, Stage, Step

SUITES = ("bookworm", "trixie")
TOOLS = ("debootstrap", "unshare", "chroot", "mount")
HERE = "/run/this-machine"
"""Where a command finds what it may use of this machine."""

ENTER = """
mount --make-rprivate / && mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/run" || exit 125
mkdir -p "$1/run/this-machine" "$1/dev/shm" && mount -t tmpfs tmpfs "$1/dev/shm" || exit 125
cp /etc/ssl/certs/ca-certificates.crt "$1/run/this-machine/" || exit 125
for file in resolv.conf hosts; do
    touch "$1/etc/$file" && mount --bind "/etc/$file" "$1/etc/$file" || exit 125
done
if [ -n "$2" ]; then
    mkdir "$1/run/this-machine/wheels" && mount --bind "$2" "$1/run/this-machine/wheels" || exit 125
fi
root=$1 user=$3 folder=$4
shift 4
exec chroot --userspec="$user" "$root" /bin/sh -c 'cd "$0" && exec "$@"' "$folder" "$@"
"""


def check_machine() -> None:
    """Raises MachineError where this machine cannot make such a root, with what it lacks."""
    if os.geteuid() != 0:
        raise MachineError("making a root file system needs root: run this as root")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise MachineError(f"{', '.join(missing)} missing: apt-get install debootstrap")


def suite_of(image: str) -> str:
    """The suite of Debian that an image is.

    Raises:
        MachineError: it is another.
    """
    for suite in SUITES:
        if image.partition("@")[0] in (f"debian:{suite}", f"debian:{suite}-slim"):
            return suite
    raise MachineError(
        f"{image} is not made by debootstrap: its steps can only be run by a Docker engine, or on "
        f"a stand-in, --stand-in {SUITES[0]}"
    )


class Roots:
    """The stages' root file systems, a folder each below ``folder``, while the block runs; what
    debootstrap made stays for the next time."""

    def __init__(self, folder: Path, context: Path, say: Callable[[str], None]) -> None:
        self.folder, self.context, self._say = folder.absolute(), context, say
        self._stages: dict[str, Path] = {}

    def __enter__(self) -> Roots:
        return self

    def __exit__(self, *_: object) -> None:
        for root in self._stages.values():
            _remove(root)

    def build(self, stage: Stage, stand_in: str | None = None) -> None:
        """Runs a stage's steps; those of the stages it needs have to be run before.

        Raises:
            MachineError: a step failed, with its last lines.
        """
        source = self._stages.get(stage.base)
        if source is None:
            suite = stand_in or suite_of(stage.base)
            self._say(f"FROM {stage.base}: debootstrap's {suite}, no image was pulled")
            source = self._debian(suite)
        root = self._stages[stage.name] = self.folder / f"stage-{stage.name}"
        _remove(root)
        _copy(source, root)
        for step in stage.steps:
            self._say(f"{step.kind} {step.value}")
            getattr(self, f"_{step.kind.lower()}")(root, step)

    def run(self, stage: Stage, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Runs a command in the finished stage, as its user, with its environment and folder."""
        root = self._stages[stage.name]
        return self._inside(root, stage.user, stage.folder, stage.environment, command)

    def give(self, stage: Stage, file: Path, place: str) -> None:
        """Copies a file of this machine into the finished stage, in the place of a mount."""
        target = self._stages[stage.name] / place.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        target.chmod(0o644)

    def size(self, stage: Stage) -> int:
        """The bytes of its files."""
        done = subprocess.run(
            ["du", "-sxb", self._stages[stage.name]], capture_output=True, text=True, check=True
        )
        return int(done.stdout.split()[0])

    def _run(self, root: Path, step: Step) -> None:
        command = ("/bin/sh", "-c", step.value)
        done = self._inside(root, step.user, step.folder, step.environment, command)
        if done.returncode:
            said = [*done.stdout.splitlines()[-6:], *done.stderr.splitlines()[-6:]]
            raise MachineError(f"RUN ended with {done.returncode}: {' | '.join(said)}")

    def _copy(self, root: Path, step: Step) -> None:
        words = shlex.split(step.value)
        source = self.context
        if words[0].startswith("--from="):
            source = self._stages[words.pop(0).removeprefix("--from=")]
        *names, place = words
        if any(word.startswith("--") for word in names):
            raise MachineError(f"COPY {step.value} has an option that is not known here")
        target = root / place.lstrip("/") if place.startswith("/") else None
        if target is None:
            target = root / step.folder.lstrip("/") / place
        for name in names:
            found = sorted(glob.glob(str(source / name.lstrip("/"))))  # noqa: PTH207 as COPY matches
            if not found:
                raise MachineError(f"COPY: there is no {name} in {source}")
            for path in map(Path, found):
                into = target / path.name if place.endswith("/") and path.is_file() else target
                into.parent.mkdir(parents=True, exist_ok=True)
                _copy(path, into)

    def _add(self, root: Path, step: Step) -> None:
        address, place = shlex.split(step.value)
        target = root / place.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                target.write_bytes(answer.read())
        except OSError as error:
            raise MachineError(f"ADD {address}: {error}") from error
        target.chmod(0o600)

    def _workdir(self, root: Path, step: Step) -> None:
        (root / step.folder.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _inside(
        self,
        root: Path,
        user: str,
        folder: str,
        environment: Mapping[str, str],
        command: Sequence[str],
    ) -> subprocess.CompletedProcess[str]:
        wheels = os.environ.get("PIP_FIND_LINKS", "")
        wheels = wheels if Path(wheels).is_dir() else ""
        inside = {"PATH": PATH, "HOME": "/root", **_network(wheels), **environment}
        if user not in ("", "0", "0:0", "root"):
            inside["HOME"] = folder
        unshare = shutil.which("unshare") or "unshare"
        enter = (unshare, "--mount", "--pid", "--fork", "/bin/sh", "-c", ENTER, "sh")
        return subprocess.run(
            [*enter, root, wheels, user or "0:0", folder, *command],
            env=inside,
            capture_output=True,
            text=True,
            check=False,
        )

    def _debian(self, suite: str) -> Path:
        """What debootstrap makes of a suite, once."""
        place = self.folder / suite
        if place.exists():
            return place
        partial = self.folder / f"{suite}.partial"
        _remove(partial)
        partial.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["debootstrap", "--variant=minbase", suite, partial, MIRROR],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise MachineError(f"debootstrap failed: {done.stdout.strip().splitlines()[-1:]}")
        return partial.rename(place)


def _network(wheels: str) -> dict[str, str]:
    """How a command inside reaches the network and the registries."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.lower().endswith("_proxy") or name in ("PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT")
    }
    authorities = f"{HERE}/ca-certificates.crt"
    kept |= {"PIP_CERT": authorities, "SSL_CERT_FILE": authorities}
    return kept | ({"PIP_FIND_LINKS": f"{HERE}/wheels"} if wheels else {})


def _copy(source: Path, target: Path) -> None:
    """As ``cp -a``, of root as in an image; a folder's content into the folder that is there."""
    into = [f"{source}/.", target] if source.is_dir() else [source, target]
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    owner = () if source.is_dir() else ("--no-preserve=ownership",)
    subprocess.run(["cp", "-a", "--reflink=auto", *owner, *into], check=True)


def _remove(folder: Path) -> None:
    if folder.exists():
        subprocess.run(["rm", "-rf", "--one-file-system", folder], check=True)
