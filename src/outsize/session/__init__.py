"""One module under one budget: its session, the call that runs in its own one's place, and what it keeps of steps."""

from .install import SESSIONS, install, release, session_of
from .observed import ObservedSession
from .resident import resident
from .session import Session

__all__ = ["SESSIONS", "ObservedSession", "Session", "install", "release", "resident", "session_of"]
