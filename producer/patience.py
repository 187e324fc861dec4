"""Going on when the broker or the database is away for a while."""

from collections.abc import Callable
from threading import Event
from typing import TypeVar

from core.errors import BrokerError, DatabaseBusyError, FacesieveError

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0


class Patience:
    """Does things with the broker and the database again and again until they are there, unless a stop was asked for.

    Attributes:
        is_away: whether something was missing at the last try.
    """

    def __init__(self, stopped: Event, meanwhile: Callable[[FacesieveError], None], say: Callable[[str], None]) -> None:
        """Begin with everything there.

        Args:
            stopped: set when a stop was asked for.
            meanwhile: called before each new try with what is the matter.
            say: for people: when something goes away and when it is back.
        """
        self.is_away = False
        self._stopped = stopped
        self._meanwhile = meanwhile
        self._say = say

    def __call__(self, act: Callable[[], T], /) -> T:
        """Return the result.

        Raises:
            BrokerError, DatabaseBusyError: a stop was asked for, and it does not work now.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                result = act()
            except (BrokerError, DatabaseBusyError) as error:
                if self._stopped.is_set():
                    raise
                if not self.is_away:
                    self._say(f"note: {error}; it is tried until it is back")
                self.is_away = True
                self._stopped.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                self._meanwhile(error)
            else:
                if self.is_away:
                    self._say("note: broker and database are back")
                self.is_away = False
                return result
