# SPDX-License-Identifier: Apache-2.0
"""Why operators that have no converter have none."""

from __future__ import annotations

from torch._ops import OpOverload

from .refusals import SIZED_BY_DATA

_BACKWARD = "computes gradients, and an engine is for inference only"
_COMPLEX = "TensorRT has no complex types"
_PACKED = (
    "the size of a packed sequence, and of each of its steps, depends on data, so it runs in "
    "PyTorch between engines"
)
_RANDOM = "its random numbers follow PyTorch's generator, whose state TensorRT does not have"
_STRIDES = "asks how a tensor lies in memory, which TensorRT alone decides"

REASONS: dict[str, str] = {
    "aten::_adaptive_avg_pool2d_backward": _BACKWARD,
    "aten::avg_pool2d_backward": _BACKWARD,
    "aten::convolution_backward": _BACKWARD,
    "aten::embedding_dense_backward": _BACKWARD,
    "aten::max_pool2d_with_indices_backward": _BACKWARD,
    "aten::native_group_norm_backward": _BACKWARD,
    "aten::native_layer_norm_backward": _BACKWARD,
    "aten::_fft_c2c": _COMPLEX,
    "aten::_fft_c2r": _COMPLEX,
    "aten::_fft_r2c": _COMPLEX,
    "aten::complex": _COMPLEX,
    "aten::polar": _COMPLEX,
    "aten::view_as_complex": _COMPLEX,
    "aten::view_as_real": _COMPLEX,
    "aten::as_strided": "reads elements by their place in memory, which TensorRT alone decides",
    "aten::bernoulli": _RANDOM,
    "aten::bernoulli.p": _RANDOM,
    "aten::multinomial": _RANDOM,
    "aten::native_dropout": _RANDOM,
    "aten::normal.Tensor_Tensor": _RANDOM,
    "aten::normal_functional": _RANDOM,
    "aten::rand": _RANDOM,
    "aten::rand_like": _RANDOM,
    "aten::randint": _RANDOM,
    "aten::randint.low": _RANDOM,
    "aten::randint_like": _RANDOM,
    "aten::randn": _RANDOM,
    "aten::randn_like": _RANDOM,
    "aten::randperm": _RANDOM,
    "aten::uniform": _RANDOM,
    "aten::_native_batch_norm_legit": (
        "takes the batch's own statistics and changes the running ones, as in training; "
        "put the model into eval mode"
    ),
    "aten::_native_batch_norm_legit_functional": (
        "takes the batch's own statistics and changes the running ones, as in training; "
        "put the model into eval mode"
    ),
    "aten::_local_scalar_dense": (
        "makes a Python number of a tensor's value, which an engine cannot hand out while it runs"
    ),
    "aten::item": (
        "makes a Python number of a tensor's value, which an engine cannot hand out while it runs"
    ),
    "aten::_pdist_forward": (
        "picks the pairs above the diagonal of a distance matrix, whose number is quadratic in a "
        "size; torch.cdist has a converter"
    ),
    "aten::resize_": (
        "changes how many elements a tensor has and leaves the new ones undefined; TensorRT's "
        "tensors have one shape"
    ),
    "aten::sym_is_contiguous": _STRIDES,
    "aten::sym_storage_offset": _STRIDES,
    "aten::sym_stride.int": _STRIDES,
    "aten::_unique": SIZED_BY_DATA,
    "aten::_unique2": SIZED_BY_DATA,
    "aten::argwhere": SIZED_BY_DATA,
    "aten::bincount": SIZED_BY_DATA,
    "aten::masked_select": SIZED_BY_DATA,
    "aten::nonzero": SIZED_BY_DATA,
    "aten::nonzero_numpy": SIZED_BY_DATA,
    "aten::repeat_interleave.Tensor": SIZED_BY_DATA,
    "aten::unique_consecutive": SIZED_BY_DATA,
    "aten::unique_dim": SIZED_BY_DATA,
    "aten::unique_dim_consecutive": SIZED_BY_DATA,
    "torchvision::nms": SIZED_BY_DATA,
    "aten::gru.data": _PACKED,
    "aten::lstm.data": _PACKED,
    "aten::rnn_relu.data": _PACKED,
    "aten::rnn_tanh.data": _PACKED,
    "aten::_pack_padded_sequence": _PACKED,
    "aten::_pad_packed_sequence": _PACKED,
    "aten::linalg_eig": _COMPLEX,
    "aten::_linalg_svd": "TensorRT has no decompositions of matrices",
    "aten::_linalg_eigh": "TensorRT has no decompositions of matrices",
    "aten::linalg_cholesky_ex": "TensorRT has no decompositions of matrices",
    "aten::linalg_lu_factor_ex": "TensorRT has no decompositions of matrices",
    "aten::linalg_inv_ex": "TensorRT has no decompositions of matrices",
    "aten::linalg_qr": "TensorRT has no decompositions of matrices",
    "aten::_linalg_solve_ex": "TensorRT has no decompositions of matrices",
    "aten::_linalg_det": "TensorRT has no decompositions of matrices",
}
"""Operator by name -> the technical reason; what has a converter after all needs none."""


def reason(op: OpOverload) -> str:
    """Why an operator without a converter stays in PyTorch, in words a user can read."""
    return REASONS.get(op.name(), "no converter")
