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
_FACTORS = (
    "TensorRT has no layer that factors matrices, and a factorisation orders rows and ends its "
    "steps by their values"
)
_SPECIAL = (
    "TensorRT has no layer for this special function, and no converter computes it of others to "
    "PyTorch's precision"
)
_TRIANGULAR = "solves row after row, each from all before it, for which TensorRT has no layer"
_BITS = "reads or changes the bits of a number, and every cast of TensorRT keeps the number instead"
_HISTOGRAM = (
    "TensorRT has no layer that counts into bins; torch.bucketize and sums of comparisons have "
    "converters"
)
_NUMBER = "makes a Python number of a tensor's value, which an engine cannot hand out while it runs"
_PLACES = (
    "reads or writes elements by their place in memory, which TensorRT alone decides; only a view "
    "of a contiguous tensor becomes indexing"
)
_SPARSE = "TensorRT has no sparse tensors but weights with a pattern of 2 in 4"
_TRAINED = (
    "takes the batch's own statistics and changes the running ones, as in training; "
    "put the model into eval mode"
)
_STRIDES = "asks how a tensor lies in memory, which TensorRT alone decides"

_OBSERVES = (
    "finds its range while it runs, as in training; put the model into eval mode and turn its "
    "observers off"
)
_FOUR_BIT_FLOATS = (
    "finds the scales of blocks while it runs, in FP4 or MXFP8, which networks here do not have yet"
)

REASONS: dict[str, str] = {
    "aten::_fused_moving_avg_obs_fq_helper": _OBSERVES,
    "aten::_fused_moving_avg_obs_fq_helper_functional": _OBSERVES,
    "aten::fused_moving_avg_obs_fake_quant": _OBSERVES,
    "aten::_int_mm": (
        "multiplies int8 by int8 with a scale found while it runs; TensorRT wants scales that are "
        "known when the engine is built"
    ),
    "tensorrt::dynamic_block_quantize_op": _FOUR_BIT_FLOATS,
    "tensorrt::dynamic_block_quantize_op.overload": _FOUR_BIT_FLOATS,
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
    "aten::_conj": _COMPLEX,
    "aten::_conj_physical": _COMPLEX,
    "aten::as_strided": _PLACES,
    "aten::as_strided_copy": _PLACES,
    "aten::as_strided_scatter": _PLACES,
    "aten::frexp.Tensor": _BITS,
    "aten::nextafter": _BITS,
    "aten::hash_tensor": _BITS,
    "aten::bernoulli": _RANDOM,
    "aten::bernoulli.p": _RANDOM,
    "aten::_standard_gamma": _RANDOM,
    "aten::binomial": _RANDOM,
    "aten::cauchy": _RANDOM,
    "aten::exponential": _RANDOM,
    "aten::geometric": _RANDOM,
    "aten::log_normal": _RANDOM,
    "aten::poisson": _RANDOM,
    "aten::random": _RANDOM,
    "aten::multinomial": _RANDOM,
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
    "aten::_native_batch_norm_legit": _TRAINED,
    "aten::_native_batch_norm_legit_functional": _TRAINED,
    "aten::_local_scalar_dense": _NUMBER,
    "aten::item": _NUMBER,
    "aten::equal": _NUMBER,
    "aten::is_nonzero": _NUMBER,
    "aten::_batch_norm_with_update": _TRAINED,
    "aten::_batch_norm_with_update_functional": _TRAINED,
    "aten::resize_": (
        "changes how many elements a tensor has and leaves the new ones undefined; TensorRT's "
        "tensors have one shape"
    ),
    "aten::sym_is_contiguous": _STRIDES,
    "aten::sym_storage_offset": _STRIDES,
    "aten::sym_stride.int": _STRIDES,
    "aten::_unique": SIZED_BY_DATA,
    "aten::_unique2": SIZED_BY_DATA,
    "aten::bincount": SIZED_BY_DATA,
    "aten::unique_consecutive": SIZED_BY_DATA,
    "aten::unique_dim": SIZED_BY_DATA,
    "aten::unique_dim_consecutive": SIZED_BY_DATA,
    "aten::gru.data": _PACKED,
    "aten::lstm.data": _PACKED,
    "aten::rnn_relu.data": _PACKED,
    "aten::rnn_tanh.data": _PACKED,
    "aten::_pack_padded_sequence": _PACKED,
    "aten::_pad_packed_sequence": _PACKED,
    "aten::linalg_eig": _COMPLEX,
    "aten::histc": _HISTOGRAM,
    "aten::histogram.bin_ct": _HISTOGRAM,
    "aten::histogram.bins_tensor": _HISTOGRAM,
    "aten::_histogramdd_bin_edges": _HISTOGRAM,
    "aten::_histogramdd_from_bin_tensors": _HISTOGRAM,
    "aten::_to_sparse": _SPARSE,
    "aten::_to_sparse.sparse_dim": _SPARSE,
    "aten::_ctc_loss": (
        "a loss for training, whose recursion takes as many steps as the lengths in the data say"
    ),
    "aten::_ctc_loss.Tensor": (
        "a loss for training, whose recursion takes as many steps as the lengths in the data say"
    ),
    "aten::embedding_renorm": (
        "shortens rows of the embedding for good while the model runs; an engine's weights stay"
    ),
    "aten::fractional_max_pool2d": "begins its windows where random numbers of PyTorch say",
    "aten::fractional_max_pool3d": "begins its windows where random numbers of PyTorch say",
    "aten::segment_reduce": "the lengths of its segments are data, and its windows depend on them",
    "aten::_linalg_det": _FACTORS,
    "aten::_linalg_eigh": _FACTORS,
    "aten::_linalg_slogdet": _FACTORS,
    "aten::_linalg_solve_ex": _FACTORS,
    "aten::_linalg_svd": _FACTORS,
    "aten::cholesky": _FACTORS,
    "aten::cholesky_inverse": _FACTORS,
    "aten::cholesky_solve": _TRIANGULAR,
    "aten::geqrf": _FACTORS,
    "aten::linalg_cholesky_ex": _FACTORS,
    "aten::linalg_householder_product": _FACTORS,
    "aten::linalg_inv_ex": _FACTORS,
    "aten::linalg_ldl_factor_ex": _FACTORS,
    "aten::linalg_ldl_solve": _FACTORS,
    "aten::linalg_lstsq": _FACTORS,
    "aten::linalg_lu": _FACTORS,
    "aten::linalg_lu_factor_ex": _FACTORS,
    "aten::linalg_lu_solve": _FACTORS,
    "aten::linalg_matrix_exp": _FACTORS,
    "aten::linalg_pinv.atol_rtol_tensor": _FACTORS,
    "aten::linalg_qr": _FACTORS,
    "aten::linalg_solve_triangular": _TRIANGULAR,
    "aten::lu_unpack": _FACTORS,
    "aten::ormqr": _FACTORS,
    "aten::triangular_solve": _TRIANGULAR,
    "aten::_linalg_check_errors": (
        "raises an error where a factorisation failed, which an engine cannot while it runs"
    ),
    "aten::i0": _SPECIAL,
    "aten::igamma": _SPECIAL,
    "aten::igammac": _SPECIAL,
    "aten::special_airy_ai": _SPECIAL,
    "aten::special_bessel_j0": _SPECIAL,
    "aten::special_bessel_j1": _SPECIAL,
    "aten::special_bessel_y0": _SPECIAL,
    "aten::special_bessel_y1": _SPECIAL,
    "aten::special_erfcx": _SPECIAL,
    "aten::special_i0e": _SPECIAL,
    "aten::special_i1": _SPECIAL,
    "aten::special_i1e": _SPECIAL,
    "aten::special_modified_bessel_i0": _SPECIAL,
    "aten::special_modified_bessel_i1": _SPECIAL,
    "aten::special_modified_bessel_k0": _SPECIAL,
    "aten::special_modified_bessel_k1": _SPECIAL,
    "aten::special_ndtri": _SPECIAL,
    "aten::special_scaled_modified_bessel_k0": _SPECIAL,
    "aten::special_scaled_modified_bessel_k1": _SPECIAL,
    "aten::special_spherical_bessel_j0": _SPECIAL,
    "aten::special_zeta": _SPECIAL,
}
"""Operator by name -> the technical reason; what has a converter after all needs none."""


def reason(op: OpOverload) -> str:
    """Why an operator without a converter stays in PyTorch, in words a user can read."""
    return REASONS.get(op.name(), "no converter")
