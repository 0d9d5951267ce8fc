"""Pure transitions (state, event) -> (state, outputs). No Faust, asyncio, clock, randomness or I/O in here."""
