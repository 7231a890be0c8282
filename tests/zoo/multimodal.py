# SPDX-License-Identifier: Apache-2.0
"""Vision transformers with text or prompts, speech."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from .registry import B, Pick, batched, hf, ids, img, model


def _segformer():
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return (
        SegformerForSemanticSegmentation(SegformerConfig(num_labels=150)),
        dict(pixel_values=img(h=256)),
        {},
    )


def _clip_text():
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    return (
        CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=2000,
                hidden_size=256,
                num_hidden_layers=3,
                num_attention_heads=8,
                intermediate_size=1024,
                eos_token_id=2,
            )
        ),
        dict(input_ids=ids(s=77)),
        {},
    )


hf("segformer_b0", "vit", False, _segformer, ("logits",))
hf("clip_text", "vit", False, _clip_text, ("text_embeds",))


def whisper():
    from transformers import WhisperConfig, WhisperModel

    return WhisperModel(
        WhisperConfig(
            encoder_layers=4,
            decoder_layers=4,
            d_model=384,
            encoder_attention_heads=6,
            decoder_attention_heads=6,
            encoder_ffn_dim=1536,
            decoder_ffn_dim=1536,
        )
    )


@model("whisper_tiny_encoder", "speech", "transformers")
def _():
    return Pick(whisper().encoder, ["input_features"]), (torch.randn(2, 80, 3000),), batched()


@model("whisper_tiny_decoder", "speech", "transformers")
def _():
    return (
        Pick(whisper().decoder, ["input_ids", "encoder_hidden_states"], use_cache=False),
        (ids(s=32), torch.randn(2, 1500, 384)),
        batched(2),
    )


@model("wav2vec2", "speech", "transformers")
def _():
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    c = Wav2Vec2Config(
        hidden_size=256,
        num_hidden_layers=3,
        num_attention_heads=8,
        intermediate_size=1024,
        conv_dim=(256,) * 7,
        num_conv_pos_embeddings=32,
    )
    return (
        Pick(Wav2Vec2ForCTC(c), ["input_values"], ("logits",)),
        (torch.randn(2, 8000),),
        batched(),
    )


@model("sam_mask_decoder", "vit", "transformers")
def _():
    from transformers import SamConfig, SamModel

    class W(nn.Module):
        def __init__(s):
            super().__init__()
            c = SamConfig()
            c.vision_config.num_hidden_layers = 1
            c.vision_config.global_attn_indexes = [0]
            m = SamModel(c)
            s.pe, s.dec, s.img = (
                m.prompt_encoder,
                m.mask_decoder,
                m.get_image_wide_positional_embeddings,
            )
            s.register_buffer("pos", m.get_image_wide_positional_embeddings().detach().clone())
            del s.img

        def forward(s, emb, pts, labels):
            sparse, dense = s.pe(
                input_points=pts, input_labels=labels, input_boxes=None, input_masks=None
            )
            pos = s.pos.expand(emb.shape[0], -1, -1, -1)
            o = s.dec(
                image_embeddings=emb,
                image_positional_embeddings=pos,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
            )
            return o[0], o[1]

    return (
        W(),
        (
            torch.randn(1, 256, 64, 64),
            torch.rand(1, 1, 2, 2) * 1024,
            torch.ones(1, 1, 2, dtype=torch.int64),
        ),
        None,
    )


@model(
    "conformer_block",
    "speech",
    "own",
    note="relative-position attention, depthwise conv, GLU; conv subsampling in front",
)
def _():
    class RelAttn(nn.Module):
        def __init__(s, d, h):
            super().__init__()
            s.h, s.dk = h, d // h
            s.q, s.k, s.v, s.o, s.p = (
                *(nn.Linear(d, d) for _ in range(4)),
                nn.Linear(d, d, bias=False),
            )
            s.u, s.w = nn.Parameter(torch.zeros(h, d // h)), nn.Parameter(torch.zeros(h, d // h))

        def forward(s, x, pe):
            b, t, d = x.shape
            sp = lambda z: z.view(z.shape[0], -1, s.h, s.dk)
            q, k, v, p = (
                sp(s.q(x)),
                sp(s.k(x)).transpose(1, 2),
                sp(s.v(x)).transpose(1, 2),
                sp(s.p(pe)).transpose(1, 2),
            )
            ac = torch.matmul((q + s.u).transpose(1, 2), k.transpose(-2, -1))
            bd = torch.matmul((q + s.w).transpose(1, 2), p.transpose(-2, -1))
            bd = (
                F.pad(bd, (1, 0))
                .view(b, s.h, -1, t)[:, :, 1:]
                .reshape(b, s.h, t, 2 * t - 1)[..., :t]
            )
            a = ((ac + bd) / math.sqrt(s.dk)).softmax(-1)
            return s.o(torch.matmul(a, v).transpose(1, 2).reshape(b, t, d))

    class Blk(nn.Module):
        def __init__(s, d, h, k=31):
            super().__init__()
            ff = lambda: nn.Sequential(
                nn.LayerNorm(d), nn.Linear(d, 4 * d), nn.SiLU(), nn.Linear(4 * d, d)
            )
            s.f1, s.f2, s.na, s.a, s.nc, s.no = (
                ff(),
                ff(),
                nn.LayerNorm(d),
                RelAttn(d, h),
                nn.LayerNorm(d),
                nn.LayerNorm(d),
            )
            s.p1, s.dw, s.bn, s.p2 = (
                nn.Conv1d(d, 2 * d, 1),
                nn.Conv1d(d, d, k, padding=k // 2, groups=d),
                nn.BatchNorm1d(d),
                nn.Conv1d(d, d, 1),
            )

        def forward(s, x, pe):
            x = x + 0.5 * s.f1(x)
            x = x + s.a(s.na(x), pe)
            c = F.glu(s.p1(s.nc(x).transpose(1, 2)), 1)
            x = x + s.p2(F.silu(s.bn(s.dw(c)))).transpose(1, 2)
            return s.no(x + 0.5 * s.f2(x))

    class Conf(nn.Module):
        def __init__(s, d=144, h=4, n=2):
            super().__init__()
            s.sub = nn.Sequential(
                nn.Conv2d(1, d, 3, 2, 1), nn.ReLU(), nn.Conv2d(d, d, 3, 2, 1), nn.ReLU()
            )
            s.i, s.d = nn.Linear(d * 20, d), d
            s.b = nn.ModuleList(Blk(d, h) for _ in range(n))
            s.o = nn.Linear(d, 128)

        def forward(s, x):
            y = s.sub(x.unsqueeze(1))
            b, c, t, f = y.shape
            y = s.i(y.transpose(1, 2).reshape(b, t, c * f)) * math.sqrt(s.d)
            pos = torch.arange(t - 1, -t, -1, dtype=torch.float32)[:, None]
            div = torch.exp(
                torch.arange(0, s.d, 2, dtype=torch.float32) * -(math.log(10000.0) / s.d)
            )
            pe = torch.stack([torch.sin(pos * div), torch.cos(pos * div)], -1).view(
                1, 2 * t - 1, s.d
            )
            for blk in s.b:
                y = blk(y, pe)
            return s.o(y).log_softmax(-1)

    return Conf(), (torch.randn(2, 160, 80),), batched()


@model(
    "hifigan_vocoder",
    "speech",
    "own",
    note="transposed conv1d upsampling, multi-receptive-field residual stacks, weight norm",
)
def _():
    from torch.nn.utils.parametrizations import weight_norm as wn

    class RB(nn.Module):
        def __init__(s, c, k):
            super().__init__()
            s.a = nn.ModuleList(wn(nn.Conv1d(c, c, k, 1, (k * d - d) // 2, d)) for d in (1, 3, 5))
            s.b = nn.ModuleList(wn(nn.Conv1d(c, c, k, 1, k // 2)) for _ in range(3))

        def forward(s, x):
            for p, q in zip(s.a, s.b):
                x = x + q(F.leaky_relu(p(F.leaky_relu(x, 0.1)), 0.1))
            return x

    class Gen(nn.Module):
        def __init__(s, c=128, rates=((8, 16), (8, 16), (4, 8))):
            super().__init__()
            s.pre, s.up, s.rb = wn(nn.Conv1d(80, c, 7, 1, 3)), nn.ModuleList(), nn.ModuleList()
            for r, k in rates:
                s.up.append(wn(nn.ConvTranspose1d(c, c // 2, k, r, (k - r) // 2)))
                c //= 2
                s.rb.append(nn.ModuleList(RB(c, q) for q in (3, 7, 11)))
            s.post = wn(nn.Conv1d(c, 1, 7, 1, 3))

        def forward(s, x):
            x = s.pre(x)
            for u, rb in zip(s.up, s.rb):
                x = u(F.leaky_relu(x, 0.1))
                x = sum(r(x) for r in rb) / len(rb)
            return torch.tanh(s.post(F.leaky_relu(x)))

    return Gen(), (torch.randn(2, 80, 20),), batched()


@model(
    "demucs",
    "speech",
    "own",
    True,
    "strided conv1d + GLU encoder, BiLSTM, transposed-conv decoder with skips",
)
def _():
    class Dem(nn.Module):
        def __init__(s, depth=4, c=32):
            super().__init__()
            s.enc, s.dec, i, o = nn.ModuleList(), nn.ModuleList(), 2, c
            for k in range(depth):
                s.enc.append(
                    nn.Sequential(
                        nn.Conv1d(i, o, 8, 4), nn.ReLU(), nn.Conv1d(o, 2 * o, 1), nn.GLU(1)
                    )
                )
                s.dec.insert(
                    0,
                    nn.Sequential(
                        nn.Conv1d(o, 2 * o, 3, padding=1),
                        nn.GLU(1),
                        nn.ConvTranspose1d(o, i if k else 8, 8, 4),
                        nn.ReLU() if k else nn.Identity(),
                    ),
                )
                i, o = o, 2 * o
            s.lstm, s.lin = nn.LSTM(i, i, 2, bidirectional=True), nn.Linear(2 * i, i)

        def forward(s, x):
            sk = []
            sd = x.std(dim=(1, 2), keepdim=True)
            x = x / (1e-5 + sd)
            for e in s.enc:
                x = e(x)
                sk.append(x)
            y, _ = s.lstm(x.permute(2, 0, 1))
            x = s.lin(y).permute(1, 2, 0)
            for d in s.dec:
                k = sk.pop()
                x = d(x[..., : k.shape[-1]] + k)
            return (x * sd).view(x.shape[0], 4, 2, -1)

    return Dem(), (torch.randn(2, 2, 2388),), batched()


@model(
    "speech_transformer",
    "speech",
    "own",
    True,
    "filter-bank frames, length masks, post-norm layers, decoder with causal mask",
)
def _():
    class MHA(nn.Module):
        def __init__(s, d, h):
            super().__init__()
            s.h, s.q, s.k, s.v, s.o, s.n = (
                h,
                nn.Linear(d, d),
                nn.Linear(d, d),
                nn.Linear(d, d),
                nn.Linear(d, d),
                nn.LayerNorm(d),
            )

        def forward(s, q, k, mask):
            b, t, d = q.shape
            hd = d // s.h
            f = lambda z: (
                z.view(b, -1, s.h, hd).permute(2, 0, 1, 3).contiguous().view(-1, z.size(1), hd)
            )
            a = torch.bmm(f(s.q(q)), f(s.k(k)).transpose(1, 2)) / hd**0.5
            a = a.masked_fill(mask.repeat(s.h, 1, 1), -float("inf")).softmax(2)
            y = (
                torch.bmm(a, f(s.v(k)))
                .view(s.h, b, t, hd)
                .permute(1, 2, 0, 3)
                .contiguous()
                .view(b, t, -1)
            )
            return s.n(s.o(y) + q)

    class FF(nn.Module):
        def __init__(s, d):
            super().__init__()
            s.a, s.b, s.n = nn.Conv1d(d, 4 * d, 1), nn.Conv1d(4 * d, d, 1), nn.LayerNorm(d)

        def forward(s, x):
            return s.n(s.b(F.relu(s.a(x.transpose(1, 2)))).transpose(1, 2) + x)

    class ST(nn.Module):
        def __init__(s, d=256, h=4, n=2, vocab=1000):
            super().__init__()
            s.i, s.ni = nn.Linear(320, d), nn.LayerNorm(d)
            pe = torch.zeros(500, d)
            pos, div = (
                torch.arange(500).float()[:, None],
                torch.exp(torch.arange(0, d, 2).float() * -(math.log(10000.0) / d)),
            )
            pe[:, 0::2], pe[:, 1::2] = torch.sin(pos * div), torch.cos(pos * div)
            s.register_buffer("pe", pe[None])
            s.enc = nn.ModuleList(nn.ModuleList([MHA(d, h), FF(d)]) for _ in range(n))
            s.dec = nn.ModuleList(nn.ModuleList([MHA(d, h), MHA(d, h), FF(d)]) for _ in range(n))
            s.emb, s.out, s.sc = nn.Embedding(vocab, d), nn.Linear(d, vocab, bias=False), d**0.5

        def forward(s, x, xlen, y):
            t, u = x.size(1), y.size(1)
            valid = torch.arange(t)[None] < xlen[:, None]
            keep = valid.unsqueeze(-1).float()
            e = s.ni(s.i(x)) + s.pe[:, :t]
            m = valid.lt(1).unsqueeze(1).expand(-1, t, -1)
            for a, f in s.enc:
                e = f(a(e, e, m) * keep) * keep
            d = s.emb(y) * s.sc + s.pe[:, :u]
            sub = (
                torch.triu(torch.ones(u, u, dtype=torch.uint8), diagonal=1)
                .unsqueeze(0)
                .expand(x.size(0), -1, -1)
            )
            mm = (sub + y.eq(2).unsqueeze(1).expand(-1, u, -1).to(torch.uint8)).gt(0)
            mx = valid.lt(1).unsqueeze(1).expand(-1, u, -1)
            for a, c, f in s.dec:
                d = f(c(a(d, d, mm), e, mx))
            return s.out(d)

    return ST(), (torch.randn(2, 60, 320), torch.tensor([60, 45]), ids(s=20)), batched(3)


@model("lstm_net", "seq", "own", note="two-layer LSTM classifier with embedding, states returned")
def _():
    class Net(nn.Module):
        def __init__(s):
            super().__init__()
            s.e, s.r, s.o = (
                nn.Embedding(1000, 128),
                nn.LSTM(128, 256, 2, batch_first=True),
                nn.Linear(256, 10),
            )

        def forward(s, x, h, c):
            y, (h, c) = s.r(s.e(x), (h, c))
            return s.o(y[:, -1]), h, c

    b = B()
    return (
        Net(),
        (ids(s=24), torch.zeros(2, 2, 256), torch.zeros(2, 2, 256)),
        ({0: b}, {1: b}, {1: b}),
    )


@model("tcn_forecast", "seq", "own", note="dilated causal conv1d with weight norm and residuals")
def _():
    from torch.nn.utils.parametrizations import weight_norm

    class Blk(nn.Module):
        def __init__(s, i, o, d):
            super().__init__()
            s.p = 2 * d
            s.a, s.b = (
                weight_norm(nn.Conv1d(i, o, 3, padding=s.p, dilation=d)),
                weight_norm(nn.Conv1d(o, o, 3, padding=s.p, dilation=d)),
            )
            s.k = nn.Conv1d(i, o, 1) if i != o else nn.Identity()

        def forward(s, x):
            y = F.relu(s.a(x)[..., : -s.p])
            return F.relu(F.relu(s.b(y)[..., : -s.p]) + s.k(x))

    m = nn.Sequential(
        Blk(8, 64, 1),
        Blk(64, 64, 2),
        Blk(64, 64, 4),
        Blk(64, 64, 8),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(64, 12),
    )
    return m, (torch.randn(2, 8, 96),), batched()
