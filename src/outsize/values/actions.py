"""What each action does with a storage: one table, which planners, lowering, scores and messages ask.

An action is named in many rooms. What they need to know of it in common stands here, so that a new action is a row, and
what it means is written where it means something (CONTRIBUTING.md, "How to add an action").
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import get_args

from .plan import Action
from .schedule import EntryKind


@dataclass(frozen=True, kw_only=True)
class Does:
    """One action.

    Attributes:
        asked: the words of `actions=` that allow it, all of them together.
        travels: bytes go to a tier and come back: its decisions have a `tier`, a write and a read.
        reduces, restores: where another form of `encoded_bytes` is kept, or travels, the entry that makes it after the
            touch, and the one that makes the storage whole before the use. They take what the rates of the decision's
            `codec` say.
        remakes: ops run again: its decisions have a `region`.
        pass_number: its number in `native/evict.h`, the enum beside `KINDS`.
        score_number: its number in `native/score.h`, the enum beside `ACTIONS`; several actions may share one whose
            entries take time and bytes alike.
        default: allowed where nobody says which actions are; what loses bits is not.
    """

    asked: tuple[str, ...]
    travels: bool = False
    reduces: EntryKind | None = None
    restores: EntryKind | None = None
    remakes: bool = False
    pass_number: int
    score_number: int
    default: bool = True

    @property
    def encodes(self) -> bool:
        """Another form is kept, or travels."""
        return self.reduces is not None


ACTIONS: Mapping[str, Does] = MappingProxyType(
    {
        "swap": Does(asked=("swap",), travels=True, pass_number=0, score_number=0),
        "recompute": Does(asked=("recompute",), remakes=True, pass_number=3, score_number=1),
        "encode": Does(asked=("encode",), reduces="encode", restores="decode", pass_number=1, score_number=2),
        "encode_swap": Does(
            asked=("swap", "encode"),
            travels=True,
            reduces="encode",
            restores="decode",
            pass_number=2,
            score_number=3,
        ),
    }
)
assert set(ACTIONS) == set(get_args(Action))

#: Those whose bytes go to a tier; that keep or send another form; that run ops again.
TRAVELLING = frozenset(name for name, does in ACTIONS.items() if does.travels)
ENCODING = frozenset(name for name, does in ACTIONS.items() if does.encodes)
REMAKING = frozenset(name for name, does in ACTIONS.items() if does.remakes)
#: Entries that make another form, and those that make the storage whole of it.
REDUCING = frozenset(does.reduces for does in ACTIONS.values() if does.reduces)
RESTORING = frozenset(does.restores for does in ACTIONS.values() if does.restores)
#: By the number that a pass names them with.
BY_PASS_NUMBER: tuple[str, ...] = tuple(sorted(ACTIONS, key=lambda name: ACTIONS[name].pass_number))
#: What `actions=` may be made of, and what it is where nobody says.
ASKED: tuple[str, ...] = tuple(dict.fromkeys(word for does in ACTIONS.values() for word in does.asked))
ASKED_BY_DEFAULT: tuple[str, ...] = tuple(
    word for word in ASKED if any(does.default and does.asked == (word,) for does in ACTIONS.values())
)


def allowed(words: Collection[str]) -> frozenset[str]:
    """The actions that these words of `actions=` allow."""
    return frozenset(name for name, does in ACTIONS.items() if set(does.asked) <= set(words))
