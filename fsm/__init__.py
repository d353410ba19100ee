"""Client sessions for trackers: which events belong together.

>>> from fsm import ClientSession
>>> session = ClientSession("session.xml")
>>> entity = session.get_session_context(event_id)  # for every tracked event
>>> session.set_background(True)  # whenever focus is lost or won back
>>> session.close()
"""

from fsm.clock import Clock, SystemClock
from fsm.entity import SessionContext
from fsm.errors import SessionClosedError
from fsm.explanation import Beginning, Ending, Explanation
from fsm.graph import Input, SessionState
from fsm.lifecycle import EndReason
from fsm.scheduler import Scheduler
from fsm.session import ClientSession
from fsm.summary import SessionSummary

__all__ = [
    "Beginning",
    "ClientSession",
    "Clock",
    "EndReason",
    "Ending",
    "Explanation",
    "Input",
    "Scheduler",
    "SessionClosedError",
    "SessionContext",
    "SessionState",
    "SessionSummary",
    "SystemClock",
]
