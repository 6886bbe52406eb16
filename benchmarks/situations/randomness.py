"""Random numbers in the forward: dropped, drawn and not read, seeded, from Python."""

import random

import torch
from harness import one, situation
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    """Linear layers with a function of the activation between them."""

    def __init__(self, function, width=64):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(width, width) for _ in range(3))
        self.function = function

    def forward(self, x):
        return self.c(F.gelu(self.b(self.function(self, F.gelu(self.a(x))))))


def net(function):
    return one(Net(function), lambda m, i: m(torch.randn(512, 64)).square().mean())


@situation("pytorch/pytorch#190758")
def dropouts_recomputed():
    def use(m, h):
        for _ in range(3):
            h = F.dropout(torch.tanh(h), 0.2, m.training) + 0.1 * torch.randn_like(h)
        return h

    return net(use)


@situation("pytorch/pytorch#100025")
def dropout_of_everything():
    return net(lambda m, h: h + F.dropout(h, 1.0, m.training))


@situation("pytorch/pytorch#158643")
def dropout_beside_relu_in_place():
    return net(lambda m, h: F.relu(F.dropout(h, 0.5, True), inplace=True).cumsum(1).sort(1).values / 8)


@situation("pytorch/pytorch#175156")
def two_draws_of_which_one_is_read():
    def use(m, h):
        read = torch.randint(0, 64, (h.shape[0], 4))
        torch.randint(0, 100, (2, 1))
        return h + h.gather(1, read).mean(1, keepdim=True) * torch.rand(())

    return net(use)


@situation("pytorch/pytorch#143431")
def order_of_random_numbers():
    return net(lambda m, h: h[torch.rand(h.shape[0]).argsort()] + h)


@situation("pytorch/pytorch#175156")
def dropped_result_that_nobody_reads():
    def use(m, h):
        F.dropout(m.b(h), 0.1, m.training)
        return F.dropout(h, 0.1, m.training)

    return net(use)


@situation("huggingface/pytorch-image-models#2118")
def stochastic_depth():
    def use(m, h):
        keep = h.new_empty(h.shape[0], 1).bernoulli_(0.8).div_(0.8)
        return h + m.b(h) * keep

    return net(use)


class OwnCheckpoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, x):
        ctx.function = function
        ctx.save_for_backward(x)
        with torch.no_grad():
            return function(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            y = ctx.function(x)
        torch.autograd.backward(y, gradient)
        return None, x.grad


# A checkpoint of the user's own that runs the forward again, dropout included, with other random numbers.
@situation("openai/guided-diffusion#167")
def own_checkpoint_without_random_state():
    return net(lambda m, h: OwnCheckpoint.apply(lambda x: F.dropout(m.b(x), 0.1), h))


@situation("lucidrains/enformer-pytorch#33")
def torch_checkpoint_with_dropout():
    from torch.utils.checkpoint import checkpoint

    return net(lambda m, h: checkpoint(lambda x: F.dropout(m.b(x), 0.3), h, use_reentrant=False))


@situation("pytorch/pytorch#197101")
def python_random_number():
    return net(lambda m, h: h * (0.5 + random.random()))


@situation("pytorch/pytorch#197085")
def python_shuffle():
    def use(m, h):
        order = list(range(4))
        random.shuffle(order)
        parts = h.chunk(4, 1)
        return torch.cat([parts[i] for i in order], 1)

    return net(use)


@situation("pytorch/pytorch#118735")
def seeded_inside():
    def use(m, h):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            noise = torch.randn_like(h)
        return h + 0.1 * noise + torch.rand_like(h)

    return net(use)


@situation("pytorch/pytorch#68941")
def gumbel_softmax():
    return net(lambda m, h: h + F.gumbel_softmax(h, 0.7, hard=True))


@situation("pytorch/pytorch#190717")
def autoencoder_with_noise():
    class Vae(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.mean, self.scale = nn.Linear(64, 64), nn.Linear(64, 32), nn.Linear(64, 32)
            self.decoder = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64))

        def forward(self, x):
            h = F.relu(self.encoder(x))
            mean, scale = self.mean(h), self.scale(h)
            z = mean + torch.randn_like(mean) * torch.exp(0.5 * scale)
            return self.decoder(z), mean, scale

    def compute(m, i):
        x = torch.randn(512, 64)
        y, mean, scale = m(x)
        return F.mse_loss(y, x) - 0.001 * (1 + scale - mean.pow(2) - scale.exp()).sum(1).mean()

    return one(Vae(), compute)


# Evaluation with dropout on, between two steps.
@situation("mahmoodlab/CLAM#314")
def dropout_in_evaluation():
    module = nn.Sequential(
        nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Dropout(0.3), nn.ReLU(), nn.Linear(64, 64)
    )

    def compute(m, i):
        m.eval()
        m[2].train()
        with torch.no_grad():
            seen = torch.stack([m(torch.ones(8, 64)) for _ in range(2)]).var(0).mean()
        m.train()
        return m(torch.randn(512, 64)).square().mean() + seen

    return one(module, compute)


@situation("pytorch/pytorch#92633")
def generator_of_its_own():
    generator = torch.Generator().manual_seed(5)
    return net(lambda m, h: h + torch.rand(h.shape, generator=generator))


@situation("pytorch/pytorch#97522")
def attention_with_dropout():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.MultiheadAttention(64, 4, dropout=0.1, batch_first=True)
            self.b = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.1, batch_first=True)

        def forward(self, x):
            return self.b(x + self.a(x, x, x)[0])

    return one(Block(), lambda m, i: m(torch.randn(16, 32, 64)).square().mean())
