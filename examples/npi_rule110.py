"""A program of one's own, learned and proved: the cellular automaton 110 for any number of cells and generations.

python examples/npi_rule110.py
"""

from outsize.programs import npi

BITS = range(2)


def rule(left, middle, right):
    return (110 >> (4 * left + 2 * middle + right)) & 1


def generation(left, middle, right, out):
    while not right.at_end():
        out.write(rule(left.read(), middle.read(), right.read()))
        for pointer in (left, middle, right, out):
            pointer.move(1)


def copy_all(source, sink):
    while not source.at_end():
        sink.write(source.read())
        source.move(1)
        sink.move(1)


def automaton(cells, spare, clock):
    """One generation for each cell of `clock`; the borders stay 0."""
    while not clock.at_end():
        left, middle, right, out = cells.copy(), cells.copy(), cells.copy(), spare.copy()
        middle.move(1)
        right.move(2)
        out.move(1)
        generation(left, middle, right, out)
        copy_all(source=spare.copy(), sink=cells.copy())
        clock.move(1)


def tapes(cells, generations):
    """Makes the pointers of one execution, on fresh tapes."""
    return lambda: (
        npi.Tape([0, *cells, 0], domain=BITS).at(),
        npi.Tape([0] * (len(cells) + 2), domain=BITS).at(),
        npi.Tape([0] * generations).at(),
    )


def main():
    template = npi.parameterize(npi.trace(automaton, [tapes([1, 0, 1], 2), tapes([1], 0)]))
    model = npi.train(template)
    certificate = npi.verify(template, model)
    for fact in certificate.proved:
        print(fact)
    for generations in range(16):
        heads = tapes([0] * 47 + [1], generations)()
        npi.run(model, [heads])
        print("".join(" #"[cell] for cell in heads[0].tape.cells))


if __name__ == "__main__":
    main()
