"""A progress line with rate and remaining time."""

import sys
import time
from typing import TextIO


class Progress:
    """Call it with (done, total). On a terminal one line is kept up to date, elsewhere a line comes every ten seconds.

    Args:
        name: what is being counted.
        stream: where the line goes; None for standard error.
    """

    def __init__(self, name: str, stream: TextIO | None = None) -> None:
        self.name = name
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.every = 0.2 if self.live else 10.0
        self.start = self.shown = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self.shown < self.every:
            return
        self.shown = now
        seconds = max(now - self.start, 1e-9)
        rate = done / seconds
        rest = f"{clock((total - done) / rate)} left" if done < total else f"took {clock(seconds)}"
        line = f"{self.name}: {done:,} of {total:,} ({done / total:.0%}), {rate:,.0f} a second, {rest}"
        self.stream.write(f"\r{line:<78}" if self.live else f"{line}\n")
        if self.live and done >= total:
            self.stream.write("\n")
        self.stream.flush()


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
