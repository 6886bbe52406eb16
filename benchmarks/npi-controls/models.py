"""The controls: networks that learn the same problems without calls, without primitives, or without steps at all."""

import itertools
import random

import torch
from torch import nn

PAD, START, END = 10, 11, 12
VOCABULARY = 13


class Seq2Seq(nn.Module):
    """GRU encoder and decoder, the classical sequence-to-sequence model."""

    def __init__(self, hidden=128):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 32)
        self.encoder = nn.GRU(32, hidden, batch_first=True)
        self.decoder = nn.GRU(32, hidden, batch_first=True)
        self.out = nn.Linear(hidden, VOCABULARY)

    def loss(self, questions, answers):
        _, state = self.encoder(self.embed(questions))
        shifted = torch.cat([torch.full_like(answers[:, :1], START), answers[:, :-1]], 1)
        hidden, _ = self.decoder(self.embed(shifted), state)
        return nn.functional.cross_entropy(self.out(hidden).flatten(0, 1), answers.flatten())

    @torch.no_grad()
    def answer(self, questions, length):
        _, state = self.encoder(self.embed(questions))
        token = torch.full((len(questions), 1), START)
        out = []
        for _ in range(length):
            hidden, state = self.decoder(self.embed(token), state)
            token = self.out(hidden).argmax(2)
            out.append(token)
        return torch.cat(out, 1)


class Looped(nn.Module):
    """One transformer block, applied as often as the problem is long, its input added each time (Fan et al., 2025)."""

    def __init__(self, width=64, causal=True):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY * VOCABULARY, width)
        self.block = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.out = nn.Linear(width, VOCABULARY)
        self.causal = causal

    def forward(self, tokens, loops):
        x = self.embed(tokens)
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1]) if self.causal else None
        state = torch.zeros_like(x)
        for _ in range(loops):
            state = self.block(state + x, src_mask=mask, is_causal=self.causal)
        return self.out(state)

    def loss(self, questions, answers):
        logits = self(questions, questions.shape[1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), answers.flatten())

    @torch.no_grad()
    def answer(self, questions, length):
        return self(questions, questions.shape[1]).argmax(2)[:, :length]


def sums(source, count, digits):
    """Additions, least digit first: (pairs of digits, digits of the sum), each [count, digits + 1]."""
    a = torch.tensor([source.choices(range(10), k=digits) for _ in range(count)])
    b = torch.tensor([source.choices(range(10), k=digits) for _ in range(count)])
    out, carry = torch.zeros(count, digits + 1, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
    for i in range(digits):
        total = a[:, i] + b[:, i] + carry
        out[:, i], carry = total % 10, total // 10
    out[:, digits] = carry
    zero = torch.zeros(count, 1, dtype=torch.int64)
    return torch.cat([a, zero], 1), torch.cat([b, zero], 1), out


def sorts(source, count, length):
    xs = torch.tensor([source.choices(range(10), k=length) for _ in range(count)])
    return xs, xs.sort(1).values


def problem(task, kind, source, count, length):
    """Questions and answers of one length, in the shape that a kind of model reads."""
    if task == "sort":
        xs, answer = sorts(source, count, length)
        return (xs if kind == "seq2seq" else xs * VOCABULARY), answer
    a, b, answer = sums(source, count, length)
    question = torch.stack([a, b], 2).flatten(1) if kind == "seq2seq" else a * VOCABULARY + b
    return question, answer


def train_sequence(kind, task, lengths, count, seed, steps):
    """Train on `count` problems in all, of the given lengths; full batch per length."""
    torch.manual_seed(seed)
    source = random.Random(seed)
    model = Seq2Seq() if kind == "seq2seq" else Looped(causal=task == "sum")
    data = [problem(task, kind, source, count // len(lengths), n) for n in lengths]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        optimizer.zero_grad()
        loss = sum(model.loss(*pair) for pair in data)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 and float(loss.detach()) < 1e-3:
            break
    return model


def exact(model, kind, task, source, length, count=100):
    question, answer = problem(task, kind, source, count, length)
    return float((model.answer(question, answer.shape[1]) == answer).all(1).float().mean())


class PlainStep(nn.Module):
    """A plain NPI's step: it sees the data under the pointers and must emit both data to write, in the same LSTM."""

    def __init__(self, inputs, answers, hidden=64):
        super().__init__()
        self.embed = nn.ModuleList(nn.Embedding(10, 32) for _ in range(inputs))
        self.cell = nn.LSTMCell(32, hidden)
        self.heads = nn.ModuleList([nn.Linear(hidden, n) for n in answers])

    def forward(self, data):
        seen = sum(embed(data[:, i]) for i, embed in enumerate(self.embed))
        h, c = self.cell(seen)
        first = self.heads[0](h)
        h, _ = self.cell(torch.zeros_like(seen), (h, c))
        return first, self.heads[1](h)


def learn_plain(seed, seen, function, every, answers, steps):
    """Trained on the inputs `seen`; returns its two answers to every input. Its walk over the tape is taken as right."""
    torch.manual_seed(seed)
    data = torch.tensor(sorted(seen))
    wanted = torch.tensor([function(*row) for row in sorted(seen)])
    model = PlainStep(data.shape[1], answers)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        losses = [nn.functional.cross_entropy(out, wanted[:, i]) for i, out in enumerate(model(data))]
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    with torch.no_grad():
        first, second = (out.argmax(1).tolist() for out in model(torch.tensor(every)))
    return dict(zip(every, zip(first, second)))


def plain_npi(seed, problems, digits, steps):
    """The columns that `problems` additions show, and its answers to all 200 columns."""
    source, columns = random.Random(seed), set()
    for _ in range(problems):
        a, b, _ = sums(source, 1, source.randint(1, digits))
        carry = 0
        for x, y in zip(a[0, :-1].tolist(), b[0, :-1].tolist()):
            columns.add((x, y, carry))
            carry = (x + y + carry) // 10
    every = list(itertools.product(range(10), range(10), range(2)))
    add = lambda x, y, c: ((x + y + c) % 10, (x + y + c) // 10)  # noqa: E731
    return len(columns), learn_plain(seed, columns, add, every, (10, 2), steps)


def plain_sorter(seed, problems, steps):
    """The pairs that `problems` lists of two digits show, and its answers (what to write where) to all 100 pairs."""
    source = random.Random(seed)
    pairs = {tuple(source.choices(range(10), k=2)) for _ in range(problems)}
    every = list(itertools.product(range(10), range(10)))
    order = lambda x, y: (min(x, y), max(x, y))  # noqa: E731
    return len(pairs), learn_plain(seed, pairs, order, every, (10, 10), steps)


def plain_sorted(table, source, length, count=100):
    right = 0
    for xs in sorts(source, count, length)[0].tolist():
        out = list(xs)
        for last in range(length - 1, 0, -1):
            for i in range(last):
                out[i], out[i + 1] = table[out[i], out[i + 1]]
        right += out == sorted(xs)
    return right / count


def plain_exact(table, source, length, count=100):
    a, b, answer = sums(source, count, length)
    right = 0
    for x, y, want in zip(a.tolist(), b.tolist(), answer.tolist()):
        carry, out = 0, []
        for p, q in zip(x[:-1], y[:-1]):
            digit, carry = table[p, q, carry]
            out.append(digit)
        right += [*out, carry] == want
    return right / count
