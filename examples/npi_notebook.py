"""From a trace to a certificate to another primitive, one cell after the other.

python examples/npi_notebook.py
"""

from outsize.programs import npi

DIGITS = range(10)


def better(x, y):
    return x > y


def best_of(xs, out):
    """The best element of a list; which one that is, `better` says."""
    best = xs.read()
    for x in xs:
        if better(x, best):
            best = x
    out.write(best)


def tapes(values):
    """Makes the pointers of one execution, on fresh tapes."""
    return lambda: [npi.Tape(values, domain=DIGITS).at(), npi.Tape([0], domain=DIGITS).at()]


def main():
    traces = npi.trace(best_of, [tapes([2, 7, 1])])
    print("1. traces:")
    for row in traces.rows:
        print("  ", row)

    template = npi.parameterize(traces)
    print("2. primitives:", {site.name: site.text for site in template.sites.values()})

    model = npi.train(template)
    certificate = npi.verify(template, model)
    print("3. proved:", *certificate.proved, sep="\n   ")

    heads = tapes([5, 3, 8, 4] * 1000)()
    npi.run(model, [heads])
    print("4. the best of 4,000:", heads[1].tape.cells[0])

    least = npi.swap(model, "better", {(x, y): int(x < y) for x in DIGITS for y in DIGITS})
    heads = tapes([5, 3, 8, 4] * 1000)()
    npi.run(least, [heads])
    print("5. the same controller, another primitive:", heads[1].tape.cells[0])


if __name__ == "__main__":
    main()
