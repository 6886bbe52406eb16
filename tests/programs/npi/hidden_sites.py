"""A program most of whose tests no given example reaches: they are named in the order in which they are met."""


def over(x, y):
    return x > y


def level(xs, out):
    while not xs.at_end():
        x = xs.read()
        if over(x, 7):
            if over(x, 8):
                if over(x, 9):
                    out.write(5)
                else:
                    out.write(4)
            else:
                out.write(3)
        elif over(x, 3):
            if over(x, 5):
                out.write(2)
            elif over(x, 4):
                out.write(1)
            else:
                out.write(0)
        out.move(1)
        xs.move(1)
