"""Networks that say they take one row: set free where that is safe, left alone where it isn't, shared by threads."""

import threading

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nanoswap.pipelines import onnx_net
from nanoswap.pipelines.onnx_net import OnnxNet
from nanoswap.pipelines.runtime import DeviceMissing
from nanoswap.pipelines.window import Batching

NOW = Batching(most=8, wait=0.0)


def graph(nodes: list[onnx.NodeProto], shape: list[int | str], out: list[int | str], **constants: np.ndarray) -> bytes:
    made = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())


def doubling() -> bytes:
    """One row of 4 numbers, twice as large."""
    return graph([helper.make_node("Mul", ["x", "two"], ["y"])], [1, 4], [1, 4], two=np.array([2.0], np.float32))


def detector_like() -> bytes:
    """One row of (4, 4) to 16 rows of one number, as SCRFD's outputs have no axis for the picture."""
    nodes = [helper.make_node("Reshape", ["x", "to"], ["y"])]
    return graph(nodes, [1, 4, 4], [16, 1], to=np.array([-1, 1], np.int64))


def mixing() -> bytes:
    """Every row minus the mean of all rows: must never be given two."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    return graph(nodes, [1, 4], [1, 4])


def fixed() -> bytes:
    """A shape of one row written into the graph's middle."""
    nodes = [helper.make_node("Reshape", ["x", "to"], ["y"])]
    return graph(nodes, [1, 4], [1, 2, 2], to=np.array([1, 2, 2], np.int64))


def test_static_row_is_set_free() -> None:
    net = OnnxNet(doubling(), batching=NOW)
    rows = np.arange(20, dtype=np.float32).reshape(5, 4)
    (out,) = net.forward(rows)
    assert np.array_equal(out, rows * 2)
    assert (net.batch, net.forwards, net.rows) == (8, 1, 5)


def test_rows_of_many_entries_are_given_back_to_their_pictures() -> None:
    net = OnnxNet(detector_like(), batching=Batching(most=8, wait=1.0))
    rows = np.random.default_rng(0).random((8, 4, 4)).astype(np.float32)
    answers: dict[int, np.ndarray] = {}
    start = threading.Barrier(8)

    def call(index: int) -> None:
        start.wait()
        (answers[index],) = net.run(["y"], {"x": rows[index : index + 1]})

    threads = [threading.Thread(target=call, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    for index in range(8):
        assert np.array_equal(answers[index], rows[index].reshape(16, 1))
    assert net.forwards == 1


@pytest.mark.parametrize("make", [mixing, fixed])
def test_graph_whose_rows_depend_on_each_other_stays_as_published(make) -> None:  # type: ignore[no-untyped-def]
    net = OnnxNet(make(), batching=NOW)
    assert net.batch == 1
    rows = np.random.default_rng(1).random((3, 4)).astype(np.float32)
    (out,) = net.forward(rows)
    alone = [OnnxNet(make(), batching=NOW).forward(row[None])[0] for row in rows]
    assert np.array_equal(out, np.concatenate(alone))
    assert net.forwards == 3


def test_more_rows_than_a_forward_takes_go_in_several() -> None:
    net = OnnxNet(doubling(), batching=NOW)
    rows = np.random.default_rng(2).random((20, 4)).astype(np.float32)
    (out,) = net.forward(rows)
    assert np.array_equal(out, rows * 2)
    assert (net.forwards, net.rows) == (3, 20)


def test_missing_device_is_an_error_and_no_slow_detour() -> None:
    if onnx_net.PROVIDERS["cuda"] in onnx_net.onnxruntime.get_available_providers():
        pytest.skip("this machine has the device")
    with pytest.raises(DeviceMissing, match="'cuda'"):
        OnnxNet(doubling(), device="cuda")
