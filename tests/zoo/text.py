# SPDX-License-Identifier: Apache-2.0
"""Language models, encoders and decoders."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from .registry import B, batched, hf, ids, mask, model


@model(
    "BERT_pytorch",
    "text",
    "own",
    True,
    "hand-written attention, std-based LayerNorm, tanh GELU, three embeddings summed",
)
def _():
    class LN(nn.Module):
        def __init__(s, d, eps=1e-6):
            super().__init__()
            s.a, s.b, s.eps = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d)), eps

        def forward(s, x):
            return s.a * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + s.eps) + s.b

    class Layer(nn.Module):
        def __init__(s, d, h):
            super().__init__()
            s.h, s.qkv, s.o = h, nn.ModuleList(nn.Linear(d, d) for _ in range(3)), nn.Linear(d, d)
            s.f1, s.f2, s.n1, s.n2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d), LN(d), LN(d)

        def forward(s, x, mask):
            b, d = x.size(0), x.size(-1)
            y = s.n1(x)
            q, k, v = (lin(y).view(b, -1, s.h, d // s.h).transpose(1, 2) for lin in s.qkv)
            a = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(d // s.h)
            a = F.softmax(a.masked_fill(mask == 0, -1e9), dim=-1)
            x = x + s.o(torch.matmul(a, v).transpose(1, 2).contiguous().view(b, -1, d))
            z = s.f1(s.n2(x))
            z = (
                0.5
                * z
                * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * torch.pow(z, 3))))
            )
            return x + s.f2(z)

    class Bert(nn.Module):
        def __init__(s, vocab=2000, d=256, n=4, h=8, maxlen=512):
            super().__init__()
            pe = torch.zeros(maxlen, d)
            pos = torch.arange(maxlen).float()[:, None]
            div = (torch.arange(0, d, 2).float() * -(math.log(10000.0) / d)).exp()
            pe[:, 0::2], pe[:, 1::2] = torch.sin(pos * div), torch.cos(pos * div)
            s.register_buffer("pe", pe[None])
            s.tok, s.seg = nn.Embedding(vocab, d, padding_idx=0), nn.Embedding(3, d, padding_idx=0)
            s.layers = nn.ModuleList(Layer(d, h) for _ in range(n))
            s.nsp, s.mlm = nn.Linear(d, 2), nn.Linear(d, vocab)

        def forward(s, x, seg):
            mask = (x > 0).unsqueeze(1).repeat(1, x.size(1), 1).unsqueeze(1)
            h = s.tok(x) + s.pe[:, : x.size(1)] + s.seg(seg)
            for lay in s.layers:
                h = lay(h, mask)
            return F.log_softmax(s.nsp(h[:, 0]), -1), F.log_softmax(s.mlm(h), -1)

    return Bert(), (ids(s=64), torch.randint(0, 3, (2, 64))), batched(2)


@model(
    "attention_is_all_you_need_pytorch",
    "text",
    "own",
    True,
    "encoder-decoder, pad and subsequent masks, shared projection",
)
def _():
    class MHA(nn.Module):
        def __init__(s, d, h):
            super().__init__()
            s.h = h
            s.q, s.k, s.v, s.o, s.n = (
                *(nn.Linear(d, d, bias=False) for _ in range(4)),
                nn.LayerNorm(d, eps=1e-6),
            )

        def forward(s, q, kv, mask):
            sp = lambda t: t.view(t.size(0), t.size(1), s.h, -1).transpose(1, 2)
            a = torch.matmul(sp(s.q(q)) / (q.size(-1) // s.h) ** 0.5, sp(s.k(kv)).transpose(2, 3))
            a = a.masked_fill(mask.unsqueeze(1) == 0, -1e9).softmax(-1)
            y = torch.matmul(a, sp(s.v(kv))).transpose(1, 2).contiguous().view(q.shape)
            return s.n(s.o(y) + q)

    class FFN(nn.Module):
        def __init__(s, d):
            super().__init__()
            s.a, s.b, s.n = nn.Linear(d, 4 * d), nn.Linear(4 * d, d), nn.LayerNorm(d, eps=1e-6)

        def forward(s, x):
            return s.n(s.b(F.relu(s.a(x))) + x)

    class Tr(nn.Module):
        def __init__(s, vocab=2000, d=256, h=8, n=3, maxlen=100):
            super().__init__()
            pos = torch.arange(maxlen)[:, None] / torch.pow(10000, 2 * (torch.arange(d) // 2) / d)
            pos[:, 0::2], pos[:, 1::2] = pos[:, 0::2].sin(), pos[:, 1::2].cos()
            s.register_buffer("pe", pos[None].float())
            s.es, s.et = (
                nn.Embedding(vocab, d, padding_idx=1),
                nn.Embedding(vocab, d, padding_idx=1),
            )
            s.ne, s.nd = nn.LayerNorm(d, eps=1e-6), nn.LayerNorm(d, eps=1e-6)
            s.enc = nn.ModuleList(nn.ModuleList([MHA(d, h), FFN(d)]) for _ in range(n))
            s.dec = nn.ModuleList(nn.ModuleList([MHA(d, h), MHA(d, h), FFN(d)]) for _ in range(n))
            s.out, s.scale = nn.Linear(d, vocab, bias=False), d**-0.5

        def forward(s, src, trg):
            ms = (src != 1).unsqueeze(-2)
            n = trg.size(1)
            sub = (1 - torch.triu(torch.ones((1, n, n), device=trg.device), diagonal=1)).bool()
            mt = (trg != 1).unsqueeze(-2) & sub
            e = s.ne(s.es(src) + s.pe[:, : src.size(1)].clone().detach())
            for a, f in s.enc:
                e = f(a(e, e, ms))
            d = s.nd(s.et(trg) + s.pe[:, :n].clone().detach())
            for a, c, f in s.dec:
                d = f(c(a(d, d, mt), e, ms))
            y = s.out(d) * s.scale
            return y.view(-1, y.size(2))

    return Tr(), (ids(s=33), ids(s=31)), batched(2)


def _albert():
    from transformers import AlbertConfig, AlbertForMaskedLM

    c = AlbertConfig(
        vocab_size=2000,
        embedding_size=128,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=8,
        intermediate_size=1024,
    )
    return AlbertForMaskedLM(c), dict(input_ids=ids(), attention_mask=mask()), {}


def _bart():
    from transformers import BartConfig, BartForConditionalGeneration

    c = BartConfig(
        vocab_size=2000,
        d_model=256,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=1024,
        decoder_ffn_dim=1024,
    )
    return (
        BartForConditionalGeneration(c),
        dict(input_ids=ids(), decoder_input_ids=ids(s=48)),
        dict(use_cache=False),
    )


def _bert():
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(BertConfig()), dict(input_ids=ids(), attention_mask=mask()), {}


def _distilbert():
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    return (
        DistilBertForSequenceClassification(
            DistilBertConfig(vocab_size=2000, n_layers=4, dim=256, n_heads=8, hidden_dim=1024)
        ),
        dict(input_ids=ids(), attention_mask=mask()),
        {},
    )


def _roberta():
    from transformers import RobertaConfig, RobertaForSequenceClassification

    return (
        RobertaForSequenceClassification(
            RobertaConfig(
                vocab_size=2000,
                hidden_size=256,
                num_hidden_layers=4,
                num_attention_heads=8,
                intermediate_size=1024,
            )
        ),
        dict(input_ids=ids(), attention_mask=mask()),
        {},
    )


def _gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return (
        GPT2LMHeadModel(
            GPT2Config(vocab_size=2000, n_embd=256, n_layer=4, n_head=8, n_positions=256)
        ),
        dict(input_ids=ids()),
        dict(use_cache=False),
    )


def _longformer():
    from transformers import LongformerConfig, LongformerModel

    c = LongformerConfig(
        vocab_size=2000,
        attention_window=[16, 16],
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=300,
    )
    return LongformerModel(c), dict(input_ids=ids(s=128), attention_mask=mask(s=128)), {}


def _t5():
    from transformers import T5Config, T5ForConditionalGeneration

    c = T5Config(
        vocab_size=2000,
        d_model=256,
        d_kv=32,
        d_ff=1024,
        num_layers=3,
        num_decoder_layers=3,
        num_heads=8,
    )
    return (
        T5ForConditionalGeneration(c),
        dict(input_ids=ids(), decoder_input_ids=ids(s=48)),
        dict(use_cache=False),
    )


def _llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    c = LlamaConfig(
        vocab_size=2000,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=256,
    )
    return LlamaForCausalLM(c), dict(input_ids=ids()), dict(use_cache=False)


def _mamba():
    from transformers import MambaConfig, MambaForCausalLM

    return (
        MambaForCausalLM(
            MambaConfig(vocab_size=1000, hidden_size=128, num_hidden_layers=2, state_size=8)
        ),
        dict(input_ids=ids(s=16)),
        dict(use_cache=False),
    )


hf("hf_Albert", "text", True, _albert, ("logits",))
hf("hf_Bart", "text", True, _bart, ("logits",))
hf("hf_Bert", "text", True, _bert, ("logits",), "full bert-base, masked LM")
hf("hf_DistilBert", "text", True, _distilbert, ("logits",))
hf("roberta", "text", False, _roberta, ("logits",))
hf("hf_GPT2", "text", True, _gpt2, ("logits",))
hf("hf_Longformer", "text", True, _longformer)
hf("hf_T5", "text", True, _t5, ("logits",))
hf("llama_2l", "text", False, _llama, ("logits",))
hf("mamba_2l", "text", False, _mamba, ("logits",))


@model(
    "pytorch_struct",
    "text",
    "own",
    True,
    "linear-chain CRF: log-partition by a binary tree of log-sum-exp products, and Viterbi",
)
def _():
    class Crf(nn.Module):
        def __init__(s, v=1000, c=16, h=64):
            super().__init__()
            s.e, s.o, s.t = nn.Embedding(v, h), nn.Linear(h, c), nn.Parameter(torch.randn(c, c))

        def forward(s, x):
            em = s.o(s.e(x)).log_softmax(-1)
            pot = em[:, 1:, None, :] + s.t.log_softmax(-1)[None, None]
            first = em[:, 0, :]
            a, n = pot, pot.shape[1]
            while n > 1:
                if n % 2:
                    eye = torch.full((1, 1, a.shape[-1], a.shape[-1]), -1e9)
                    eye = torch.diagonal_scatter(eye, torch.zeros(1, 1, a.shape[-1]), 0, -2, -1)
                    a = torch.cat([a, eye.expand(a.shape[0], -1, -1, -1)], 1)
                a = torch.logsumexp(a[:, 0::2].unsqueeze(-1) + a[:, 1::2].unsqueeze(-3), -2)
                n = a.shape[1]
            z = torch.logsumexp(first[:, :, None] + a[:, 0], (1, 2))
            d, back = first, []
            for i in range(pot.shape[1]):
                d, ix = (d[:, :, None] + pot[:, i]).max(1)
                back.append(ix)
            best = [d.argmax(-1)]
            for ix in reversed(back):
                best.append(ix.gather(1, best[-1][:, None]).squeeze(1))
            return z, torch.stack(best[::-1], 1)

    return Crf(), (ids(s=12),), batched()


@model(
    "gpt_kv_step",
    "text",
    "own",
    note="one decoding step over explicit past keys/values, GQA + rotary + RMSNorm + SwiGLU",
)
def _():
    class Lay(nn.Module):
        def __init__(s, d, h, kv, hd):
            super().__init__()
            s.h, s.kv, s.hd = h, kv, hd
            s.q, s.k, s.v, s.o = (
                nn.Linear(d, h * hd, False),
                nn.Linear(d, kv * hd, False),
                nn.Linear(d, kv * hd, False),
                nn.Linear(h * hd, d, False),
            )
            s.n1, s.n2 = nn.RMSNorm(d), nn.RMSNorm(d)
            s.g, s.u, s.d = (
                nn.Linear(d, 3 * d, False),
                nn.Linear(d, 3 * d, False),
                nn.Linear(3 * d, d, False),
            )

        def forward(s, x, pk, pv, cos, sin):
            rot = lambda t: (
                t * cos + torch.cat([-t[..., s.hd // 2 :], t[..., : s.hd // 2]], -1) * sin
            )
            b, t, _ = x.shape
            y = s.n1(x)
            q = rot(s.q(y).view(b, t, s.h, s.hd).transpose(1, 2))
            k = torch.cat([pk, rot(s.k(y).view(b, t, s.kv, s.hd).transpose(1, 2))], 2)
            v = torch.cat([pv, s.v(y).view(b, t, s.kv, s.hd).transpose(1, 2)], 2)
            grp = lambda z: (
                z[:, :, None].expand(-1, -1, s.h // s.kv, -1, -1).reshape(b, s.h, -1, s.hd)
            )
            a = F.scaled_dot_product_attention(q, grp(k), grp(v))
            x = x + s.o(a.transpose(1, 2).reshape(b, t, -1))
            y = s.n2(x)
            return x + s.d(F.silu(s.g(y)) * s.u(y)), k, v

    class Step(nn.Module):
        def __init__(s, vocab=2000, d=256, h=8, kv=2, n=2):
            super().__init__()
            s.hd = d // h
            s.emb, s.ls, s.n, s.out = (
                nn.Embedding(vocab, d),
                nn.ModuleList(Lay(d, h, kv, d // h) for _ in range(n)),
                nn.RMSNorm(d),
                nn.Linear(d, vocab, False),
            )
            s.register_buffer("inv", 1.0 / 10000 ** (torch.arange(0, d // h, 2).float() / (d // h)))

        def forward(s, tok, pk, pv):
            pos = torch.arange(tok.shape[1], device=tok.device) + pk.shape[3]
            f = pos.float()[:, None] * s.inv
            e = torch.cat([f, f], -1)
            x, ks, vs = s.emb(tok), [], []
            for i, lay in enumerate(s.ls):
                x, k, v = lay(x, pk[i], pv[i], e.cos(), e.sin())
                ks.append(k)
                vs.append(v)
            return s.out(s.n(x))[:, -1], torch.stack(ks), torch.stack(vs)

    from torch.export import Dim

    b, p = (
        B(),
        Dim.DYNAMIC(min=1, max=512),
    )  # a named Dim is refused: torch cannot prove a stride guard of SDPA
    kv = torch.randn(2, 2, 2, 40, 32)
    return Step(), (ids(s=1), kv, kv.clone()), ({0: b}, {1: b, 3: p}, {1: b, 3: p})
