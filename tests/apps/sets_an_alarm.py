"""Has a timer of its own from `setup` on."""

import signal

from warmpool import BaseApp


class SetsAnAlarm(BaseApp):
    def setup(self):
        self.rang = 0
        signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)

    def _ring(self, number: int, frame: object):
        self.rang += 1

    def times_rung(self) -> int:
        while not self.rang:
            if signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0):
                return -1
            signal.pause()
        return self.rang
