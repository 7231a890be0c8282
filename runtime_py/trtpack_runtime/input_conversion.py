# SPDX-License-Identifier: Apache-2.0
"""Makes of an input what the method takes, where nothing is lost by it."""

from __future__ import annotations

import torch

_EXACT_BITS = {
    torch.float16: 11,
    torch.bfloat16: 8,
    torch.float32: 24,
    torch.float64: 53,
}
"""How many binary digits of an integer a floating-point type holds exactly."""

_INTEGER_BITS = {
    torch.bool: 1,
    torch.uint8: 8,
    torch.int8: 7,
    torch.int16: 15,
    torch.int32: 31,
    torch.int64: 63,
}
"""How many binary digits an integer type's numbers have, without the sign."""

_WIDER = {
    torch.float16: {torch.float32, torch.float64},
    torch.bfloat16: {torch.float32, torch.float64},
    torch.float32: {torch.float64},
}


def is_lossless(have: torch.dtype, want: torch.dtype) -> bool:
    """Whether every number of one type is one of the other.

    int64 to int32 is not, whatever the numbers are: to look at them would wait for the device.
    """
    if have == want:
        return True
    if have in _WIDER:
        return want in _WIDER[have]
    bits = _INTEGER_BITS.get(have)
    if bits is None:
        return False
    if want in _EXACT_BITS:
        return bits <= _EXACT_BITS[want]
    if want not in _INTEGER_BITS or want is torch.bool:
        return False
    is_signed = have not in (torch.bool, torch.uint8)
    return bits <= _INTEGER_BITS[want] and not (is_signed and want is torch.uint8)


def converted(
    value: torch.Tensor, dtype: torch.dtype, rank: int, device: torch.device
) -> torch.Tensor:
    """The tensor on a device, of a type, and with dimensions of size 1 where it has none.

    What would lose something stays as it is: a type that cannot hold every number of the tensor's,
    a rank that is not reached from a single element. A tensor of the host is read before this
    returns, so that its owner may write to it again.
    """
    if value.device != device and value.device.type != "meta":
        value = value.to(device)
    if value.dtype != dtype and is_lossless(value.dtype, dtype):
        value = value.to(dtype)
    if value.dim() != rank and value.numel() == 1 and 0 in (value.dim(), rank):
        value = value.reshape((1,) * rank)
    return value
