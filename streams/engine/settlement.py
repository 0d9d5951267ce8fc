"""Settlement price of an expiry: the time-weighted average of its underlying's recorded index over the last minutes.

The index is piecewise constant: each tick stands from its own time until that of the next one. Over the governed window
[expiry - settlement_window_ms, expiry] the price is

    sum of price x milliseconds for which it stood in the window  /  milliseconds for which a price is known,

one division, half-even. So the window begins with the last price known before it, with the first tick inside it where
there was none, and ends with the last tick, however old: missing ticks change nothing. With a window of 0, or no tick
until the expiry at all, it is the last index at or before the expiry (the first one after it where there is none).
An expiry that is listed, or a window that is changed, while the window is open counts what comes from then on.
"""

from __future__ import annotations

from typing import NamedTuple

from schemas.quantities import divide_half_even


class Window(NamedTuple):
    """What has been counted so far: sum of nano-USD x ms, and ms. Python integers (the sum may leave int64)."""

    price_ms: int = 0
    known_ms: int = 0

    def average_usd9(self, otherwise_usd9: int) -> int:
        """The average, or `otherwise_usd9` where nothing was counted."""
        return divide_half_even(self.price_ms, self.known_ms) if self.known_ms else otherwise_usd9

    def counting(self, price_usd9: int, stood_ms: tuple[int, int], expiry_ms: int, window_ms: int) -> Window:
        """With a price that stood over the interval `stood_ms`, as far as that lies in the window before the expiry."""
        overlap_ms = min(stood_ms[1], expiry_ms) - max(stood_ms[0], expiry_ms - window_ms)
        if overlap_ms <= 0:
            return self
        return Window(self.price_ms + price_usd9 * overlap_ms, self.known_ms + overlap_ms)
