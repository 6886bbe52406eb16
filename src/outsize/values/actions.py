"""What each action does with a storage: one table, which planners, lowering, scores and messages ask.

An action is named in many rooms. What they need to know of it in common stands here, so that a new action is a row, and
what it means is written where it means something (CONTRIBUTING.md, "How to add an action").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import get_args

from .plan import Action


@dataclass(frozen=True, kw_only=True)
class Does:
    """One action.

    Attributes:
        asked: the words of `actions=` that allow it, all of them together.
        travels: bytes go to a tier and come back: its decisions have a `tier`, a write and a read.
        encodes: another form of `encoded_bytes` is kept, or travels: its decisions have a `codec`.
        remakes: ops run again: its decisions have a `region`.
        pass_number: its number in `native/evict.h`, the enum beside `KINDS`.
        score_number: its number in `native/score.h`, the enum beside `ACTIONS`; several actions may share one whose
            entries take time and bytes alike.
        default: allowed where nobody says which actions are; what loses bits is not.
    """

    asked: tuple[str, ...]
    travels: bool = False
    encodes: bool = False
    remakes: bool = False
    pass_number: int
    score_number: int
    default: bool = True


ACTIONS: Mapping[str, Does] = MappingProxyType(
    {
        "swap": Does(asked=("swap",), travels=True, pass_number=0, score_number=0),
        "recompute": Does(asked=("recompute",), remakes=True, pass_number=3, score_number=1),
        "encode": Does(asked=("encode",), encodes=True, pass_number=1, score_number=2),
        "encode_swap": Does(
            asked=("swap", "encode"), travels=True, encodes=True, pass_number=2, score_number=3
        ),
    }
)
assert set(ACTIONS) == set(get_args(Action))

#: Those whose bytes go to a tier; that keep or send another form; that run ops again.
TRAVELLING = frozenset(name for name, does in ACTIONS.items() if does.travels)
ENCODING = frozenset(name for name, does in ACTIONS.items() if does.encodes)
REMAKING = frozenset(name for name, does in ACTIONS.items() if does.remakes)
#: By the number that a pass names them with.
BY_PASS_NUMBER: tuple[str, ...] = tuple(sorted(ACTIONS, key=lambda name: ACTIONS[name].pass_number))
#: What `actions=` may be made of, and what it is where nobody says.
ASKED: tuple[str, ...] = tuple(dict.fromkeys(word for does in ACTIONS.values() for word in does.asked))
ASKED_BY_DEFAULT: tuple[str, ...] = tuple(
    word for word in ASKED if any(does.default and does.asked == (word,) for does in ACTIONS.values())
)
