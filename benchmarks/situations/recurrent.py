"""Recurrent layers, and states that go from one call to the next."""

import torch
from harness import Made, one, situation
from torch import nn


class Language(nn.Module):
    """An embedding, a recurrent layer with dropout between its layers, logits."""

    def __init__(self, layer, **settings):
        super().__init__()
        self.table, self.out = nn.Embedding(50, 64), nn.Linear(64, 50)
        self.layer = layer(64, 64, 2, dropout=0.3, batch_first=True, **settings)

    def forward(self, ids, state=None):
        y, state = self.layer(self.table(ids), state)
        return self.out(y), state


def predicted(m, i):
    ids = torch.randint(50, (16, 17))
    return nn.functional.cross_entropy(m(ids[:, :-1])[0].flatten(0, 1), ids[:, 1:].flatten())


# Eager's LSTM is one oneDNN kernel that rounds differently: the comparison is without it.
@situation("pytorch/pytorch#185163", onednn=False)
def lstm_with_dropout():
    return one(Language(nn.LSTM), predicted)


@situation("pytorch/pytorch#158007", onednn=False)
def gru_with_dropout():
    return one(Language(nn.GRU), predicted)


# The state is handed on, detached by the loop.
@situation("dpressel/dliss-tutorial#1", steps=4, onednn=False)
def truncated_backpropagation():
    kept = {}

    def compute(m, i):
        ids = torch.randint(50, (16, 33))
        y, state = m(ids[:, :-1], kept.get("state"))
        kept["state"] = tuple(s.detach() for s in state)
        return nn.functional.cross_entropy(y.flatten(0, 1), ids[:, 1:].flatten())

    return one(Language(nn.LSTM), compute)


# The same with detach_, as `repackage_hidden` once did.
@situation("pytorch/pytorch#49236", steps=4, onednn=False)
def detached_in_place():
    kept = {}

    def compute(m, i):
        ids = torch.randint(50, (16, 33))
        y, state = m(ids[:, :-1], kept.get("state"))
        loss = nn.functional.cross_entropy(y.flatten(0, 1), ids[:, 1:].flatten())
        kept["state"] = state.clone().detach_()
        return loss

    return one(Language(nn.GRU), compute)


# The module keeps its state as a plain attribute.
@situation("norse/norse#131", steps=4)
def state_as_an_attribute():
    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.state = nn.Linear(64, 64), nn.Linear(64, 64), torch.zeros(512, 64)

        def forward(self, x):
            h = torch.tanh(self.a(x) + self.b(self.state))
            h = torch.tanh(self.a(x) + self.b(h))
            self.state = h.detach()
            return h

    return one(Cell(), lambda m, i: m(torch.randn(512, 64)).square().mean())


# Frames one after the other, hidden states in a list.
@situation("ndrplz/ConvLSTM_pytorch#21")
def convolutional_lstm():
    class ConvLstm(nn.Module):
        def __init__(self):
            super().__init__()
            self.gates = nn.Conv2d(3 + 16, 64, 3, padding=1)

        def forward(self, frames):
            h = c = frames.new_zeros(frames.shape[0], 16, *frames.shape[-2:])
            states = []
            for frame in frames.unbind(1):
                i, f, o, g = self.gates(torch.cat([frame, h], 1)).chunk(4, 1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
                states.append(h)
            return torch.stack(states, 1), [h, c]

    return one(ConvLstm(), lambda m, i: m(torch.randn(4, 4, 3, 16, 16))[0].square().mean())


@situation("pytorch/pytorch#158007", onednn=False)
def packed_sequences():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.GRU(64, 64, batch_first=True)

        def forward(self, x):
            packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([32, 30, 20, 8]), batch_first=True)
            y, _ = nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0], batch_first=True)
            return y

    return one(Packed(), lambda m, i: m(torch.randn(4, 32, 64)).square().mean())


# A decoder that is fed its own choice half of the time, by a coin of torch's.
@situation("pytorch/pytorch#143431")
def teacher_forcing():
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.cell, self.out = nn.Embedding(50, 64), nn.GRUCell(64, 64), nn.Linear(64, 50)

        def forward(self, ids):
            h, token, made = torch.zeros(ids.shape[0], 64), ids[:, 0], []
            for t in range(1, ids.shape[1]):
                h = self.cell(self.table(token), h)
                made.append(self.out(h))
                forced = torch.rand(ids.shape[0]) < 0.5
                token = torch.where(forced, ids[:, t], made[-1].argmax(-1))
            return torch.stack(made, 1)

    def compute(m, i):
        ids = torch.randint(50, (64, 7))
        return nn.functional.cross_entropy(m(ids).flatten(0, 1), ids[:, 1:].flatten())

    return one(Decoder(), compute)


# A language model that attends to what it cached of the segment before.
@situation("pytorch/pytorch#197039", steps=4)
def memory_of_the_segment_before():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.kv, self.norm = nn.Linear(64, 64), nn.Linear(64, 128), nn.LayerNorm(64)
            self.register_buffer("memory", torch.zeros(8, 32, 64))

        def forward(self, x):
            k, v = self.kv(torch.cat([self.memory, x], 1)).chunk(2, -1)
            y = nn.functional.scaled_dot_product_attention(self.q(x), k, v)
            self.memory.copy_(x.detach())
            return self.norm(x + y)

    module = nn.Sequential(Layer(), Layer(), nn.Linear(64, 64))
    return one(module, lambda m, i: m(torch.randn(8, 32, 64)).square().mean())


# A recurrent critic and a recurrent actor, two optimizers, the actor's loss through the critic.
@situation("pytorch/pytorch#91542")
def actor_through_critic():
    actor = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 16), nn.Tanh())
    critic = nn.Sequential(nn.Linear(80, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1))
    a, c = torch.optim.Adam(actor.parameters(), 1e-3), torch.optim.Adam(critic.parameters(), 1e-3)

    def step(i):
        x, aim = torch.randn(512, 64), torch.randn(512, 1)
        c.zero_grad()
        with torch.no_grad():
            moved = actor(x)
        value = nn.functional.mse_loss(critic(torch.cat([x, moved], 1)), aim)
        value.backward()
        c.step()
        a.zero_grad()
        loss = -critic(torch.cat([x, actor(x)], 1)).mean()
        loss.backward()
        a.step()
        return {"value": value, "loss": loss}

    return Made(modules=(actor, critic), optimizers=(a, c), step=step)
