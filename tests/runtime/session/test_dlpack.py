# SPDX-License-Identifier: Apache-2.0
"""Tensors of other libraries in, and outputs that stay on the GPU out."""

from __future__ import annotations

import gc
import sys
import threading

import numpy
import pytest

from tests.runtime.session.bundles import BATCH, Made
from tests.runtime.session.conftest import Lab
from tests.runtime.session.nets import CHAIN, DOUBLE, NETS, WHOLE, some
from tests.runtime.session.producers import LikeTorch, OnGpu, OnHost
from tests.runtime.session.trt_double import Net
from trtpack_runtime.errors import DeviceError, InputMismatchError
from trtpack_runtime.session import DeviceArray, dlpack


def test_a_capsule_is_given_back_once(lab: Lab) -> None:
    lab.machine(NETS)
    x = OnGpu(lab.cuda, some())
    for _ in range(2):
        taken = dlpack.take(x, 77)
        assert (taken.shape, taken.strides, taken.dtype) == ((2, 3), None, "FLOAT")
        assert (taken.address, taken.device) == (x.address, (dlpack.CUDA, 0))
        assert x.held == 1
        taken.release()
        taken.release()
        assert x.held == 0
    dlpack.take(x)
    capsule = x.__dlpack__()
    assert x.held == 1
    del capsule
    gc.collect()
    assert x.held == 0, "nobody took it"
    assert x.streams == [77, 77, None, None]
    x.free()


def test_numpy_takes_what_we_give_and_we_what_it_gives(lab: Lab) -> None:
    lab.machine(NETS)
    for value in (some(), numpy.arange(6), numpy.zeros((2, 0, 3), "f4"), numpy.float32(3)[()]):
        value = numpy.asarray(value)
        assert numpy.array_equal(numpy.from_dlpack(OnHost(value)), value)
    taken = dlpack.take(some(3)[::2])
    assert taken.strides == (6, 1)
    assert dlpack.take(some(1)[::2]).strides is None, "one row is contiguous"


def test_arrays_of_the_host_are_copied(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    x = OnHost(some())
    assert numpy.array_equal(session.run([x])["y"], 2 * some())
    gc.collect()
    assert x.held == 0
    with pytest.raises(InputMismatchError, match="input x: wanted float32, got complex64"):
        session.run([OnHost(numpy.zeros((2, 3), "c8"), "COMPLEX64")])


@pytest.mark.parametrize("graphs", ["off", "auto"])
def test_tensors_on_the_gpu_are_read_where_they_are(lab: Lab, graphs: str) -> None:
    session = lab.session(NETS, CHAIN, cuda_graphs=graphs)
    x = OnGpu(lab.cuda, some())
    for seed in range(4):
        x.write(some(2, seed))
        assert numpy.array_equal(session.run([x])["sum"], 4 * some(2, seed) + some(2, seed))
        assert x.held == 0, "it is no longer needed"
    assert set(x.streams) == {session.stream}, "which waits until they are ready"
    assert "copy in" not in lab.cuda.journal
    x.free()


def test_a_tensor_is_held_until_the_call_is_over(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    x = OnGpu(lab.cuda, some())
    future = session.run_async([x])
    gc.collect()
    assert x.held == 1
    future.result()
    assert x.held == 0
    x.free()


def test_what_cannot_be_read_where_it_is_is_refused(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    wrong = OnGpu(lab.cuda, some().astype("f8")), OnGpu(lab.cuda, some(), device=1)
    with pytest.raises(InputMismatchError, match="input x: wanted float32, got float64"):
        session.run([wrong[0]])
    with pytest.raises(InputMismatchError, match="input x: it is on GPU 1, the session on 0"):
        session.run([wrong[1]])
    gc.collect()
    for x in wrong:
        x.free()

    class Refuses:
        def __dlpack__(self, stream: int | None = None) -> None:
            raise BufferError("no such thing\nreally")

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

    with pytest.raises(InputMismatchError, match=r"input x: it cannot be read: no such thing$"):
        session.run([Refuses()])


def test_wide_integers_on_the_gpu_of_an_engine_without(lab: Lab) -> None:
    session = lab.session(NETS, WHOLE, narrow=True)
    wide = OnGpu(lab.cuda, numpy.arange(4))
    with pytest.raises(InputMismatchError, match="input i: it is INT64 on the GPU, this engine's"):
        session.run([wide])
    narrow = OnGpu(lab.cuda, numpy.arange(4, dtype="i4"))
    assert session.run([narrow])["j"].tolist() == [0, 3, 6, 9]
    gc.collect()
    wide.free()
    narrow.free()


@pytest.mark.parametrize("graphs", ["off", "auto"])
def test_outputs_may_stay_on_the_gpu(lab: Lab, graphs: str) -> None:
    session = lab.session(NETS, CHAIN, cuda_graphs=graphs)
    for seed in range(4):
        x = some(2, seed)
        found = session.run([x], copy=False)
        total = found["sum"]
        assert isinstance(total, DeviceArray)
        assert (total.shape, total.dtype, total.ndim, total.nbytes) == ((2, 3), "FLOAT", 2, 24)
        assert numpy.array_equal(total.numpy(), 4 * x + x)
        assert numpy.array_equal(found["same"].numpy(), x)
        assert lab.cuda.holds(total.address, total.nbytes)
        assert numpy.array_equal(session.run([total])["sum"], 4 * (5 * x) + 5 * x)
        assert not numpy.array_equal(total.numpy(), 4 * x + x), "it was overwritten"


def test_an_output_may_be_the_next_input(lab: Lab) -> None:
    """Again and again, under graphs too: it lies where the next output is written."""
    session = lab.session(NETS, DOUBLE)
    y = session.run([some()], copy=False)["y"]
    for step in range(2, 10):
        y = session.run([y], copy=False)["y"]
        assert numpy.array_equal(y.numpy(), some() * 2.0**step)
    assert "graph" in lab.cuda.journal


def test_what_others_took_outlives_the_session(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    found = session.run([some()], copy=False)["y"]
    taken = dlpack.take(found, 1)
    assert any(note.endswith("waits") for note in lab.cuda.journal), "the taker's stream"
    session.close()
    assert lab.cuda.holds(taken.address, found.nbytes)
    assert lab.cuda.leaked() == ["1 device"]
    taken.release()
    assert lab.cuda.leaked() == []
    with pytest.raises(DeviceError, match="this array's memory is gone"):
        found.numpy()
    with pytest.raises(DeviceError, match="this array's memory is gone"):
        found.__dlpack__()


def test_arrays_are_fetched_while_others_call(lab: Lab) -> None:
    """Copies of another thread must not get into a graph that is being captured."""
    session = lab.session(NETS, DOUBLE)
    found = {b: session.run([some(b)], copy=False)["y"] for b in (1, 2, 3)}
    wrong: list[int] = []

    def fetch() -> None:
        for _ in range(20):
            if not numpy.array_equal(found[1].numpy(), 2 * some(1)):
                wrong.append(1)

    thread = threading.Thread(target=fetch)
    thread.start()
    for seed in range(20):
        batch = 2 + seed % 3
        assert numpy.array_equal(session.run([some(batch, seed)])["y"], 2 * some(batch, seed))
    thread.join()
    assert not wrong


def test_outputs_of_a_call_under_way_stay_too(lab: Lab) -> None:
    session = lab.session(NETS, DOUBLE)
    future = session.run_async([some()], copy=False)
    assert not future.done()
    assert numpy.array_equal(future.result()["y"].numpy(), 2 * some())


def test_a_stream_of_the_callers(lab: Lab) -> None:
    lab.machine(NETS)
    lab.end()
    stream = lab.cuda.cudaStreamCreateWithFlags(1)[1]
    session = lab.session_on(NETS, DOUBLE, stream=int(stream))
    x = OnGpu(lab.cuda, some())
    for seed in range(4):
        x.write(some(2, seed))
        y = session.run([x], copy=False)["y"]
        assert "event" not in lab.cuda.journal, "nothing is waited for"
        assert numpy.array_equal(y.numpy(), 2 * some(2, seed))
    assert set(x.streams) == {-1}, "the caller's stream has them ready"
    y = session.run([some()], copy=False)["y"]
    assert numpy.array_equal(y.numpy(), 2 * some())
    assert numpy.array_equal(session.run([some(1)])["y"], 2 * some(1))
    session.close()
    gc.collect()
    x.free()
    assert lab.cuda.cudaStreamDestroy(stream) == (0,), "it stays the caller's"


@pytest.mark.parametrize("graphs", ["off", "auto"])
def test_a_call_that_repeats_itself(lab: Lab, graphs: str) -> None:
    """Tensors that are PyTorch's stand where they stood: the call is made again as it was."""
    lab.machine(NETS)
    stream = lab.cuda.cudaStreamCreateWithFlags(1)[1]
    session = lab.session_on(NETS, DOUBLE, stream=int(stream), cuda_graphs=graphs)
    one, two, three = (LikeTorch(lab.cuda, some(b, b)) for b in (2, 2, 3))
    order = [one] * 6 + [two] * 4 + [three] * 4 + [one] * 2 + [three, two, one, two] + [one] * 3
    for step, x in enumerate(order):
        x.write(some(x.shape[0], step))
        y = session.run({"x": x}, copy=False)["y"]
        assert numpy.array_equal(y.numpy(), 2 * some(x.shape[0], step))
        if step == 5:
            reads = len(one.streams)
            assert reads < 6, "its capsule is not taken again"
            numpy_answer = session.run([some(2, 9)])["y"]
            assert numpy.array_equal(numpy_answer, 2 * some(2, 9))
    one.move(some(2, 77))
    y = session.run([one], copy=False)["y"]
    assert numpy.array_equal(y.numpy(), 2 * some(2, 77)), "the same tensor in another place"
    session.close()
    for x in (one, two, three):
        x.free()
    lab.cuda.cudaStreamDestroy(stream)


def test_numbers_of_16_bits_that_numpy_lacks(lab: Lab) -> None:
    nets = {
        "brain": Net(
            {"x": ("BF16", (BATCH, 3))},
            {"y": ("BF16", (BATCH, 3))},
            lambda x: [x ^ 0x8000],  # minus
            [{"x": ((1, 3), (2, 3), (4, 3))}],
        )
    }
    made = Made(
        [("x", "BF16", (BATCH, 3), (4, 3))],
        [("y", "BF16", (BATCH, 3))],
        [("forward_0", "brain", {"x": "x"}, {"y": "y"})],
    )
    session = lab.session(nets, made)
    bits = numpy.arange(6, dtype="u2").reshape(2, 3)
    for x in (bits, OnHost(bits), OnHost(bits.copy(), "BF16"), OnGpu(lab.cuda, bits)):
        found = session.run([x])["y"]
        assert numpy.array_equal(found.view("u2"), bits ^ 0x8000)
        if isinstance(x, OnGpu):
            x.free()
    with pytest.raises(InputMismatchError, match="input x: wanted bfloat16, got float64"):
        lab.session(nets, made, inputs="refuse").run([numpy.zeros((2, 3))])


def test_torch_gives_and_takes(lab: Lab) -> None:
    torch = pytest.importorskip("torch")
    session = lab.session(NETS, DOUBLE)
    x = torch.rand(2, 3)
    assert numpy.array_equal(session.run([x])["y"], 2 * x.numpy())
    assert numpy.array_equal(session.run([x.t().contiguous().t()])["y"], 2 * x.numpy())
    with pytest.raises(InputMismatchError, match=r"cannot be read: .*gradient"):
        session.run([x.clone().requires_grad_()])
    before = sys.getrefcount(x)
    for _ in range(100):
        dlpack.take(x).release()
    assert sys.getrefcount(x) == before
    back = torch.from_dlpack(OnHost(some()))
    assert numpy.array_equal(back.numpy(), some())
