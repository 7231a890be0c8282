# SPDX-License-Identifier: Apache-2.0
"""Sequences, recommenders, control, physics, graphs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from .registry import batched, model


@model(
    "dlrm",
    "rec",
    "own",
    True,
    "EmbeddingBag(sum, offsets), bottom/top MLP, pairwise dot interaction",
)
def _():
    class Dlrm(nn.Module):
        def __init__(s, n=8, rows=1000, d=64):
            super().__init__()
            mlp = lambda z, last: nn.Sequential(
                *[
                    m
                    for i in range(len(z) - 1)
                    for m in (
                        nn.Linear(z[i], z[i + 1]),
                        nn.Sigmoid() if last and i == len(z) - 2 else nn.ReLU(),
                    )
                ]
            )
            s.emb = nn.ModuleList(nn.EmbeddingBag(rows, d, mode="sum") for _ in range(n))
            s.bot, s.top = (
                mlp([13, 512, 256, d], False),
                mlp([d + (n + 1) * n // 2, 512, 256, 1], True),
            )
            ii, jj = zip(*[(i, j) for i in range(n + 1) for j in range(i)])
            s.register_buffer("li", torch.tensor(ii))
            s.register_buffer("lj", torch.tensor(jj))

        def forward(s, dense, offsets, indices):
            x = s.bot(dense)
            ly = [x] + [e(indices[k], offsets[k]) for k, e in enumerate(s.emb)]
            t = torch.cat(ly, 1).view(x.shape[0], -1, x.shape[1])
            z = torch.bmm(t, t.transpose(1, 2))
            return s.top(torch.cat([x, z[:, s.li, s.lj]], 1))

    n, b, per = 8, 16, 4
    return (
        Dlrm(n),
        (
            torch.randn(b, 13),
            torch.arange(0, b * per, per).repeat(n, 1),
            torch.randint(0, 1000, (n, b * per)),
        ),
        None,
    )


@model("nvidia_deeprecommender", "rec", "own", True, "SELU autoencoder")
def _():
    z = [20000, 512, 512, 1024]
    ls = []
    for a, b in zip(z, z[1:]):
        ls += [nn.Linear(a, b), nn.SELU()]
    ls += [nn.Dropout(0.8)]
    r = z[::-1]
    for a, b in zip(r, r[1:]):
        ls += [nn.Linear(a, b), nn.SELU()]
    return nn.Sequential(*ls), (torch.rand(4, 20000),), batched()


@model("soft_actor_critic", "rl", "own", True, "squashed Gaussian policy and twin critics")
def _():
    class Sac(nn.Module):
        def __init__(s, o=3, a=1, h=1024):
            super().__init__()
            mlp = lambda i, k: nn.Sequential(
                nn.Linear(i, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, k)
            )
            s.pi, s.q1, s.q2 = mlp(o, 2 * a), mlp(o + a, 1), mlp(o + a, 1)

        def forward(s, x, noise):
            mu, ls = s.pi(x).chunk(2, -1)
            std = torch.exp(-10 + 6 * (torch.tanh(ls) + 1))
            u = mu + std * noise
            a = torch.tanh(u)
            logp = (
                -0.5 * ((u - mu) / std) ** 2
                - torch.log(std)
                - 0.9189385
                - 2 * (math.log(2) - u - F.softplus(-2 * u))
            ).sum(-1, keepdim=True)
            q = torch.min(s.q1(torch.cat([x, a], -1)), s.q2(torch.cat([x, a], -1)))
            return a, logp, q

    return Sac(), (torch.randn(8, 3), torch.randn(8, 1)), batched(2)


@model(
    "lennard_jones",
    "hpc",
    "own",
    True,
    "small tanh MLP energy, and the pairwise potential of a cluster",
)
def _():
    class LJ(nn.Module):
        def __init__(s):
            super().__init__()
            s.f = nn.Sequential(
                nn.Linear(1, 16),
                nn.Tanh(),
                nn.Linear(16, 16),
                nn.Tanh(),
                nn.Linear(16, 16),
                nn.Tanh(),
                nn.Linear(16, 16),
                nn.Tanh(),
                nn.Linear(16, 1),
            )

        def forward(s, pos):
            d = torch.cdist(pos, pos) + torch.eye(pos.shape[1]) * 1e3
            lj = (4 * ((1 / d) ** 12 - (1 / d) ** 6)).sum((1, 2)) / 2
            r = torch.linalg.norm(pos, dim=2, keepdim=True)
            return s.f(r).sum((1, 2)), lj

    return LJ(), (torch.randn(4, 13, 3),), batched()


@model(
    "pyhpc_equation_of_state",
    "hpc",
    "own",
    True,
    "rational polynomial of salinity, temperature and pressure",
)
def _():
    class Eos(nn.Module):
        def __init__(s):
            super().__init__()
            s.register_buffer("c", torch.rand(48) * 0.1 + 0.01)

        def forward(s, sa, ct, p):
            c, sq = [s.c[i] for i in range(48)], torch.sqrt(sa)

            def poly(k):
                return c[k] + ct * (c[k + 1] + ct * (c[k + 2] + ct * (c[k + 3] + ct * c[k + 4])))

            num = (
                poly(0)
                + sa * (poly(5) + sq * poly(10))
                + p * (poly(15) + sa * c[20] + p * (c[21] + ct * c[22]))
            )
            den = (
                poly(23)
                + sa * (poly(28) + sq * poly(33))
                + p * (poly(38) + sa * c[43] + p * (c[44] + ct * c[45]))
            )
            rho = num / den
            dct = (c[46] + 2 * ct * c[47] - rho * (c[24] + 2 * ct * c[25])) / den
            return rho, dct, torch.log(torch.abs(rho) + 1e-6) * 9.81 / (1 + torch.pow(den, 2))

    z = lambda lo, hi: torch.rand(8, 16, 26) * (hi - lo) + lo
    return Eos(), (z(20, 35), z(0, 20), z(0, 1000)), batched(3)


@model(
    "pyhpc_turbulent_kinetic_energy",
    "hpc",
    "own",
    True,
    "masks, shifted slices, in-place column updates, tridiagonal solve over depth",
)
def _():
    class Tke(nn.Module):
        def forward(s, u, v, w, k, mask):
            nz = k.shape[-1]
            sq = torch.sqrt(torch.clamp(k, min=0.0))
            n2 = torch.zeros_like(k)
            n2[..., 1:] = w[..., 1:] - w[..., :-1]
            mix = math.sqrt(2) * sq / torch.sqrt(torch.clamp(n2, min=1e-12))
            mix[..., 1:] = torch.minimum(mix[..., 1:], mix[..., :-1] + 1.0)
            kap = torch.clamp(0.1 * mix * sq, max=100.0)
            shear = torch.zeros_like(k)
            shear[:, 1:-1] = (u[:, 2:] - u[:, :-2]) ** 2 + (v[:, 2:] - v[:, :-2]) ** 2
            forc = kap * shear - 0.1 * n2
            a, c = torch.zeros_like(k), torch.zeros_like(k)
            a[..., 1:], c[..., :-1] = (
                -0.5 * (kap[..., 1:] + kap[..., :-1]),
                -0.5 * (kap[..., 1:] + kap[..., :-1]),
            )
            b = 1 - a - c + 0.7 * sq / torch.clamp(mix, min=1e-6)
            a, c = torch.where(mask, a, 0.0), torch.where(mask, c, 0.0)
            b, d = torch.where(mask, b, 1.0), torch.where(mask, k + forc, 0.0)
            cp, dp = [c[..., 0] / b[..., 0]], [d[..., 0] / b[..., 0]]
            for i in range(1, nz):
                m = b[..., i] - a[..., i] * cp[-1]
                cp.append(c[..., i] / m)
                dp.append((d[..., i] - a[..., i] * dp[-1]) / m)
            x = [dp[-1]]
            for i in range(nz - 2, -1, -1):
                x.insert(0, dp[i] - cp[i] * x[0])
            new = torch.stack(x, -1)
            corr = torch.where(new[..., -1] < 0, -new[..., -1], 0.0)
            return torch.where(mask, new, k), mix, corr, kap

    z = lambda: torch.rand(8, 16, 10)
    return Tke(), (z(), z(), z(), z(), torch.rand(8, 16, 10) > 0.2), batched(5)


@model(
    "gcn_scatter",
    "misc",
    "own",
    note="graph convolutions by index_add over an edge list, global mean by scatter",
)
def _():
    class Gcn(nn.Module):
        def __init__(s, i=16, h=64, o=8):
            super().__init__()
            s.a, s.b, s.o = nn.Linear(i, h), nn.Linear(h, h), nn.Linear(h, o)

        def prop(s, x, src, dst, w):
            return torch.zeros_like(x).index_add(0, dst, x[src] * w[:, None])

        def forward(s, x, edges, batch):
            src, dst = edges[0], edges[1]
            deg = torch.ones(x.shape[0]).index_add(0, dst, torch.ones(dst.shape[0]))
            w = deg.rsqrt()[src] * deg.rsqrt()[dst]
            x = F.relu(s.prop(s.a(x), src, dst, w))
            x = F.relu(s.prop(s.b(x), src, dst, w))
            n = torch.zeros(4).scatter_add(0, batch, torch.ones(batch.shape[0]))
            g = (
                torch.zeros(4, x.shape[1]).scatter_add(0, batch[:, None].expand_as(x), x)
                / n[:, None]
            )
            return s.o(g)

    return (
        Gcn(),
        (torch.randn(40, 16), torch.randint(0, 40, (2, 120)), torch.arange(40) // 10),
        None,
    )
