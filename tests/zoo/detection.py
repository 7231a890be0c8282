# SPDX-License-Identifier: Apache-2.0
"""Detectors, decoded in the graph; no suppression but where the model is whole."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .registry import Pick, batched, conv_bn, img, model, tv


@model("yolov3", "detect", "own", True, "darknet53, three heads, boxes decoded in the graph")
def _():
    lk = lambda: nn.LeakyReLU(0.1)

    class Res(nn.Module):
        def __init__(s, c):
            super().__init__()
            s.f = nn.Sequential(conv_bn(c, c // 2, 1, act=lk), conv_bn(c // 2, c, 3, act=lk))

        def forward(s, x):
            return x + s.f(x)

    def stage(i, n):
        return nn.Sequential(conv_bn(i, 2 * i, 3, 2, act=lk), *[Res(2 * i) for _ in range(n)])

    def neck(i, c):
        return nn.Sequential(
            *[
                conv_bn(
                    i if j == 0 else (2 * c if j % 2 == 0 else c),
                    c if j % 2 == 0 else 2 * c,
                    1 if j % 2 == 0 else 3,
                    act=lk,
                )
                for j in range(5)
            ]
        )

    class Yolo3(nn.Module):
        def __init__(s, nc=80):
            super().__init__()
            s.no = nc + 5
            s.stem = nn.Sequential(
                conv_bn(3, 32, act=lk), stage(32, 1), stage(64, 2), stage(128, 8)
            )
            s.s4, s.s5 = stage(256, 8), stage(512, 4)
            s.n = nn.ModuleList([neck(1024, 512), neck(768, 256), neck(384, 128)])
            s.red = nn.ModuleList([conv_bn(512, 256, 1, act=lk), conv_bn(256, 128, 1, act=lk)])
            s.head = nn.ModuleList(
                nn.Sequential(conv_bn(c, 2 * c, act=lk), nn.Conv2d(2 * c, 3 * s.no, 1))
                for c in (512, 256, 128)
            )
            anc = torch.tensor(
                [[116, 90, 156, 198, 373, 326], [30, 61, 62, 45, 59, 119], [10, 13, 16, 30, 33, 23]]
            ).float()
            s.register_buffer("anc", anc.view(3, 1, 3, 1, 1, 2))

        def decode(s, p, i, stride):
            b, _, ny, nx = p.shape
            p = p.view(b, 3, s.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
            yv, xv = torch.meshgrid(torch.arange(ny), torch.arange(nx), indexing="ij")
            g = torch.stack((xv, yv), 2).view(1, 1, ny, nx, 2).float()
            xy = (torch.sigmoid(p[..., 0:2]) + g) * stride
            wh = torch.exp(p[..., 2:4]) * s.anc[i]
            return torch.cat([xy, wh, torch.sigmoid(p[..., 4:])], -1).view(b, -1, s.no)

        def forward(s, x):
            c3 = s.stem(x)
            c4 = s.s4(c3)
            c5 = s.s5(c4)
            out, y = [], s.n[0](c5)
            out.append(s.decode(s.head[0](y), 0, 32))
            for i, (k, st) in enumerate(((c4, 16), (c3, 8))):
                y = F.interpolate(s.red[i](y), scale_factor=2, mode="nearest")
                y = s.n[i + 1](torch.cat([y, k], 1))
                out.append(s.decode(s.head[i + 1](y), i + 1, st))
            return torch.cat(out, 1)

    return Yolo3(), (img(h=320),), batched()


@model(
    "timm_efficientdet",
    "detect",
    "own",
    True,
    "efficientnet_b0 features (timm) + BiFPN + shared heads",
)
def _():
    import timm

    class Sep(nn.Module):
        def __init__(s, i, o, act=True):
            super().__init__()
            s.d, s.p, s.b, s.act = (
                nn.Conv2d(i, i, 3, 1, 1, groups=i, bias=False),
                nn.Conv2d(i, o, 1),
                nn.BatchNorm2d(o),
                act,
            )

        def forward(s, x):
            x = s.b(s.p(s.d(x)))
            return F.silu(x) if s.act else x

    class Fuse(nn.Module):
        def __init__(s, n, c):
            super().__init__()
            s.w, s.c = nn.Parameter(torch.ones(n)), Sep(c, c, False)

        def forward(s, *xs):
            w = F.relu(s.w)
            w = w / (w.sum() + 1e-4)
            return s.c(F.silu(torch.stack([x * w[i] for i, x in enumerate(xs)], -1).sum(-1)))

    class BiFpn(nn.Module):
        def __init__(s, c):
            super().__init__()
            s.td = nn.ModuleList(Fuse(2, c) for _ in range(4))
            s.bu = nn.ModuleList(Fuse(3 if i < 3 else 2, c) for i in range(4))

        def forward(s, p):
            up = lambda x, r: F.interpolate(x, size=r.shape[-2:], mode="nearest")
            t = [p[4]]
            for i, f in zip((3, 2, 1, 0), s.td):
                t.insert(0, f(p[i], up(t[0], p[i])))
            out = [t[0]]
            for i, f in zip((1, 2, 3, 4), s.bu):
                d = F.max_pool2d(F.pad(out[-1], (0, 1, 0, 1)), 3, 2)
                out.append(f(p[i], t[i], d) if i < 4 else f(p[i], d))
            return out

    class Head(nn.Module):
        def __init__(s, c, o, n=3):
            super().__init__()
            s.conv = nn.ModuleList(
                nn.Sequential(nn.Conv2d(c, c, 3, 1, 1, groups=c, bias=False), nn.Conv2d(c, c, 1))
                for _ in range(n)
            )
            s.bn = nn.ModuleList(
                nn.ModuleList(nn.BatchNorm2d(c) for _ in range(5)) for _ in range(n)
            )
            s.o, s.k = Sep(c, 9 * o, False), o

        def forward(s, ps):
            r = []
            for lv, x in enumerate(ps):
                for c, b in zip(s.conv, s.bn):
                    x = F.silu(b[lv](c(x)))
                r.append(s.o(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, s.k))
            return torch.cat(r, 1)

    class Det(nn.Module):
        def __init__(s, c=64, nc=90):
            super().__init__()
            s.bb = timm.create_model(
                "efficientnet_b0", pretrained=False, features_only=True, out_indices=(2, 3, 4)
            )
            s.lat = nn.ModuleList(
                nn.Sequential(nn.Conv2d(i, c, 1), nn.BatchNorm2d(c))
                for i in s.bb.feature_info.channels()
            )
            s.p6 = nn.Sequential(nn.Conv2d(320, c, 1), nn.BatchNorm2d(c))
            s.fpn = nn.ModuleList(BiFpn(c) for _ in range(3))
            s.cls, s.box = Head(c, nc), Head(c, 4)

        def forward(s, x):
            f = s.bb(x)
            p = [m(y) for m, y in zip(s.lat, f)]
            p.append(F.max_pool2d(s.p6(f[-1]), 3, 2, 1))
            p.append(F.max_pool2d(p[-1], 3, 2, 1))
            for m in s.fpn:
                p = m(p)
            return s.cls(p).sigmoid(), s.box(p)

    return Det(), (img(h=256),), batched()


@model(
    "vision_maskrcnn",
    "detect",
    "torchvision",
    True,
    "whole torchvision Mask R-CNN (nms, roi_align, data-dependent shapes)",
)
def _():
    class W(nn.Module):
        def __init__(s):
            super().__init__()
            s.m = tv.models.detection.maskrcnn_resnet50_fpn(
                weights=None, weights_backbone=None, min_size=256, max_size=320
            )

        def forward(s, x):
            o = s.m([x])[0]
            return o["boxes"], o["labels"], o["scores"], o["masks"]

    return W(), (torch.rand(3, 256, 256),), None


@model(
    "yolov8n_like", "detect", "own", note="C2f, SPPF, PAN neck, decoupled heads with DFL decoding"
)
def _():
    class CBS(nn.Sequential):
        def __init__(s, i, o, k=1, st=1):
            super().__init__(
                nn.Conv2d(i, o, k, st, k // 2, bias=False),
                nn.BatchNorm2d(o, 1e-3, 0.03),
                nn.SiLU(inplace=True),
            )

    class Bott(nn.Module):
        def __init__(s, c, add):
            super().__init__()
            s.f, s.add = nn.Sequential(CBS(c, c, 3), CBS(c, c, 3)), add

        def forward(s, x):
            return x + s.f(x) if s.add else s.f(x)

    class C2f(nn.Module):
        def __init__(s, i, o, n, add=True):
            super().__init__()
            s.a, s.b = CBS(i, o), CBS((2 + n) * o // 2, o)
            s.m = nn.ModuleList(Bott(o // 2, add) for _ in range(n))

        def forward(s, x):
            y = list(s.a(x).chunk(2, 1))
            for m in s.m:
                y.append(m(y[-1]))
            return s.b(torch.cat(y, 1))

    class SPPF(nn.Module):
        def __init__(s, c):
            super().__init__()
            s.a, s.b = CBS(c, c // 2), CBS(2 * c, c)

        def forward(s, x):
            y = [s.a(x)]
            for _ in range(3):
                y.append(F.max_pool2d(y[-1], 5, 1, 2))
            return s.b(torch.cat(y, 1))

    class Yolo8(nn.Module):
        def __init__(s, nc=80, c=(16, 32, 64, 128, 256), reg=16):
            super().__init__()
            s.nc, s.reg = nc, reg
            s.b1 = nn.Sequential(
                CBS(3, c[0], 3, 2),
                CBS(c[0], c[1], 3, 2),
                C2f(c[1], c[1], 1),
                CBS(c[1], c[2], 3, 2),
                C2f(c[2], c[2], 2),
            )
            s.b2 = nn.Sequential(CBS(c[2], c[3], 3, 2), C2f(c[3], c[3], 2))
            s.b3 = nn.Sequential(CBS(c[3], c[4], 3, 2), C2f(c[4], c[4], 1), SPPF(c[4]))
            s.u1, s.u2 = C2f(c[4] + c[3], c[3], 1, False), C2f(c[3] + c[2], c[2], 1, False)
            s.d1, s.e1 = CBS(c[2], c[2], 3, 2), C2f(c[2] + c[3], c[3], 1, False)
            s.d2, s.e2 = CBS(c[3], c[3], 3, 2), C2f(c[3] + c[4], c[4], 1, False)
            h = c[2:]
            s.box = nn.ModuleList(
                nn.Sequential(CBS(i, 64, 3), CBS(64, 64, 3), nn.Conv2d(64, 4 * reg, 1)) for i in h
            )
            s.cls = nn.ModuleList(
                nn.Sequential(CBS(i, 80, 3), CBS(80, 80, 3), nn.Conv2d(80, nc, 1)) for i in h
            )
            s.dfl = nn.Conv2d(reg, 1, 1, bias=False)
            s.dfl.weight.data[:] = torch.arange(reg, dtype=torch.float32).view(1, reg, 1, 1)

        def forward(s, x):
            p3 = s.b1(x)
            p4 = s.b2(p3)
            p5 = s.b3(p4)
            up = lambda z: F.interpolate(z, scale_factor=2.0, mode="nearest")
            n4 = s.u1(torch.cat([up(p5), p4], 1))
            n3 = s.u2(torch.cat([up(n4), p3], 1))
            n4 = s.e1(torch.cat([s.d1(n3), n4], 1))
            n5 = s.e2(torch.cat([s.d2(n4), p5], 1))
            fs = (n3, n4, n5)
            y = [torch.cat([b(f), c(f)], 1) for f, b, c in zip(fs, s.box, s.cls)]
            anc, st = [], []
            for f, k in zip(fs, (8, 16, 32)):
                h, w = f.shape[-2:]
                sy, sx = torch.meshgrid(
                    torch.arange(h, dtype=f.dtype, device=f.device) + 0.5,
                    torch.arange(w, dtype=f.dtype, device=f.device) + 0.5,
                    indexing="ij",
                )
                anc.append(torch.stack((sx, sy), -1).view(-1, 2))
                st.append(torch.full((h * w, 1), float(k), dtype=f.dtype, device=f.device))
            anc, st = torch.cat(anc).transpose(0, 1), torch.cat(st).transpose(0, 1)
            z = torch.cat([v.view(v.shape[0], 4 * s.reg + s.nc, -1) for v in y], 2)
            box, cls = z.split((4 * s.reg, s.nc), 1)
            b, _, a = box.shape
            d = s.dfl(box.view(b, 4, s.reg, a).transpose(2, 1).softmax(1)).view(b, 4, a)
            lt, rb = d.chunk(2, 1)
            x1, x2 = anc.unsqueeze(0) - lt, anc.unsqueeze(0) + rb
            return torch.cat([torch.cat([(x1 + x2) / 2, x2 - x1], 1) * st, cls.sigmoid()], 1)

    return Yolo8(), (img(h=320),), batched()


@model(
    "ssdlite320_dense",
    "detect",
    "own",
    note="SSDLite on mobilenet_v3 features, raw heads and decoded boxes, no NMS",
)
def _():
    class Ssd(nn.Module):
        def __init__(s, nc=91):
            super().__init__()
            f = tv.models.mobilenet_v3_large(weights=None).features
            s.a, s.b = f[:13], f[13:]
            dw = lambda i, o, st: nn.Sequential(
                conv_bn(i, o // 2, 1, act=nn.ReLU6),
                conv_bn(o // 2, o // 2, 3, st, act=nn.ReLU6, g=o // 2),
                conv_bn(o // 2, o, 1, act=nn.ReLU6),
            )
            ch = [112, 960, 512, 256, 256]
            s.ex = nn.ModuleList(dw(ch[i], ch[i + 1], 2) for i in (1, 2, 3))
            hd = lambda i, o: nn.Sequential(conv_bn(i, i, 3, act=nn.ReLU6, g=i), nn.Conv2d(i, o, 1))
            s.cl, s.bx, s.nc = (
                nn.ModuleList(hd(c, 6 * nc) for c in ch),
                nn.ModuleList(hd(c, 24) for c in ch),
                nc,
            )

        def forward(s, x):
            fs = [s.a(x)]
            fs.append(s.b(fs[0]))
            for e in s.ex:
                fs.append(e(fs[-1]))
            cl, bx, pr = [], [], []
            for f, c, b in zip(fs, s.cl, s.bx):
                n, _, h, w = f.shape
                cl.append(c(f).view(n, 6, s.nc, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, s.nc))
                bx.append(b(f).view(n, 6, 4, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, 4))
                yy, xx = torch.meshgrid(
                    (torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij"
                )
                pr.append(
                    torch.stack([xx, yy, torch.full_like(xx, 0.2), torch.full_like(yy, 0.2)], -1)
                    .view(-1, 1, 4)
                    .repeat(1, 6, 1)
                    .view(-1, 4)
                )
            p, d = torch.cat(pr), torch.cat(bx, 1)
            c = p[:, :2] + d[..., :2] * 0.1 * p[:, 2:]
            wh = p[:, 2:] * torch.exp(d[..., 2:] * 0.2)
            sc, lab = torch.cat(cl, 1).softmax(-1)[..., 1:].max(-1)
            return torch.cat([c - wh / 2, c + wh / 2], -1), sc, lab

    return Ssd(), (img(h=320),), batched()


@model("detr", "detect", "transformers", note="resnet50 backbone (transformers), 2+2 layers")
def _():
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    c = DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=ResNetConfig(out_features=["stage4"]),
        encoder_layers=2,
        decoder_layers=2,
        num_queries=50,
    )
    return (
        Pick(DetrForObjectDetection(c), ["pixel_values"], ("logits", "pred_boxes")),
        (img(h=256),),
        batched(),
    )
