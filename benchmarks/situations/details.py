"""Precision, hooks, weights that are computed, losses inside, odd operators and shapes."""

import torch
from harness import Made, one, situation
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune


def body(width=64, depth=3):
    return nn.Sequential(*[layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.GELU())])


def net():
    return nn.Sequential(body(), nn.LayerNorm(64), nn.Linear(64, 10))


def classes(logits):
    return F.cross_entropy(logits.float(), torch.arange(logits.shape[0]) % 10)


# The scaler finds an infinite gradient in the second step, and that update is left out.
@situation("pytorch/pytorch#152279", steps=4)
def scaler_that_skips_a_step():
    module = net()
    optimizer, scaler = (
        torch.optim.AdamW(module.parameters(), 1e-3),
        torch.amp.GradScaler("cpu", init_scale=256.0),
    )

    def step(i):
        optimizer.zero_grad()
        loss = classes(module(torch.randn(512, 64))) * (float("inf") if i == 1 else 1.0)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return {"loss": loss, "scale": torch.tensor(scaler.get_scale())}

    return Made(modules=(module,), optimizers=(optimizer,), step=step)


@situation("pytorch/pytorch#179804")
def float32_island_under_autocast():
    class Island(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)

        def forward(self, x):
            h = self.a(x)
            with torch.autocast("cpu", enabled=False):
                h = torch.tanh(h.float() @ self.b.weight.t() + self.b.bias)
            return self.c(h)

    def compute(m, i):
        with torch.autocast("cpu", torch.bfloat16):
            y = m(torch.randn(1024, 64))
        return classes(y)

    return one(Island(), compute)


@situation("pytorch/pytorch#63552")
def weight_used_twice_under_autocast():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 10)

        def forward(self, x):
            for _ in range(3):
                x = F.gelu(self.a(x))
            return self.b(x)

    def compute(m, i):
        with torch.autocast("cpu", torch.bfloat16):
            return classes(m(torch.randn(1024, 64)))

    return one(Twice(), compute)


features = {}


def keep(name):
    def hook(module, args, result):
        features[name] = result

    return hook


def with_features(m, i):
    features.clear()
    y = m(torch.randn(512, 64))
    return classes(y) + sum(0.1 * f.square().mean() for f in features.values())


@situation("pytorch/pytorch#173452")
def features_kept_by_a_hook():
    module = net()
    module[0][2].register_forward_hook(keep("middle"))
    return one(module, with_features)


@situation("pytorch/pytorch#117758", steps=5)
def hook_that_comes_later_and_goes():
    module, handles = net(), []

    def compute(m, i):
        if i == 2:
            handles.append(m[0][2].register_forward_hook(keep("late")))
        if i == 4:
            handles.pop().remove()
        return with_features(m, i)

    return one(module, compute)


def clamped(parameter):
    parameter.grad.clamp_(-0.01, 0.01)


@situation("pytorch/pytorch#96722")
def hooks_on_every_level():
    module, seen = net(), []
    module[0].register_forward_pre_hook(lambda m, args: (args[0] * 1.1,))
    module[0][0].register_forward_hook(lambda m, args, y: y * 0.9)
    module.register_full_backward_hook(lambda m, into, out: seen.append(out[0].norm()))
    module[2].weight.register_hook(lambda g: g * 0.5)
    module[0][0].weight.register_post_accumulate_grad_hook(clamped)

    def compute(m, i):
        y = m(torch.randn(512, 64))
        y.register_hook(lambda g: g * 2)
        return classes(y)

    return one(module, compute)


@situation("huggingface/peft#2826")
def pre_hook_with_keywords():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x, *, scale=None):
            return self.net(x) * (1 if scale is None else scale)

    module = Scaled()
    module.register_forward_pre_hook(lambda m, a, k: (a, {**k, "scale": k["scale"] * 2}), with_kwargs=True)
    return one(module, lambda m, i: classes(m(torch.randn(512, 64), scale=torch.tensor(0.5 + i))))


@situation("huggingface/peft#3020")
def checkpoint_with_adapters_and_dropout():
    from torch.utils.checkpoint import checkpoint

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Linear(64, 64).requires_grad_(False)
            self.a, self.b, self.drop = (
                nn.Linear(64, 4, bias=False),
                nn.Linear(4, 64, bias=False),
                nn.Dropout(0.1),
            )

        def forward(self, x):
            return torch.tanh(self.base(x) + self.b(self.a(self.drop(x))))

    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks, self.out = nn.ModuleList(Block() for _ in range(3)), nn.Linear(64, 10)

        def forward(self, x):
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=False)
            return self.out(x)

    return one(Stack(), lambda m, i: classes(m(torch.randn(512, 64))))


@situation("paiml/entrenar#314")
def tied_embeddings():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.body, self.out = nn.Embedding(64, 64), body(), nn.Linear(64, 64, bias=False)
            self.out.weight = self.table.weight

        def forward(self, ids):
            return self.out(self.body(self.table(ids)))

    def compute(m, i):
        ids = torch.randint(64, (512,))
        return F.cross_entropy(m(ids), ids.flip(0))

    return one(Tied(), compute)


@situation("pytorch/pytorch#38368", steps=4)
def fake_quantization_with_observers():
    class Quantized(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 10)
            self.register_buffer("low", torch.tensor(0.0))
            self.register_buffer("high", torch.tensor(1.0))
            self.register_buffer("observing", torch.tensor([1], dtype=torch.uint8))

        def forward(self, x):
            h = torch.relu(self.a(x))
            low, high = torch.aminmax(h.detach())
            moves = 0.1 * self.observing[0]
            self.low.add_((low - self.low) * moves)
            self.high.add_((high - self.high) * moves)
            scale = ((self.high - self.low) / 255).clamp(min=1e-6)
            zero = (-self.low / scale).round().clamp(0, 255).to(torch.int32)
            return self.b(torch.fake_quantize_per_tensor_affine(h, scale, zero, 0, 255))

    def compute(m, i):
        if i == 2:
            m.observing[0] = 0
        return classes(m(torch.randn(512, 64)))

    return one(Quantized(), compute)


@situation("pytorch/pytorch#102245")
def pruned_weights():
    module = net()
    for k in (0, 2):
        prune.random_unstructured(module[0][k], "weight", 0.5)
    return one(module, lambda m, i: classes(m(torch.randn(512, 64))))


@situation("pytorch/pytorch#121902")
def weight_norm():
    module = nn.Sequential(parametrizations.weight_norm(nn.Linear(64, 64)), nn.Tanh(), nn.Linear(64, 10))
    return one(module, lambda m, i: classes(m(torch.randn(512, 64))))


@situation("pytorch/pytorch#184573")
def ctc_loss_inside():
    class Speech(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.out = body(), nn.Linear(64, 12)

        def forward(self, x, targets, lengths):
            logs = self.out(self.body(x)).log_softmax(-1).transpose(0, 1)
            return F.ctc_loss(logs, targets, torch.full((x.shape[0],), x.shape[1]), lengths)

    def compute(m, i):
        return m(torch.randn(16, 32, 64), torch.randint(1, 12, (16, 5)), torch.full((16,), 5))

    return one(Speech(), compute)


@situation("huggingface/transformers#34615")
def loss_inside_and_logits_beside():
    class Causal(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.body, self.out = nn.Embedding(64, 64), body(), nn.Linear(64, 64)

        def forward(self, ids, labels=None):
            logits = self.out(self.body(self.table(ids)))
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
            return {"loss": loss, "logits": logits}

    def compute(m, i):
        ids = torch.randint(64, (16, 32))
        return m(ids, labels=ids)["loss"]

    return one(Causal(), compute)


@situation("huggingface/transformers, integrations/sdpa_attention.py")
def batch_of_one():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out, self.token = (
                nn.Linear(64, 192),
                nn.Linear(64, 64),
                nn.Parameter(torch.randn(64)),
            )

        def forward(self, x):
            x = torch.cat([torch.tanh(self.token).expand(x.shape[0], 1, 64), x], 1)
            q, k, v = (t.view(*x.shape[:2], 1, 64).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out(y.transpose(1, 2).contiguous().reshape(x.shape))

    return one(Attention(), lambda m, i: m(torch.randn(1, 511, 64)).square().mean())


@situation("pytorch/pytorch#26596")
def embedding_with_bounded_norms():
    class Bounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.body = nn.Embedding(256, 64, max_norm=1.0), body()

        def forward(self, ids):
            return self.body(self.table(ids))

    return one(Bounded(), lambda m, i: m(torch.randint(256, (512,))).square().mean())
