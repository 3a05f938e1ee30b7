"""What Headrace is about, free of I/O, clocks and randomness. Everything may import this package; it imports none of the others.

Times are integer milliseconds since the epoch (UTC), durations are integer milliseconds, as in the store.
"""
