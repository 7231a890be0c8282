# SPDX-License-Identifier: Apache-2.0
"""Segmentation, matting, super-resolution, generators."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from .registry import batched, conv_bn, img, model, tv


@model("dcgan", "gen", "own", True)
def _():
    ch = [100, 512, 256, 128, 64]
    layers = []
    for i in range(4):
        layers += [
            nn.ConvTranspose2d(
                ch[i], ch[i + 1], 4, 1 if i == 0 else 2, 0 if i == 0 else 1, bias=False
            ),
            nn.BatchNorm2d(ch[i + 1]),
            nn.ReLU(True),
        ]
    layers += [nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False), nn.Tanh()]
    return nn.Sequential(*layers), (torch.randn(4, 100, 1, 1),), batched()


@model(
    "pytorch_CycleGAN_and_pix2pix",
    "gen",
    "own",
    True,
    "resnet generator, reflection pads, instance norm",
)
def _():
    class Res(nn.Module):
        def __init__(s, c):
            super().__init__()
            s.f = nn.Sequential(
                nn.ReflectionPad2d(1),
                nn.Conv2d(c, c, 3),
                nn.InstanceNorm2d(c),
                nn.ReLU(True),
                nn.ReflectionPad2d(1),
                nn.Conv2d(c, c, 3),
                nn.InstanceNorm2d(c),
            )

        def forward(s, x):
            return x + s.f(x)

    c = 64
    ls = [nn.ReflectionPad2d(3), nn.Conv2d(3, c, 7), nn.InstanceNorm2d(c), nn.ReLU(True)]
    for m in (1, 2):
        ls += [nn.Conv2d(c * m, c * m * 2, 3, 2, 1), nn.InstanceNorm2d(c * m * 2), nn.ReLU(True)]
    ls += [Res(c * 4) for _ in range(9)]
    for m in (4, 2):
        ls += [
            nn.ConvTranspose2d(c * m, c * m // 2, 3, 2, 1, 1),
            nn.InstanceNorm2d(c * m // 2),
            nn.ReLU(True),
        ]
    ls += [nn.ReflectionPad2d(3), nn.Conv2d(c, 3, 7), nn.Tanh()]
    return nn.Sequential(*ls), (img(h=128),), batched()


class DoubleConv(nn.Sequential):
    def __init__(s, i, o):
        super().__init__(conv_bn(i, o), conv_bn(o, o))


@model("pytorch_unet", "dense", "own", True, "bilinear up, pad to the skip's size")
def _():
    class UNet(nn.Module):
        def __init__(s, ch=(64, 128, 256, 512, 512), classes=2):
            super().__init__()
            s.inc = DoubleConv(3, ch[0])
            s.down = nn.ModuleList(DoubleConv(ch[i], ch[i + 1]) for i in range(4))
            s.upc = nn.ModuleList(DoubleConv(2 * ch[i], ch[max(i - 1, 0)]) for i in (3, 2, 1, 0))
            s.outc = nn.Conv2d(ch[0], classes, 1)

        def forward(s, x):
            sk = [s.inc(x)]
            for d in s.down:
                sk.append(d(F.max_pool2d(sk[-1], 2)))
            y = sk.pop()
            for u in s.upc:
                y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)
                k = sk.pop()
                dy, dx = k.shape[2] - y.shape[2], k.shape[3] - y.shape[3]
                y = u(torch.cat([k, F.pad(y, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])], 1))
            return s.outc(y)

    return UNet(), (img(h=180, w=270),), batched()


@model("Background_Matting", "dense", "own", True, "four encoders, context switching, two decoders")
def _():
    class Res(nn.Module):
        def __init__(s, c):
            super().__init__()
            s.f = nn.Sequential(
                nn.ReflectionPad2d(1),
                nn.Conv2d(c, c, 3),
                nn.BatchNorm2d(c),
                nn.ReLU(True),
                nn.ReflectionPad2d(1),
                nn.Conv2d(c, c, 3),
                nn.BatchNorm2d(c),
            )

        def forward(s, x):
            return x + s.f(x)

    def enc(i, c=64):
        return nn.Sequential(
            nn.ReflectionPad2d(3),
            conv_bn(i, c, 7, p=0),
            conv_bn(c, 2 * c, 3, 2),
            conv_bn(2 * c, 4 * c, 3, 2),
        )

    def dec(o, act):
        up = lambda i, k: [
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            conv_bn(i, k),
        ]
        return nn.Sequential(
            *up(256, 128), *up(128, 64), nn.ReflectionPad2d(3), nn.Conv2d(64, o, 7), act
        )

    class Matting(nn.Module):
        def __init__(s):
            super().__init__()
            s.e = nn.ModuleList([enc(3), enc(3), enc(1), enc(4)])
            s.comb = nn.ModuleList(conv_bn(512, 64, 1) for _ in range(3))
            s.merge = conv_bn(256 + 192, 256, 1)
            s.body = nn.Sequential(*[Res(256) for _ in range(7)])
            s.ba, s.bf = (nn.Sequential(*[Res(256) for _ in range(3)]) for _ in range(2))
            s.da, s.df = dec(1, nn.Tanh()), dec(3, nn.Identity())

        def forward(s, image, back, seg, multi):
            f = [e(x) for e, x in zip(s.e, (image, back, seg, multi))]
            ctx = [c(torch.cat([f[0], o], 1)) for c, o in zip(s.comb, f[1:])]
            h = s.body(s.merge(torch.cat([f[0], *ctx], 1)))
            al = s.da(s.ba(h))
            mask = (al > -0.95).type(image.dtype)
            return al, s.df(s.bf(h)) * (1 - mask) + image * mask

    return Matting(), (img(h=128), img(h=128), img(c=1, h=128), img(c=4, h=128)), batched(4)


@model("deeplabv3_mobilenet", "dense", "torchvision")
def _():
    class W(nn.Module):
        def __init__(s):
            super().__init__()
            s.m = tv.models.segmentation.deeplabv3_mobilenet_v3_large(
                weights=None, weights_backbone=None
            )

        def forward(s, x):
            return s.m(x)["out"].argmax(1)

    return W(), (img(h=256),), batched()


@model("lraspp_mobilenet", "dense", "torchvision")
def _():
    class W(nn.Module):
        def __init__(s):
            super().__init__()
            s.m = tv.models.segmentation.lraspp_mobilenet_v3_large(
                weights=None, weights_backbone=None
            )

        def forward(s, x):
            return s.m(x)["out"]

    return W(), (img(h=256),), batched()


@model("espcn_superres", "dense", "own", note="sub-pixel super-resolution x3, bicubic skip")
def _():
    class Espcn(nn.Module):
        def __init__(s, r=3):
            super().__init__()
            s.r = r
            s.f = nn.Sequential(
                nn.Conv2d(3, 64, 5, 1, 2),
                nn.PReLU(64),
                nn.Conv2d(64, 32, 3, 1, 1),
                nn.PReLU(),
                nn.Conv2d(32, 3 * r * r, 3, 1, 1),
                nn.PixelShuffle(r),
            )

        def forward(s, x):
            return (
                s.f(x) + F.interpolate(x, scale_factor=s.r, mode="bicubic", align_corners=False)
            ).clamp(0, 1)

    return Espcn(), (img(h=96),), batched()


@model(
    "superpoint",
    "dense",
    "own",
    note="keypoint heads; descriptors sampled with grid_sample at top-k points",
)
def _():
    class SuperPoint(nn.Module):
        def __init__(s, k=128):
            super().__init__()
            s.k = k
            ch = [1, 64, 64, 128, 128]
            s.bb = nn.Sequential(
                *[
                    nn.Sequential(
                        nn.Conv2d(ch[i], ch[i + 1], 3, 1, 1),
                        nn.ReLU(),
                        nn.Conv2d(ch[i + 1], ch[i + 1], 3, 1, 1),
                        nn.ReLU(),
                        nn.MaxPool2d(2) if i < 3 else nn.Identity(),
                    )
                    for i in range(4)
                ]
            )
            s.det = nn.Sequential(nn.Conv2d(128, 256, 3, 1, 1), nn.ReLU(), nn.Conv2d(256, 65, 1))
            s.desc = nn.Sequential(nn.Conv2d(128, 256, 3, 1, 1), nn.ReLU(), nn.Conv2d(256, 256, 1))

        def forward(s, x):
            f = s.bb(x)
            p = s.det(f).softmax(1)[:, :-1]
            heat = F.pixel_shuffle(p, 8).squeeze(1)
            mx = F.max_pool2d(heat.unsqueeze(1), 9, 1, 4).squeeze(1)
            heat = torch.where(heat == mx, heat, torch.zeros_like(heat))
            b, h, w = heat.shape
            sc, ix = heat.flatten(1).topk(s.k, 1)
            xy = torch.stack([ix % w, torch.div(ix, w, rounding_mode="floor")], -1).float()
            g = xy / torch.tensor([w - 1, h - 1], dtype=torch.float32) * 2 - 1
            d = F.normalize(s.desc(f), dim=1)
            d = F.grid_sample(d, g.unsqueeze(1), mode="bilinear", align_corners=True).squeeze(2)
            return sc, xy, F.normalize(d, dim=1)

    return SuperPoint(), (img(2, 1, 120, 160),), batched()


@model(
    "sd_unet_block",
    "gen",
    "own",
    note="diffusion UNet: timestep embedding, ResBlocks, self+cross attention, one down/up level",
)
def _():
    class ResB(nn.Module):
        def __init__(s, i, o, t):
            super().__init__()
            s.n1, s.c1, s.t = nn.GroupNorm(32, i), nn.Conv2d(i, o, 3, 1, 1), nn.Linear(t, o)
            s.n2, s.c2 = nn.GroupNorm(32, o), nn.Conv2d(o, o, 3, 1, 1)
            s.sk = nn.Conv2d(i, o, 1) if i != o else nn.Identity()

        def forward(s, x, t):
            h = s.c1(F.silu(s.n1(x))) + s.t(F.silu(t))[:, :, None, None]
            return s.sk(x) + s.c2(F.silu(s.n2(h)))

    class Attn(nn.Module):
        def __init__(s, c, kv, heads=8):
            super().__init__()
            s.h = heads
            s.q, s.k, s.v, s.o = (
                nn.Linear(c, c, False),
                nn.Linear(kv, c, False),
                nn.Linear(kv, c, False),
                nn.Linear(c, c),
            )

        def forward(s, x, y):
            sp = lambda z: z.view(z.shape[0], -1, s.h, z.shape[-1] // s.h).transpose(1, 2)
            o = F.scaled_dot_product_attention(sp(s.q(x)), sp(s.k(y)), sp(s.v(y)))
            return s.o(o.transpose(1, 2).reshape(x.shape))

    class TB(nn.Module):
        def __init__(s, c, ctx):
            super().__init__()
            s.gn, s.pi, s.po = nn.GroupNorm(32, c, 1e-6), nn.Linear(c, c), nn.Linear(c, c)
            s.n = nn.ModuleList(nn.LayerNorm(c) for _ in range(3))
            s.a1, s.a2 = Attn(c, c), Attn(c, ctx)
            s.f1, s.f2 = nn.Linear(c, 8 * c), nn.Linear(4 * c, c)

        def forward(s, x, ctx):
            b, c, h, w = x.shape
            y = s.pi(s.gn(x).permute(0, 2, 3, 1).reshape(b, h * w, c))
            z = s.n[0](y)
            y = y + s.a1(z, z)
            y = y + s.a2(s.n[1](y), ctx)
            u, g = s.f1(s.n[2](y)).chunk(2, -1)
            y = y + s.f2(u * F.gelu(g))
            return x + s.po(y).reshape(b, h, w, c).permute(0, 3, 1, 2).contiguous()

    class UNet(nn.Module):
        def __init__(s, c=128, ctx=256, t=512):
            super().__init__()
            s.c = c
            s.te = nn.Sequential(nn.Linear(c, t), nn.SiLU(), nn.Linear(t, t))
            s.i = nn.Conv2d(4, c, 3, 1, 1)
            s.r1, s.t1, s.dn = ResB(c, c, t), TB(c, ctx), nn.Conv2d(c, c, 3, 2, 1)
            s.r2, s.t2, s.r3 = ResB(c, 2 * c, t), TB(2 * c, ctx), ResB(2 * c, 2 * c, t)
            s.up = nn.Conv2d(2 * c, 2 * c, 3, 1, 1)
            s.r4, s.t4 = ResB(3 * c, c, t), TB(c, ctx)
            s.no, s.o = nn.GroupNorm(32, c), nn.Conv2d(c, 4, 3, 1, 1)

        def forward(s, x, t, ctx):
            half = s.c // 2
            f = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
            a = t[:, None].float() * f[None]
            t = s.te(torch.cat([a.cos(), a.sin()], -1))
            h = s.i(x)
            k = s.t1(s.r1(h, t), ctx)
            h = s.r3(s.t2(s.r2(s.dn(k), t), ctx), t)
            h = s.up(F.interpolate(h, scale_factor=2.0, mode="nearest"))
            h = s.t4(s.r4(torch.cat([h, k], 1), t), ctx)
            return s.o(F.silu(s.no(h)))

    return (
        UNet(),
        (torch.randn(2, 4, 32, 32), torch.tensor([10, 500]), torch.randn(2, 77, 256)),
        batched(3),
    )


@model("unet3d", "dense", "own", note="conv3d, trilinear up, instance norm")
def _():
    class U3(nn.Module):
        def __init__(s, c=16):
            super().__init__()
            blk = lambda i, o: nn.Sequential(
                nn.Conv3d(i, o, 3, 1, 1),
                nn.InstanceNorm3d(o, affine=True),
                nn.LeakyReLU(0.01),
                nn.Conv3d(o, o, 3, 1, 1),
                nn.InstanceNorm3d(o, affine=True),
                nn.LeakyReLU(0.01),
            )
            s.a, s.b, s.c = blk(1, c), blk(c, 2 * c), blk(2 * c, 4 * c)
            s.u1, s.d1 = nn.ConvTranspose3d(4 * c, 2 * c, 2, 2), blk(4 * c, 2 * c)
            s.d2, s.o = blk(3 * c, c), nn.Conv3d(c, 3, 1)

        def forward(s, x):
            a = s.a(x)
            b = s.b(F.max_pool3d(a, 2))
            c = s.c(F.max_pool3d(b, 2))
            d = s.d1(torch.cat([s.u1(c), b], 1))
            d = F.interpolate(d, scale_factor=2, mode="trilinear", align_corners=False)
            return s.o(s.d2(torch.cat([d, a], 1))).softmax(1)

    return U3(), (torch.randn(2, 1, 16, 32, 32),), batched()
