"""Looking for garbage: often among what is new, seldom among everything.

What we make goes by itself once nothing refers to it; a collector is there for circles, and those of gRPC are small and short-lived.
Python's own plan looks, again and again, at all that has stayed as well, and that is much: answers are kept for readers that come back.
It held everybody up for 0.1 s every thousand answers or so.
"""

import asyncio
import gc

NEW_EVERY = 0.2
"""Seconds between looking at what is new. What has stayed then is frozen: it is not looked at again until everything is."""
ALL_EVERY = 600.0
"""Seconds between looking at everything."""


def collect_garbage() -> None:
    """Do so from here on, on the running loop, instead of Python itself."""
    gc.disable()
    _collect_all()
    _collect_new()


def _collect_new() -> None:
    gc.collect(0)
    gc.freeze()
    asyncio.get_running_loop().call_later(NEW_EVERY, _collect_new)


def _collect_all() -> None:
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    asyncio.get_running_loop().call_later(ALL_EVERY, _collect_all)
