# SPDX-License-Identifier: Apache-2.0
"""Image and video classifiers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .registry import batched, img, model, tv


def tv_cls(name, size=224, tb=True, family="cnn"):
    @model(name, family, "torchvision", tb)
    def _():
        return tv.models.get_model(name, weights=None), (img(h=size),), batched()


def timm_cls(name, arch, size=224, tb=True, family="cnn", note=""):
    @model(name, family, "timm", tb, note or arch)
    def _():
        import timm

        return timm.create_model(arch, pretrained=False), (img(h=size),), batched()


for n in (
    "alexnet",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "resnet18",
    "resnet50",
    "shufflenet_v2_x1_0",
    "vgg16",
):
    tv_cls(n)
timm_cls("timm_efficientnet", "efficientnet_b0")
timm_cls("timm_vovnet", "ese_vovnet19b_dw")
timm_cls("timm_resnest", "resnest14d")
timm_cls("timm_vision_transformer", "vit_small_patch16_224", family="vit")
tv_cls("convnext_tiny", tb=False)
timm_cls("repvit_m0_9", "repvit_m0_9", tb=False)
tv_cls("swin_t", tb=False, family="vit")
timm_cls("mobilevit_s", "mobilevit_s", 256, False, "vit")
timm_cls("fastvit_t8", "fastvit_t8", 256, False, "vit")
timm_cls("mixer_s32", "mixer_s32_224", 224, False, "vit")
timm_cls("levit_128s", "levit_128s", 224, False, "vit")


@model("moco", "cnn", "own", True, "query encoder + normalise + queue logits")
def _():
    class Moco(nn.Module):
        def __init__(s, dim=128, k=4096):
            super().__init__()
            s.enc_q, s.enc_k = (tv.models.resnet50(num_classes=dim) for _ in range(2))
            s.register_buffer("queue", F.normalize(torch.randn(dim, k), dim=0))

        def forward(s, a, b):
            q, k = F.normalize(s.enc_q(a), dim=1), F.normalize(s.enc_k(b), dim=1)
            pos = torch.einsum("nc,nc->n", [q, k]).unsqueeze(-1)
            neg = torch.einsum("nc,ck->nk", [q, s.queue.clone().detach()])
            return torch.cat([pos, neg], 1) / 0.07

    return Moco(), (img(), img()), batched(2)


@model("opacus_cifar10", "cnn", "torchvision", True, "resnet18 with GroupNorm")
def _():
    m = tv.models.resnet18(num_classes=10, norm_layer=lambda c: nn.GroupNorm(min(32, c), c))
    return m, (img(4, h=32),), batched()


@model("maml_omniglot", "cnn", "own", True, "four conv blocks, batch statistics at inference")
def _():
    def blk(i):
        return nn.Sequential(
            nn.Conv2d(i, 64, 3),
            nn.BatchNorm2d(64, momentum=1, affine=True, track_running_stats=False),
            nn.ReLU(inplace=False),
            nn.MaxPool2d(2, 2),
        )

    m = nn.Sequential(blk(1), blk(64), blk(64), nn.Flatten(), nn.Linear(64, 5))
    return m, (img(5, 1, 28),), batched()


@model("r3d_18_video", "cnn", "torchvision")
def _():
    return tv.models.video.r3d_18(weights=None), (torch.randn(2, 3, 8, 64, 64),), batched()
