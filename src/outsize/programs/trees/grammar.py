"""The closed vocabularies of the Python front end: node kinds, roles, operators, reserved tokens.

A trained model refers to kinds and roles by number, so the lists are written down here instead of being read
from the `ast` of whichever Python happens to run: 3.11 and 3.14 then produce the same forest for the same
text. A class that a later Python adds becomes `other` until it is given a place at the end.
"""

from __future__ import annotations

KINDS: tuple[str, ...] = (
    "other", "Module", "FunctionDef", "AsyncFunctionDef", "ClassDef", "Return", "Delete", "Assign",
    "AugAssign", "AnnAssign", "For", "AsyncFor", "While", "If", "With", "AsyncWith", "Match", "Raise",
    "Try", "TryStar", "Assert", "Import", "ImportFrom", "Global", "Nonlocal", "Pass", "Break",
    "Continue", "BoolOp", "NamedExpr", "BinOp", "Not", "USub", "UAdd", "Invert", "Lambda", "IfExp",
    "Dict", "Set", "ListComp", "SetComp", "DictComp", "GeneratorExp", "Await", "Yield", "YieldFrom",
    "Compare", "Call", "JoinedStr", "FormattedValue", "Attribute", "AttributeStore", "Subscript",
    "SubscriptStore", "Starred", "Name", "NameStore", "List", "Tuple", "TupleStore", "Slice",
    "comprehension", "ExceptHandler", "arguments", "arg", "keyword", "alias", "withitem", "match_case",
    "MatchValue", "MatchSingleton", "MatchSequence", "MatchMapping", "MatchClass", "MatchStar",
    "MatchAs", "MatchOr", "Int", "Float", "Complex", "Str", "Bytes", "Bool", "None", "Ellipsis", "Op",
    "TypeAlias", "TypeVar", "Identifier", "Hole",
)  # fmt: skip
KIND = {name: index for index, name in enumerate(KINDS)}

FIELDS: tuple[str, ...] = (
    "", "body", "orelse", "finalbody", "handlers", "test", "value", "values", "target", "targets",
    "iter", "ifs", "func", "args", "keywords", "left", "right", "comparators", "op", "operand", "elts",
    "key", "keys", "elt", "generators", "slice", "lower", "upper", "step", "items", "context_expr",
    "optional_vars", "exc", "cause", "msg", "names", "name", "type", "decorator_list", "returns",
    "annotation", "default", "vararg", "kwonly", "kwarg", "posonly", "bases", "subject", "cases",
    "pattern", "patterns", "guard", "cls", "rest", "format_spec", "tag", "params",
)  # fmt: skip
FIELD = {name: index for index, name in enumerate(FIELDS)}

#: Operators that can stand for one another by mistake: one row per family.
FAMILIES: tuple[tuple[str, ...], ...] = (
    ("+", "-", "*", "/", "//", "%"),
    ("&", "|", "^", "<<", ">>"),
    ("==", "!=", "<", "<=", ">", ">="),
    ("is", "is not"),
    ("in", "not in"),
    ("and", "or"),
)
OPERATORS: tuple[str, ...] = tuple(op for family in FAMILIES for op in family)
OPERATOR = {name: index for index, name in enumerate(OPERATORS)}
#: Operators of one row bind equally tightly, so one may replace the other without parentheses.
TIGHTNESS = {
    name: level
    for level, row in enumerate(
        (("or",), ("and",), FAMILIES[2] + FAMILIES[3] + FAMILIES[4], ("|",), ("^",), ("&",), ("<<", ">>"),
         ("+", "-"), ("*", "/", "//", "%"))
    )
    for name in row
}  # fmt: skip

#: Whole numbers that a literal may be mistaken for have a token of their own.
INT_LOW, INT_HIGH = -16, 128
#: The first tokens of every Python forest, so that their numbers are known without a look-up.
RESERVED: tuple[str, ...] = (
    "", *OPERATORS, *(str(n) for n in range(INT_LOW, INT_HIGH + 1)), "True", "False",
)  # fmt: skip
OPERATOR_TOKEN = 1
INT_TOKEN = 1 + len(OPERATORS) - INT_LOW
TRUE_TOKEN = RESERVED.index("True")
FALSE_TOKEN = RESERVED.index("False")

#: What a place can be suspected of. The first four are the injected bugs; attributes are learned on the way.
PLACES: tuple[str, ...] = (
    "variable-misuse", "argument-swap", "wrong-operator", "wrong-literal", "wrong-attribute",
)  # fmt: skip
VARIABLE, SWAP, OPERATION, LITERAL, ATTRIBUTE = range(5)

#: How a name occurs.
PARAMETER, STORE, LOAD, CALLED, OTHER = range(5)
ROLES = 5
