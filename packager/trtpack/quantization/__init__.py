# SPDX-License-Identifier: Apache-2.0
"""Numbers of few bits with scales: operators for them, and other libraries' modules that have them.

``operators.py`` has what quantized models are in lowered graphs, whoever quantized them.
``lowering/recognise_quantization.py`` finds it in captured graphs; ``fake_quantizers.py`` and
``weight_tensors.py`` let modules be captured that PyTorch cannot trace as they are.
"""
