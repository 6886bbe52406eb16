"""Modules that change their buffers, or what they were given, in the forward."""

import torch
from harness import Made, one, situation
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations


def body(width=64, depth=3):
    return nn.Sequential(*[layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.GELU())])


class Stateful(nn.Module):
    """A body, and a function of its result that uses and changes buffers."""

    def __init__(self, function, **buffers):
        super().__init__()
        self.body, self.function = body(), function
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, x):
        return self.function(self, self.body(x))


def stateful(function, rows=512, **buffers) -> Made:
    return one(Stateful(function, **buffers), lambda m, i: m(torch.randn(rows, 64)).square().mean())


# An assignment at a position; what is read afterwards includes it.
@situation("pytorch/pytorch#115774")
def cache_at_a_position():
    def use(m, h):
        m.cache[m.place] = h.detach().mean(0)
        m.place.add_(1).remainder_(4)
        return h * m.cache.clone().mean(0)

    return stateful(use, cache=torch.zeros(4, 64), place=torch.zeros((), dtype=torch.long))


@situation("pytorch/pytorch#120424")
def multiplied_before_it_is_read():
    def use(m, h):
        m.scale.mul_(1.1)
        return h * m.scale.clone()

    return stateful(use, scale=torch.ones(64))


@situation("pytorch/pytorch#114967")
def one_element_of_a_cache():
    def use(m, h):
        with torch.no_grad():
            m.cache[0, 1] = h.sum()
        return h + 0.001 * m.cache[0, 1]

    return stateful(use, cache=torch.zeros(1, 2))


# A memory bank is read by a copy, then a slice of it is overwritten.
@situation("pytorch/pytorch#197039")
def queue_of_keys():
    def use(m, h):
        q = F.normalize(h, dim=1)
        logits = q @ m.queue.clone() / 0.2
        with torch.no_grad():
            m.queue[:, :64] = q[:64].T
        return logits.logsumexp(1) - logits[:, 0]

    return stateful(use, queue=F.normalize(torch.randn(64, 1024), dim=0))


class Codebook(nn.Module):
    """Vector quantisation whose codes are running averages, moved before or after they are looked up."""

    def __init__(self, first: bool, stages: int = 1):
        super().__init__()
        self.encoder, self.decoder, self.first, self.stages = body(), body(), first, stages
        self.register_buffer("codes", torch.randn(64, 64))
        self.register_buffer("sizes", torch.ones(64))
        self.register_buffer("sums", self.codes.clone())

    def move(self, z, chosen):
        one_hot = F.one_hot(chosen, 64).float()
        with torch.no_grad():
            self.sizes.mul_(0.9).add_(one_hot.sum(0), alpha=0.1)
            self.sums.mul_(0.9).add_(one_hot.T @ z, alpha=0.1)
            self.codes.copy_(self.sums / (self.sizes + 1e-3).unsqueeze(1))

    def quantize(self, z):
        far = z.pow(2).sum(1, keepdim=True) - 2 * z @ self.codes.T + self.codes.pow(2).sum(1)
        chosen = far.argmin(1)
        if self.first:
            self.move(z.detach(), chosen)
        q = F.embedding(chosen, self.codes.clone())
        if not self.first:
            self.move(z.detach(), chosen)
        return z + (q - z).detach(), F.mse_loss(q, z)

    def forward(self, x):
        rest, total, loss = self.encoder(x), 0, 0
        for _ in range(self.stages):
            q, more = self.quantize(rest)
            total, rest, loss = total + q, rest - q.detach(), loss + more
        return F.mse_loss(self.decoder(total), x) + 0.25 * loss


@situation("zalandoresearch/pytorch-vq-vae#5")
def codes_move_before_the_look_up():
    return one(Codebook(True), lambda m, i: m(torch.randn(512, 64)))


@situation("lucidrains/vector-quantize-pytorch#40")
def codes_move_after_the_look_up():
    return one(Codebook(False), lambda m, i: m(torch.randn(512, 64)))


@situation("lucidrains/vector-quantize-pytorch#162")
def stages_share_their_codes():
    return one(Codebook(False, stages=3), lambda m, i: m(torch.randn(512, 64)))


def critic(norm):
    return nn.Sequential(*[layer for _ in range(3) for layer in (norm(nn.Linear(64, 64)), nn.LeakyReLU(0.2))])


def real_and_fake(m, i):
    return m(torch.randn(512, 64)).relu().mean() - m(torch.randn(512, 64)).mean()


# The power iteration changes u and v in each forward, two of which stand before one backward.
@situation("pytorch/pytorch#13350")
def spectral_norm_by_hook():
    return one(critic(nn.utils.spectral_norm), real_and_fake)


@situation("pytorch/pytorch#62293")
def spectral_norm_by_parametrization():
    return one(critic(parametrizations.spectral_norm), real_and_fake)


@situation("pytorch/pytorch#55368")
def spectral_norm_and_a_second_backward():
    def compute(m, i):
        loss = m(torch.randn(512, 64)).abs().mean()
        (loss * 0.5).backward(retain_graph=True)
        return loss

    return one(critic(parametrizations.spectral_norm), compute)


@situation("pytorch/pytorch#22095")
def a_buffer_and_two_calls():
    def use(m, h):
        y = h * m.scale.clone()
        m.scale.lerp_(h.detach().abs().mean(0), 0.1)
        return y

    module = Stateful(use, scale=torch.ones(64))
    return one(
        module, lambda m, i: m(torch.randn(512, 64)).square().mean() + m(torch.randn(512, 64)).abs().mean()
    )


@situation("pytorch/pytorch#66504")
def batch_norm_called_twice():
    module = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64, momentum=None), nn.ReLU(), nn.Linear(64, 64))
    return one(module, lambda m, i: (m(torch.randn(512, 64)) - m(torch.randn(512, 64))).square().mean())


class Online(nn.Module):
    """A target network that is an average of the online one, moved inside the forward."""

    def __init__(self):
        super().__init__()
        self.online, self.predictor, self.target = body(), nn.Linear(64, 64), body()
        self.target.load_state_dict(self.online.state_dict())
        self.target.requires_grad_(False)

    def forward(self, x):
        with torch.no_grad():
            for mine, theirs in zip(self.target.parameters(), self.online.parameters()):
                mine.lerp_(theirs, 0.1)
            aim = self.target(x.flip(0))
        return 2 - 2 * F.cosine_similarity(self.predictor(self.online(x)), aim, dim=1).mean()


@situation("lucidrains/byol-pytorch#89")
def target_network_moves_in_the_forward():
    return one(Online(), lambda m, i: m(torch.randn(512, 64)))


# The loop moves an average of the weights, which is a buffer that the backward may read, between forward and backward.
@situation("lucidrains/ema-pytorch#25")
def average_moves_before_the_backward():
    def use(m, h):
        return (h @ m.teacher.clone() - h).square()

    module = Stateful(use, teacher=torch.randn(64, 64) * 0.1)

    def compute(m, i):
        loss = m(torch.randn(512, 64)).mean()
        with torch.no_grad():
            m.teacher.lerp_(m.body[0].weight, 0.5)
        return loss

    return one(module, compute)


@situation("HumanCompatibleAI/imitation#637")
def running_normalizer():
    class Agent(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = body()
            self.register_buffer("mean", torch.zeros(64))
            self.register_buffer("var", torch.ones(64))
            self.register_buffer("count", torch.tensor(1e-4))

        def forward(self, x):
            y = self.body((x - self.mean) / (self.var + 1e-8).sqrt())
            total = self.count + x.shape[0]
            delta = x.detach().mean(0) - self.mean
            self.mean = self.mean + delta * x.shape[0] / total
            self.var = (self.var * self.count + x.detach().var(0) * x.shape[0]) / total
            self.count = total
            return y

    return one(Agent(), lambda m, i: m(torch.randn(512, 64) * 3 + 1).square().mean())


class ScaledInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, buffer):
        ctx.save_for_backward(buffer)
        return x * buffer.mean()

    @staticmethod
    def backward(ctx, gradient):
        (buffer,) = ctx.saved_tensors
        buffer.mul_(2.0)
        return gradient * buffer.mean(), None


@situation("pytorch/pytorch#177213")
def buffer_changed_in_the_backward():
    return stateful(lambda m, h: ScaledInBackward.apply(h, m.scale), scale=torch.ones(64))


# Delayed scaling of low precision: a history of maxima is rolled, the scale comes from before.
@situation("pytorch/pytorch#112906")
def history_of_maxima():
    def use(m, h):
        scale = m.history.amax().clamp(min=1e-3)
        y = (h / scale * 127).round().clamp(-127, 127) * scale / 127
        m.history.copy_(torch.roll(m.history, 1))
        m.history[0] = h.detach().abs().amax()
        return h + (y - h).detach() + 0.1 * h / scale.detach()

    return stateful(use, history=torch.ones(16))


# The forward changes its own argument.
@situation("pytorch/pytorch#90844")
def argument_changed_in_place():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = body()

        def forward(self, x):
            with torch.no_grad():
                x.add_(1)
            return self.body(x)

    return one(Net(), lambda m, i: m(torch.randn(512, 64)).square().mean())


@situation("pytorch/pytorch#128035")
def argument_with_gradient_changed_in_place():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = body()

        def forward(self, x):
            x.mul_(0.5).relu_()
            return self.body(x)

    def compute(m, i):
        x = torch.randn(512, 64, requires_grad=True)
        y = x * 2
        return m(y).square().mean() + y.abs().mean()

    return one(Net(), compute)
