"""What can fail outside: the store on disk, the process that has it open, the records it is given.

StoreError            the data folder cannot be used: not writable, full, of another run or version; says what to do
├── StoreBusy         another process has the store open
├── StoreEmpty        there is no store, or nothing in it yet
└── QueryRefused      the question itself cannot be answered: bad SQL, no such block, no such account
SinkFault             a public log broke its contract (a hole, a conflict, an unreadable record): the sink must stop
"""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot be used; the message says what to do."""


class StoreBusy(StoreError):
    """Another process has the store open."""


class StoreEmpty(StoreError):
    """There is no store, or nothing in it yet."""


class QueryRefused(StoreError):
    """The question cannot be answered."""


class SinkFault(Exception):
    """A public log is broken: continuing would store something false."""
