"""Ways to take gradients: some outputs only, twice, of gradients, of inputs, reversed, by functions of one's own."""

import torch
from harness import Made, one, situation
from torch import nn
from torch.nn import functional as F


def body(width=64, depth=3):
    return nn.Sequential(*[layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.Tanh())])


class Heads(nn.Module):
    def __init__(self, n=3):
        super().__init__()
        self.body, self.heads = body(), nn.ModuleList(nn.Linear(64, 10) for _ in range(n))

    def forward(self, x):
        h = self.body(x)
        return [head(h) for head in self.heads]


def classes(logits):
    return F.cross_entropy(logits, torch.arange(logits.shape[0]) % 10)


@situation("pytorch/pytorch#131794", steps=4)
def heads_by_turns():
    module = Heads()
    return one(
        module,
        lambda m, i: classes(m(torch.randn(512, 64))[i % 3]),
        torch.optim.AdamW(module.parameters(), 1e-2),
    )


@situation("pytorch/pytorch#186355", steps=4)
def a_head_that_is_never_trained():
    module = Heads(2)
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    return one(module, lambda m, i: classes(m(torch.randn(512, 64))[0]), optimizer)


# A penalty on the gradient with respect to the input (WGAN-GP).
@situation("pytorch/pytorch#181581")
def gradient_penalty():
    def compute(m, i):
        x = torch.randn(256, 64, requires_grad=True)
        y = m(x)
        (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return y.mean() + 10 * ((g.norm(dim=1) - 1) ** 2).mean()

    return one(nn.Sequential(body(), nn.Linear(64, 1)), compute)


# Second derivatives of the output with respect to the input (physics-informed networks).
@situation("pytorch/pytorch#183603")
def second_derivatives():
    def compute(m, i):
        x = torch.rand(512, 1, requires_grad=True)
        u = m(x)
        (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (ddu,) = torch.autograd.grad(du.sum(), x, create_graph=True)
        return ((ddu + u) ** 2).mean()

    return one(nn.Sequential(nn.Linear(1, 64), body(), nn.Linear(64, 1)), compute)


# Forces: the derivative of an energy, taken inside the forward.
@situation("torchmd/torchmd-net#307")
def forces_inside_the_forward():
    class Potential(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.out = body(), nn.Linear(64, 1)

        def forward(self, x):
            x = x.detach().requires_grad_()
            energy = self.out(self.body(x))
            (force,) = torch.autograd.grad(energy.sum(), x, create_graph=True)
            return energy, -force

    def compute(m, i):
        energy, force = m(torch.randn(256, 64))
        return energy.square().mean() + force.square().mean()

    return one(Potential(), compute)


# An adversarial step on the input first, by its gradient alone.
@situation("pytorch/pytorch#132929")
def adversarial_inputs():
    module = Heads(1)

    def compute(m, i):
        x = torch.randn(512, 64, requires_grad=True)
        (g,) = torch.autograd.grad(classes(m(x)[0]), x)
        return classes(m((x + 0.01 * g.sign()).detach())[0])

    return one(module, compute)


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.scale * gradient, None


@situation("pytorch/pytorch#1110")
def gradient_reversal():
    class Adversarial(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.label, self.domain = body(), nn.Linear(64, 10), nn.Linear(64, 2)

        def forward(self, x):
            h = self.body(x)
            return self.label(h), self.domain(Reversed.apply(h, 0.3))

    def compute(m, i):
        label, domain = m(torch.randn(512, 64))
        return classes(label) + F.cross_entropy(domain, torch.arange(512) % 2)

    return one(Adversarial(), compute)


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0).float()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient / (10 * x.abs() + 1) ** 2


@situation("norse/norse#130")
def spikes_with_a_surrogate_gradient():
    class Spiking(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 10)

        def forward(self, x):
            v, total = torch.zeros(x.shape[0], 64), 0
            for _ in range(4):
                v = 0.9 * v + self.a(x)
                z = Spike.apply(v - 0.2)
                v = v * (1 - z.detach())
                total = total + self.b(z)
            return total

    return one(Spiking(), lambda m, i: classes(m(torch.randn(512, 64))))


class OverwritesGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone(), x.clone()

    @staticmethod
    def backward(ctx, first, second):
        return first.copy_(second)


@situation("pytorch/pytorch#141111")
def function_that_overwrites_its_gradient():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = body()

        def forward(self, x):
            a, b = OverwritesGradient.apply(self.body(x))
            return a * 2 + b.square()

    return one(Net(), lambda m, i: m(torch.randn(512, 64)).mean())


# Two losses over one kept graph, whose gradients are combined by hand.
@situation("WeiChengTseng/Pytorch-PCGrad#2")
def projected_gradients():
    module = Heads(2)
    optimizer = torch.optim.SGD(module.parameters(), 0.05)

    def step(i):
        a, b = (classes(y) for y in module(torch.randn(512, 64)))
        taken = []
        for loss, kept in ((a, True), (b, False)):
            optimizer.zero_grad()
            loss.backward(retain_graph=kept)
            taken.append([None if p.grad is None else p.grad.clone() for p in module.parameters()])
        for p, x, y in zip(module.parameters(), *taken):
            p.grad = x if y is None else y if x is None else x + y
        optimizer.step()
        return a + b

    return Made(modules=(module,), optimizers=(optimizer,), step=step)


# Weights of two losses are learned from the norms of their gradients over a shared layer.
@situation("hosseinshn/GradNorm#9")
def norms_of_gradients_weigh_losses():
    module = Heads(2)

    def compute(m, i):
        a, b = (classes(y) for y in m(torch.randn(512, 64)))
        shared = m.body[4].weight
        norms = [torch.autograd.grad(loss, shared, retain_graph=True)[0].norm() for loss in (a, b)]
        share = norms[1] / (norms[0] + norms[1])
        return share * a + (1 - share) * b

    return one(module, compute)


# A fixed point found without gradients, then one step of it with.
@situation("pytorch/pytorch#100626")
def fixed_point():
    class Equilibrium(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, x):
            z = torch.zeros_like(x)
            with torch.no_grad():
                for _ in range(4):
                    z = torch.tanh(self.a(z) + x)
            z = torch.tanh(self.a(z) + x)
            return self.b(z)

    return one(Equilibrium(), lambda m, i: m(torch.randn(512, 64)).square().mean())


# The same, its backward solved by a hook that runs the layer again.
@situation("locuslab/deq#11")
def fixed_point_with_a_hook():
    class Equilibrium(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, x):
            with torch.no_grad():
                z = torch.tanh(self.a(torch.zeros_like(x)) + x)
            z = torch.tanh(self.a(z) + x)
            start = z.detach().requires_grad_()
            again = torch.tanh(self.a(start) + x)
            if z.requires_grad:
                z.register_hook(lambda g: g + torch.autograd.grad(again, start, g, retain_graph=True)[0])
            return self.b(z)

    return one(Equilibrium(), lambda m, i: m(torch.randn(512, 64)).square().mean())


@situation("pytorch/functorch#353")
def straight_through_estimator():
    class Binary(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)

        def forward(self, x):
            w = self.b.weight
            w = w + (w.sign() * w.abs().mean() - w).detach()
            h = F.linear(torch.tanh(self.a(x)), w, self.b.bias)
            return self.c(h + (h.sign() - h).detach())

    return one(Binary(), lambda m, i: classes(m(torch.randn(512, 64))))


@situation("pytorch/pytorch#7714")
def penalty_beside_the_loss():
    def compute(m, i):
        x = torch.randn(256, 64, requires_grad=True)
        loss = classes(m(x)[0])
        g = torch.autograd.grad(loss, x, create_graph=True, retain_graph=True, only_inputs=True)[0]
        return loss + (g**2).mean() * 256

    return one(Heads(1), compute)
