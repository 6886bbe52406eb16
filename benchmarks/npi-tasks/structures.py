# ruff: noqa: E501, SIM113
"""Tasks with structure: sorting, stacks, queues."""

import heapq

from tasks import D, Task, numbers

from outsize.programs.npi import Tape


def bubble_sort(xs, end):
    while xs.before(end):
        p = xs.copy()
        while p.before(end):
            q = p.copy()
            q.move(1)
            a, b = p.read(), q.read()
            if a > b:
                p.write(b)
                q.write(a)
            p.move(1)
        end.move(-1)


def selection_sort(xs):
    while not xs.at_end():
        best = xs.copy()
        p = xs.copy()
        while not p.at_end():
            if p.read() < best.read():
                best.goto(p)
            p.move(1)
        a, b = xs.read(), best.read()
        xs.write(b)
        best.write(a)
        xs.move(1)


def insertion_sort(xs, out):
    while not out.at_end():
        x = out.read()
        hole = out.copy()
        left = hole.copy()
        left.move(-1)
        while not left.at_start() and left.read() > x:
            hole.write(left.read())
            hole.move(-1)
            left.move(-1)
        hole.write(x)
        out.move(1)


def merge(a, b, out):
    while not a.at_end() and not b.at_end():
        if b.read() < a.read():
            out.write(b.read())
            b.move(1)
        else:
            out.write(a.read())
            a.move(1)
        out.move(1)
    for x in a:
        out.write(x)
        out.move(1)
    for y in b:
        out.write(y)
        out.move(1)


def counting_sort(xs, counts, out):
    for x in xs:
        counts.seek(x)
        counts.write(counts.read() + 1)
    counts.seek(0)
    value = 0
    for n in counts:
        k = n
        while k > 0:
            out.write(value)
            out.move(1)
            k -= 1
        value += 1


def brackets(text, stack, out):
    """1 opens and 2 closes a round one, 3 opens and 4 closes a square one."""
    for c in text:
        if c == 1 or c == 3:
            stack.write(c)
            stack.move(1)
        else:
            stack.move(-1)
            if stack.at_start():
                out.write(0)
                return
            top = stack.read()
            if top == 1 and c != 2:
                out.write(0)
                return
            if top == 3 and c != 4:
                out.write(0)
                return
    stack.move(-1)
    if stack.at_start():
        out.write(1)
    else:
        out.write(0)


def postfix(tokens, stack, out):
    """Digits are pushed; 10 adds and 11 multiplies the two topmost, modulo 10."""
    for t in tokens:
        if t < 10:
            stack.write(t)
            stack.move(1)
        else:
            stack.move(-1)
            y = stack.read()
            stack.move(-1)
            x = stack.read()
            if t == 10:
                stack.write((x + y) % 10)
            else:
                stack.write(x * y % 10)
            stack.move(1)
    stack.move(-1)
    out.write(stack.read())


def queue_simulation(commands, queue, tail, out):
    """0 takes from the queue (if it has any); another number is put in."""
    for c in commands:
        if c == 0:
            if queue.before(tail):
                out.write(queue.read())
                out.move(1)
                queue.move(1)
        else:
            tail.write(c)
            tail.move(1)


def majority_element_exists(xs, out):
    while not xs.at_end():
        x = xs.read()
        ours, theirs = 0, 0
        p = xs.copy()
        for y in p:
            if y == x:
                ours += 1
            else:
                theirs += 1
        if ours > theirs:
            out.write(1)
            return
        xs.move(1)
    out.write(0)


def balanced(xs):
    stack = []
    for c in xs:
        if c in (1, 3):
            stack.append(c)
        elif not stack or stack.pop() != c - 1:
            return 0
    return int(not stack)


def expression(s):
    tokens, height = [s.choice(D)], 1
    for _ in range(s.randint(0, 12)):
        if height >= 2 and s.random() < 0.5:
            tokens.append(s.choice((10, 11)))
            height -= 1
        else:
            tokens.append(s.choice(D))
            height += 1
    return tokens + [10] * (height - 1)


def calculate(tokens):
    stack = []
    for t in tokens:
        if t < 10:
            stack.append(t)
        else:
            y, x = stack.pop(), stack.pop()
            stack.append((x + y) % 10 if t == 10 else x * y % 10)
    return stack[-1]


def fifo(commands):
    queue, out = [], []
    for c in commands:
        if c:
            queue.append(c)
        elif queue:
            out.append(queue.pop(0))
    return out + [0] * (len(commands) - len(out))


TASKS = [
    Task("bubble sort", bubble_sort, lambda xs: [(t := Tape(xs, domain=D)), (t, -1)], lambda s: [numbers(s)],
         lambda t: t[0], sorted, ([[3, 1, 2]],)),
    Task("selection sort", selection_sort, lambda xs: [Tape(xs, domain=D)], lambda s: [numbers(s)], lambda t: t[0], sorted,
         ([[3, 1, 2]],)),
    Task("insertion sort", insertion_sort, lambda xs: [(t := Tape(xs, domain=D)), t], lambda s: [numbers(s)],
         lambda t: t[0], sorted, ([[3, 1, 2]],)),
    Task("merge", merge, lambda a, b: [Tape(a, domain=D), Tape(b, domain=D), Tape([0] * len(a + b), domain=D)],
         lambda s: [sorted(numbers(s)), sorted(numbers(s))], lambda t: t[2], lambda a, b: list(heapq.merge(a, b)),
         (([1, 3], [2]),)),
    Task("counting sort", counting_sort,
         lambda xs: [Tape(xs, domain=D), Tape([0] * 10, domain=range(50)), Tape([0] * len(xs), domain=D)],
         lambda s: [numbers(s)], lambda t: t[2], sorted, ([[3, 1, 3]],)),
    Task("bracket matching", brackets,
         lambda xs: [Tape(xs, domain=range(1, 5)), Tape([0] * (len(xs) + 1), domain=range(5)), Tape([0], domain=range(2))],
         lambda s: [s.choice(([1, 2] * 3, [1, 3, 4, 2], [1, 1, 2, 3, 4, 2], s.choices((1, 2, 3, 4), k=s.randint(0, 6))))],
         lambda t: t[2][0], balanced, ([[1, 3, 4, 2]], [[1, 4]])),
    Task("postfix calculator", postfix,
         lambda xs: [Tape(xs, domain=range(12)), Tape([0] * len(xs), domain=D), Tape([0], domain=D)],
         lambda s: [expression(s)], lambda t: t[2][0], calculate, ([[3, 4, 10, 5, 11]],)),
    Task("queue simulation", queue_simulation,
         lambda xs: [Tape(xs, domain=D), (q := Tape([0] * len(xs), domain=D)), q, Tape([0] * len(xs), domain=D)],
         lambda s: [s.choices((0, 0, 1, 2, 3), k=s.randint(0, 12))], lambda t: t[3], fifo, ([[3, 0, 0]],)),
    Task("majority by counting", majority_element_exists, lambda xs: [Tape(xs, domain=range(3)), Tape([0], domain=range(2))],
         lambda s: [s.choices(range(3), k=s.randint(0, 7))], lambda t: t[1][0],
         lambda xs: int(any(2 * xs[i:].count(x) > len(xs) - i for i, x in enumerate(xs))), ([[1, 1, 2]],)),
]  # fmt: skip
