"""Training loops: several networks, several calls, several optimizers, what changes while training goes on."""

import copy

import torch
from harness import Made, one, situation
from torch import nn
from torch.nn import functional as F


def body(width=64, depth=3):
    return nn.Sequential(*[layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.ReLU())])


def classes(logits):
    return F.cross_entropy(logits, torch.arange(logits.shape[0]) % 10)


def adversaries():
    g = nn.Sequential(
        nn.ConvTranspose2d(16, 32, 4, 1, 0), nn.BatchNorm2d(32), nn.ReLU(True), nn.ConvTranspose2d(32, 16, 4, 2, 1),
        nn.BatchNorm2d(16), nn.ReLU(True), nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip
    d = nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True), nn.Dropout2d(0.3), nn.Conv2d(16, 32, 4, 2, 1),
        nn.BatchNorm2d(32), nn.LeakyReLU(0.2, inplace=True), nn.Flatten(), nn.Linear(32 * 16, 1),
    )  # fmt: skip
    return g, d, *(torch.optim.Adam(m.parameters(), 2e-4, betas=(0.5, 0.999)) for m in (g, d))


# The discriminator sees real and fake before one backward; the generator learns through it.
@situation("pytorch/pytorch#39141")
def generator_through_discriminator():
    g, d, og, od = adversaries()

    def step(i):
        real, fake = torch.randn(32, 3, 16, 16), g(torch.randn(32, 16, 1, 1))
        od.zero_grad()
        a, b = d(real), d(fake.detach())
        seen = F.softplus(-a).mean() + F.softplus(b).mean()
        seen.backward()
        od.step()
        og.zero_grad()
        fooled = F.softplus(-d(fake)).mean()
        fooled.backward()
        og.step()
        return {"discriminator": seen, "generator": fooled}

    return Made(modules=(g, d), optimizers=(og, od), step=step)


# The same with two backwards of the discriminator, as in torch's tutorial.
@situation("pytorch/pytorch#91542")
def discriminator_with_two_backwards():
    g, d, og, od = adversaries()

    def step(i):
        od.zero_grad()
        a = F.softplus(-d(torch.randn(32, 3, 16, 16))).mean()
        a.backward()
        fake = g(torch.randn(32, 16, 1, 1))
        b = F.softplus(d(fake.detach())).mean()
        b.backward()
        od.step()
        og.zero_grad()
        c = F.softplus(-d(fake)).mean()
        c.backward()
        og.step()
        return {"real": a, "fake": b, "generator": c}

    return Made(modules=(g, d), optimizers=(og, od), step=step)


@situation("huggingface/transformers#23801")
def siamese():
    def compute(m, i):
        a, b = m(torch.randn(512, 64)), m(torch.randn(512, 64))
        return F.cosine_embedding_loss(a, b, torch.where(torch.arange(512) % 2 == 0, 1, -1))

    return one(nn.Sequential(body(), nn.Dropout(0.1), nn.Linear(64, 32)), compute)


@situation("huggingface/transformers#14507")
def triplets():
    def compute(m, i):
        return F.triplet_margin_loss(*(m(torch.randn(512, 64)) for _ in range(3)))

    return one(nn.Sequential(body(), nn.Linear(64, 32)), compute)


class SharpnessAware(torch.optim.Optimizer):
    """Up the gradient, the loss again, back, and the inner optimizer's step."""

    def __init__(self, parameters, rho=0.05):
        super().__init__(parameters, {"rho": rho, "lr": 0.05})
        self.inner = torch.optim.SGD(self.param_groups, 0.05, momentum=0.9)

    def step(self, closure=None):
        assert closure is not None, "this optimizer needs a closure"
        with torch.enable_grad():
            closure()
        with torch.no_grad():
            parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
            norm = torch.stack([p.grad.norm() for p in parameters]).norm()
            moves = [p.grad * (0.05 / (norm + 1e-12)) for p in parameters]
            for p, move in zip(parameters, moves):
                p.add_(move)
        with torch.enable_grad():
            loss = closure()
        with torch.no_grad():
            for p, move in zip(parameters, moves):
                p.sub_(move)
        self.inner.step()
        return loss


@situation("davda54/sam#8")
def sharpness_aware():
    module = nn.Sequential(body(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    optimizer = SharpnessAware(module.parameters())

    def step(i):
        x = torch.randn(512, 64)

        def closure():
            optimizer.zero_grad()
            loss = classes(module(x))
            loss.backward()
            return loss

        return optimizer.step(closure)

    return Made(modules=(module,), optimizers=(optimizer,), step=step)


@situation("kozistr/pytorch_optimizer#64")
def sharpness_aware_in_two_steps():
    module = nn.Sequential(body(), nn.Dropout(0.1), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(module.parameters(), 0.05)

    def step(i):
        x = torch.randn(512, 64)
        optimizer.zero_grad()
        classes(module(x)).backward()
        moves = [p.grad * 0.05 for p in module.parameters()]
        with torch.no_grad():
            for p, move in zip(module.parameters(), moves):
                p.add_(move)
        optimizer.zero_grad()
        loss = classes(module(x))
        loss.backward()
        with torch.no_grad():
            for p, move in zip(module.parameters(), moves):
                p.sub_(move)
        optimizer.step()
        return loss

    return Made(modules=(module,), optimizers=(optimizer,), step=step)


# Layers are frozen and set free while training goes on.
@situation("chiahao3/ptyrad#13", steps=5)
def gradients_switched_on_and_off():
    module = nn.Sequential(body(), nn.Linear(64, 10))

    def compute(m, i):
        for p in m[0].parameters():
            p.requires_grad_(i % 2 == 0)
        return classes(m(torch.randn(512, 64)))

    return one(module, compute)


@situation("pytorch/pytorch#120958", steps=4)
def adapter_set_after_two_steps():
    class Adapted(nn.Linear):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.lora = None

        def forward(self, x):
            return super().forward(x) if self.lora is None else super().forward(x) + self.lora(x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = Adapted(64, 64), nn.Linear(64, 10)

        def forward(self, x):
            return self.b(torch.tanh(self.a(torch.tanh(self.a(x)))))

    module = Net()
    optimizer = torch.optim.SGD(module.parameters(), 0.05)

    def compute(m, i):
        if i == 2:
            m.a.lora = nn.Sequential(nn.Linear(64, 4, bias=False), nn.Linear(4, 64, bias=False))
            optimizer.add_param_group({"params": list(m.a.lora.parameters())})
        return classes(m(torch.randn(512, 64)))

    return one(module, compute, optimizer)


@situation("pytorch/pytorch#105653", steps=4)
def training_and_evaluation_by_turns():
    def compute(m, i):
        m.train(i % 2 == 0)
        return classes(m(torch.randn(512, 64)))

    return one(nn.Sequential(body(), nn.BatchNorm1d(64), nn.Dropout(0.3), nn.Linear(64, 10)), compute)


@situation("pytorch/pytorch#104984", steps=4)
def weights_loaded_between_evaluations():
    module = nn.Sequential(body(), nn.Linear(64, 10))
    other = copy.deepcopy(module.state_dict())

    def compute(m, i):
        m.eval()
        with torch.no_grad():
            before = m(torch.ones(4, 64)).sum()
            kept = {k: v.clone() for k, v in m.state_dict().items()}
            m.load_state_dict({k: v + i for k, v in other.items()})
            after = m(torch.ones(4, 64)).sum()
            m.load_state_dict(kept)
        m.train()
        return classes(m(torch.randn(512, 64))) + 0 * (before + after)

    return one(module, compute)


# The weights of an average are swapped in for an evaluation.
@situation("wandb/senpai#3303", steps=4)
def averaged_weights_swapped_in():
    module = nn.Sequential(body(), nn.Linear(64, 10))
    average = [p.detach().clone() for p in module.parameters()]
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3)

    def step(i):
        optimizer.zero_grad()
        loss = classes(module(torch.randn(512, 64)))
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for mine, p in zip(average, module.parameters()):
                mine.lerp_(p, 0.1)
            kept = [p.data for p in module.parameters()]
            for mine, p in zip(average, module.parameters()):
                p.data = mine
            seen = module(torch.ones(4, 64)).sum()
            for old, p in zip(kept, module.parameters()):
                p.data = old
        return {"loss": loss, "seen": seen}

    return Made(modules=(module,), optimizers=(optimizer,), step=step)


@situation("pytorch/pytorch#97909")
def teacher_by_functional_call():
    class Distilled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(body(), nn.Linear(64, 10))
            self.names = [name for name, _ in self.net.named_parameters()]
            for k, p in enumerate(self.net.parameters()):
                self.register_buffer(f"teacher{k}", p.detach() * 0.9)

        def forward(self, x):
            weights = {name: getattr(self, f"teacher{k}") for k, name in enumerate(self.names)}
            with torch.no_grad():
                aim = torch.func.functional_call(self.net, weights, x)
            return F.mse_loss(self.net(x), aim)

    return one(Distilled(), lambda m, i: m(torch.randn(512, 64)))


# The loss is divided by the tokens of all micro-batches.
@situation("huggingface/blog#2414")
def accumulation_over_micro_batches():
    module = nn.Sequential(body(), nn.Dropout(0.1), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3)

    def step(i):
        total, sizes = 0, (512, 256, 512)
        for size in sizes:
            loss = F.cross_entropy(
                module(torch.randn(size, 64)), torch.arange(size) % 10, reduction="sum"
            ) / sum(sizes)
            loss.backward()
            total = total + loss.detach()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        return total

    return Made(modules=(module,), optimizers=(optimizer,), step=step)


# Layers are skipped by a coin of Python's.
@situation("pytorch/pytorch#95425", steps=5)
def layers_dropped_by_python():
    import random

    class Dropped(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.out = nn.ModuleList(nn.Linear(64, 64) for _ in range(3)), nn.Linear(64, 10)

        def forward(self, x):
            for layer in self.layers:
                if self.training and random.uniform(0, 1) < 0.5:
                    continue
                x = torch.relu(layer(x))
            return self.out(x)

    return one(Dropped(), lambda m, i: classes(m(torch.randn(512, 64))))


# Two optimizers over one module, each with a part of it.
@situation("pytorch/pytorch#46638")
def two_optimizers_over_one_module():
    module = nn.Sequential(body(), nn.Linear(64, 10))
    head, rest = torch.optim.SGD(module[1].parameters(), 0.1), torch.optim.AdamW(module[0].parameters(), 1e-3)

    def step(i):
        loss = classes(module(torch.randn(512, 64)))
        loss.backward()
        head.step()
        rest.step()
        head.zero_grad()
        rest.zero_grad()
        return loss

    return Made(modules=(module,), optimizers=(rest,), step=step)
