"""Plain values that every room shares.

What people build by hand (signals, instruments, capabilities) is attrs, with validation at the door; what
travels on the hot path or into the journal is a frozen msgspec struct, because construction cost counts there.
"""
