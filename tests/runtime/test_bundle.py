# SPDX-License-Identifier: Apache-2.0
"""A bundle opened: members checked when used, weights mapped, nothing that runs code."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import trtpack_runtime
from tests.runtime.bundles import (
    CODE,
    WEIGHTS,
    archive_bytes,
    entry,
    manifest_json,
    members,
    write_tiny,
)
from trtpack_runtime import mapping
from trtpack_runtime.archive_writer import write_archive
from trtpack_runtime.bundle import Member, open_bundle, write_bundle
from trtpack_runtime.errors import BundleError, InternalError
from trtpack_runtime.manifest import Manifest
from trtpack_runtime.safetensors import Encoded, open_safetensors

NO_WEIGHTS = {"members": [], "parameters": {}, "buffers": {}}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.tar")


def damage(path: Path, content: bytes) -> None:
    """Changes a byte in the middle of a member with this content."""
    data = bytearray(path.read_bytes())
    data[data.index(content) + len(content) // 2] ^= 1
    path.write_bytes(data)


def test_its_members_and_manifest(tiny: Path) -> None:
    bundle = open_bundle(tiny)
    assert bundle.manifest.name == "tiny"
    assert list(bundle.entries) == [member.name for member in members()]
    assert bundle.member("engines/cpu/forward_0.pt2") == CODE
    assert bundle.json("programs/forward/cpu.json")["method"] == "forward"
    assert bundle.verify() == sum(entry.size for entry in bundle.entries.values())
    assert repr(bundle) == f"Bundle({str(tiny)!r}, name='tiny')"


def test_the_writer_answers_the_manifest_it_wrote(tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "x", Manifest.from_json(manifest_json()), members())
    assert open_bundle(tmp_path / "x").manifest == written
    assert len(written.members) == len(members())


def test_its_weights(tiny: Path) -> None:
    weights = open_bundle(tiny).weights
    assert list(weights.values()) == list(WEIGHTS)
    assert weights["fc.weight"].numpy().shape == (7, 3)


def test_weights_are_mapped_and_aligned(tiny: Path) -> None:
    import ctypes

    for view in open_bundle(tiny).weights.values():
        assert ctypes.addressof(ctypes.c_char.from_buffer(view.buffer)) % 64 == 0


def test_writing_to_a_weight_changes_no_file(tiny: Path) -> None:
    before = tiny.read_bytes()
    bundle = open_bundle(tiny)
    bundle.weights["fc.weight"].numpy()[:] = 7
    assert bundle.weights["fc.weight"].numpy()[0, 0] == 7
    assert tiny.read_bytes() == before
    assert open_bundle(tiny, verify="full").weights["fc.weight"].buffer == WEIGHTS[0].buffer


def test_members_are_read_only(tiny: Path) -> None:
    with pytest.raises(TypeError):
        open_bundle(tiny).member("engines/cpu/forward_0.pt2")[0] = 0


def test_a_digest_is_compared_when_the_member_is_used(tiny: Path) -> None:
    damage(tiny, CODE)
    bundle = open_bundle(tiny)
    assert bundle.json("programs/forward/cpu.json")
    assert bundle.weights
    for use in (lambda: bundle.member("engines/cpu/forward_0.pt2"), bundle.verify):
        with pytest.raises(BundleError, match=r"engines/cpu/forward_0\.pt2 is corrupt") as caught:
            use()
        assert caught.value.member == "engines/cpu/forward_0.pt2"
        assert caught.value.wants != caught.value.has
    with pytest.raises(BundleError, match="is corrupt"):
        open_bundle(tiny, verify="full")


def test_corrupt_weights_are_not_handed_out(tiny: Path) -> None:
    damage(tiny, bytes(WEIGHTS[2].buffer))
    with pytest.raises(BundleError, match=r"weights/0\.safetensors is corrupt"):
        _ = open_bundle(tiny).weights


def test_no_such_member(tiny: Path) -> None:
    with pytest.raises(BundleError, match="there is no member networks/x"):
        open_bundle(tiny).member("networks/x")


def test_a_member_that_is_no_json(tiny: Path) -> None:
    with pytest.raises(BundleError, match=r"malformed engines/cpu/forward_0\.pt2"):
        open_bundle(tiny).json("engines/cpu/forward_0.pt2")


def test_a_tensor_stored_twice(tmp_path: Path) -> None:
    value = manifest_json()
    value["weights"]["members"].append("weights/1.safetensors")
    more = Member("weights/1.safetensors", Encoded(WEIGHTS[:1]))
    write_bundle(tmp_path / "x", Manifest.from_json(value), [*members(), more])
    with pytest.raises(BundleError, match=r"the tensor fc\.weight is stored twice"):
        _ = open_bundle(tmp_path / "x").weights


def test_a_malformed_manifest_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(archive_bytes(b'{"schema": "trtpack.bundle/1"}', []))
    with pytest.raises(BundleError, match=r"x\.tar: malformed manifest: members is missing"):
        open_bundle(path)


def test_a_reference_to_no_member_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="refers to engines/cpu"):
        write_bundle(tmp_path / "x", Manifest.from_json(manifest_json()), members()[:-1])
    assert not list(tmp_path.iterdir())


def test_two_members_of_one_name_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="two members are called"):
        write_bundle(tmp_path / "x", Manifest.from_json(manifest_json()), members() + members())


def archived() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("data.pkl", b"x")
    return made.getvalue()


NO_DATA = {
    "zip": (archived(), "is a zip archive"),
    "empty zip": (b"PK\5\6" + bytes(18), "is a zip archive"),
    **{f"pickle {n}": (pickle.dumps([1.5] * n, n), "is a pickle") for n in (2, 3, 4, 5)},
}


@pytest.mark.parametrize("name", ["programs/forward/cpu.json", "engines/cpu/forward_0.plan", "x"])
@pytest.mark.parametrize("kind", NO_DATA)
def test_archives_and_pickles_are_refused(kind: str, name: str, tmp_path: Path) -> None:
    content, complaint = NO_DATA[kind]
    listed = [{"name": name, "size": len(content), "sha256": entry(name, content).sha256}]
    manifest = manifest_json(members=listed, variants={}, methods={}, weights=NO_WEIGHTS)
    path = tmp_path / "x.tar"
    path.write_bytes(archive_bytes(json.dumps(manifest).encode(), [(name, content)]))
    for use in (lambda: open_bundle(path).member(name), open_bundle(path).verify):
        with pytest.raises(BundleError, match=f"{name} {complaint}") as caught:
            use()
        assert caught.value.member == name
    with pytest.raises(InternalError, match=complaint):
        write_archive(tmp_path / "y", [Member(name, content)], lambda entries: b"{}")
    assert not (tmp_path / "y").exists()


def test_only_compiled_packages_are_archives(tmp_path: Path) -> None:
    parts = [*members()[:-1], Member("engines/cpu/forward_0.pt2", archived())]
    write_bundle(tmp_path / "x", Manifest.from_json(manifest_json()), parts)
    assert open_bundle(tmp_path / "x").verify() > len(archived())


def test_a_safetensors_file_that_begins_like_a_pickle_is_data(tmp_path: Path) -> None:
    name = "w.safetensors"
    header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(0x280)
    content = len(header).to_bytes(8, "little") + header + b"."
    assert content.startswith(b"\x80\x02")
    manifest = Manifest(name="x", producer="test", methods={}, variants={})
    write_bundle(tmp_path / "x", manifest, [Member(name, content)])
    assert bytes(open_bundle(tmp_path / "x").tensors(name)["a"].buffer) == b"."


READ_ALL = """
import sys

CODE = ("pickle.find_class", "exec", "marshal.loads", "os.system", "subprocess.Popen", "import")
reading = False

def refuse(event, arguments):
    if reading and event in CODE:
        raise RuntimeError(f"{event} {arguments}")

sys.addaudithook(refuse)
from trtpack_runtime.bundle import open_bundle
reading = True
bundle = open_bundle(sys.argv[1], verify="full")
bundle.weights, bundle.json("programs/forward/cpu.json")
bundle.tensors("golden/forward-0.safetensors")
loaded = {name.partition(".")[0] for name in sys.modules}
print(*sorted(loaded & {"torch", "numpy", "pickle", "zipfile", "click", "tensorrt"}))
"""


def test_reading_runs_no_code_and_needs_the_standard_library_only(tiny: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, tiny], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\n"


ANONYMOUS = """
import sys
from pathlib import Path
from trtpack_runtime.bundle import Member, open_bundle, write_bundle
from trtpack_runtime.manifest import Manifest
from trtpack_runtime.safetensors import Encoded, TensorView

def anonymous():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10

size = 64 << 20
weights = memoryview(bytearray(b"x") * size)
manifest = Manifest(name="big", producer="test", methods={}, variants={})
start = anonymous()
path = Path(sys.argv[1])
write_bundle(path, manifest, [Member("w", Encoded([TensorView("w", "U8", (size,), weights)]))])
written = anonymous()
bundle = open_bundle(path, verify="full")
assert sum(bundle.tensors("w")["w"].buffer[::4096]) > 0
print(written - start, anonymous() - written)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_are_neither_copied_when_written_nor_when_read(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ANONYMOUS, tmp_path / "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    writing, reading = map(int, done.stdout.split())
    assert writing < 12 << 20
    assert reading < 6 << 20


def test_the_package_offers_it() -> None:
    assert trtpack_runtime.open_bundle is open_bundle
    assert {"load", "open_bundle", "evaluate"} <= set(dir(trtpack_runtime))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = trtpack_runtime.lode


def test_a_member_can_be_mapped_from_the_file_by_another_process(tmp_path: Path) -> None:
    bundle = open_bundle(write_tiny(tmp_path / "x.tar"))
    part = bundle.file_part("weights/0.safetensors")
    assert part.offset % 64 == 0
    found = open_safetensors(mapping.from_json(mapping.to_json(part)))
    assert {n: bytes(v.buffer) for n, v in found.items()} == {
        n: bytes(v.buffer) for n, v in bundle.weights.items()
    }
    beyond = mapping.FilePart(part.path, part.offset, 1 << 40)
    with pytest.raises(BundleError, match=r"x\.tar: the file ends before byte"):
        open_safetensors(beyond)


def test_a_replaced_file_is_noticed(tmp_path: Path) -> None:
    bundle = open_bundle(write_tiny(tmp_path / "x.tar"))
    assert bundle.is_in_place()
    write_tiny(tmp_path / "x.tar")
    assert bundle.is_in_place()
    write_tiny(tmp_path / "x.tar", name="other")
    assert not bundle.is_in_place()
    (tmp_path / "x.tar").unlink()
    assert not bundle.is_in_place()
