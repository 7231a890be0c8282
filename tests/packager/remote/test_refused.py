# SPDX-License-Identifier: Apache-2.0
"""What stands in the way of a device: each told clearly, each before anything is left there."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime import deferred
from trtpack.errors import ConfigError
from trtpack.options import Options
from trtpack.remote.build import look_at_device
from trtpack.remote.login import Login
from trtpack.remote.running import run_on
from trtpack.report import Progress
from trtpack.target import find_target
from trtpack_runtime.errors import DeviceError, TrtpackError

from . import devices
from .sshd import Server


def look(server: Server, target: str = "cpu", **changes: Any) -> None:
    """What ``build --on`` does before anything else."""
    given: dict[str, Any] = {"on": server.on, "ssh_options": server.options, **changes}
    options = Options((target,), **given)
    look_at_device(options, [find_target(target)], Progress())


def refused(server: Server, kind: type[TrtpackError], *told: str, **changes: Any) -> None:
    """Holds the error against what it has to tell; the device is as it was before."""
    before = server.left()
    with pytest.raises(kind) as raised:
        look(server, **changes)
    for text in told:
        assert text in f"{raised.value.message}\n{raised.value.hint}"
    assert raised.value.hint
    assert server.settled() == before == ["home", "tmp"]


@pytest.mark.slow
def test_a_device_that_is_the_target(device: Server) -> None:
    look(device)


@pytest.mark.slow
def test_a_device_with_a_gpu_that_is_the_target(device: Server) -> None:
    devices.add_gpu(device, "NVIDIA GeForce RTX 4090", "8.9", 24, 128)
    devices.add_tensorrt_rtx(device)
    look(device, "rtx-4090")


def test_an_unknown_host(device: Server) -> None:
    refused(
        device,
        ConfigError,
        "there is no host nowhere.invalid",
        "check --on",
        on="ssh://nowhere.invalid",
    )


@pytest.mark.slow
def test_a_host_where_nobody_answers(device: Server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        at = f"ssh://127.0.0.1:{free.getsockname()[1]}"
        refused(device, DeviceError, "no SSH server answers at 127.0.0.1", "start sshd", on=at)


def test_a_refused_key(device: Server) -> None:
    (device.folder / "authorized_keys").write_text("")
    refused(device, DeviceError, "device refuses the login", "ssh-copy-id device")


def test_a_host_that_is_not_known(device: Server) -> None:
    (device.folder / "known_hosts").write_text("")
    refused(device, ConfigError, "device is not known to this host", "log in once by hand")


@pytest.mark.slow
def test_options_that_ssh_does_not_take(device: Server) -> None:
    refused(
        device,
        ConfigError,
        "ssh does not take these options",
        "--ssh-option",
        ssh_options=("-F /nowhere/config",),
    )
    refused(device, ConfigError, "No closing quotation", ssh_options=("-F '",))


def test_a_python_that_is_too_old(device: Server) -> None:
    old = 'import sys; sys.version_info = (3, 8, 10, "final", 0); exec(sys.argv[2])'
    device.python(f"exec {sys.executable} -c '{old}' \"$@\"")
    refused(device, DeviceError, "device has Python 3.8.10, this needs 3.10", "--remote-python")


@pytest.mark.slow
def test_no_python(device: Server) -> None:
    refused(device, DeviceError, "no such Python on device", remote_python="python9")


@pytest.mark.slow
def test_a_login_that_runs_nothing(device: Server) -> None:
    device.python("echo This account is not available.; exit 1")
    refused(device, DeviceError, "cannot start anything on device: This account is not available")


@pytest.mark.slow
def test_a_shell_that_talks_is_no_hindrance(device: Server) -> None:
    real = (device.folder / "bin" / "python3").read_text().splitlines()[1]
    device.python(f"echo Welcome to your robot!\n{real}")
    look(device)


@pytest.mark.slow
def test_without_tensorrt(device: Server) -> None:
    devices.add_gpu(device, "NVIDIA H200", "9.0", 141, 132)
    refused(device, DeviceError, "TensorRT is not installed", "--remote-python", target="h200")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gpu", "told"),
    [
        (None, "there is no NVIDIA GPU"),
        (("NVIDIA L4", "8.9", 24, 58), "NVIDIA L4 is SM 8.9, not 9.0"),
        (("NVIDIA GH200", "9.0", 96, 132), "it has 103.08 GB of memory, NVIDIA H200"),
    ],
)
def test_a_device_that_is_not_the_target(
    device: Server, gpu: tuple[str, str, int, int] | None, told: str
) -> None:
    devices.add_tensorrt(device, "10.16", "10.16.1.11")
    if gpu is not None:
        devices.add_gpu(device, *gpu)
    told = f"device is not what this is built for: h200: {told}"
    refused(device, DeviceError, told, target="h200")


@pytest.mark.slow
def test_another_release_of_tensorrt(device: Server) -> None:
    devices.add_tensorrt(device, "10.3", "10.3.0.30")
    devices.add_gpu(device, "NVIDIA H200", "9.0", 141, 132)
    refused(device, DeviceError, "it has TensorRT 10.3.0.30, not", target="h200")


@pytest.mark.slow
@pytest.mark.parametrize(("days", "way"), [(-3, "behind"), (3, "ahead of")])
def test_a_clock_that_is_wrong(device: Server, days: int, way: str) -> None:
    (device.packages / "sitecustomize.py").write_text(
        f"import time\nnow = time.time\ntime.time = lambda: now() + {days} * 86400\n"
    )
    refused(device, DeviceError, f"the clock of device is 72.0 h {way} this host's", "set-ntp")


def test_no_such_folder(device: Server) -> None:
    refused(
        device,
        DeviceError,
        "cannot make a folder in /nowhere on device: no such file",
        on="ssh://device/nowhere",
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes; where none can be mounted the test is skipped."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount a disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full_from_the_start(device: Server, small_disk: Path) -> None:
    (small_disk / "full").write_bytes(bytes((2 << 20) - 50_000))
    on = f"ssh://device{small_disk}"
    refused(device, DeviceError, f"{small_disk} on device: no space left", "another disk", on=on)
    assert [path.name for path in small_disk.iterdir()] == ["full"]


@pytest.mark.slow
def test_a_disk_that_is_too_small_for_the_bundle(
    device: Server, small_disk: Path, tmp_path: Path
) -> None:
    bundle = deferred.write(tmp_path / "bundle.tar")
    with pytest.raises(DeviceError, match=r"has 1\.\d MB free, this takes 16\.8 MB"):
        run(f"ssh://device{small_disk}", bundle, device)
    assert list(small_disk.iterdir()) == []


@pytest.mark.slow
def test_a_disk_that_fills_up_while_the_bundle_is_sent(device: Server, tmp_path: Path) -> None:
    """A file may not grow beyond a megabyte there: the disk that refuses in the middle."""
    bundle = tmp_path / "bundle.tar"
    bundle.write_bytes(bytes(5 << 20))
    real = (device.folder / "bin" / "python3").read_text().splitlines()[1]
    device.python(f"ulimit -f 2048\n{real}")
    with pytest.raises(DeviceError, match=r"device: cannot write to .*: file too large"):
        run(device.on, bundle, device)


def run(on: str, bundle: Path, server: Server) -> int:
    return run_on(
        on,
        bundle,
        [],
        gives={},
        takes={},
        ssh_options=server.options,
        write=lambda stream, data: None,
        say=lambda text: None,
    )


@pytest.mark.slow
def test_nothing_is_left_of_a_login_here(device: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the control socket is gone, and so is the login itself."""
    made: list[Path] = []
    mkdtemp = tempfile.mkdtemp

    def recorded(*args: str | None, **named: str) -> str:
        made.append(Path(mkdtemp(*args, **named)))
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", recorded)
    with Login.to(device.on, device.options).device() as there:
        folders = [path for path in made if path.name.startswith("trtpack-ssh-")]
        assert [path.parent for path in folders if path.exists()] == [Path("/tmp")]
        assert there.hello.facts["python"].startswith("3.")
        assert [path.name for path in device.root.glob("tmp/*")]
    assert not [path for path in made if path.exists()]


@pytest.mark.slow
def test_a_login_of_the_users_own_is_used_and_stays(device: Server) -> None:
    """Where the configuration shares logins, ours is none of them."""
    socket_file = device.folder / "control"
    with (device.folder / "client_config").open("a") as file:
        file.write(
            f"    ControlMaster auto\n    ControlPath {socket_file}\n    ControlPersist 60\n"
        )
    words = ["ssh", "-F", str(device.folder / "client_config")]
    subprocess.run([*words, "device", "true"], check=True, stderr=subprocess.DEVNULL)
    (device.folder / "authorized_keys").write_text("")  # nobody else gets in from now on
    look(device)
    assert socket_file.exists()
    subprocess.run([*words, "-O", "exit", "device"], check=True, stderr=subprocess.DEVNULL)
