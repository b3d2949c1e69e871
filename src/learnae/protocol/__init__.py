"""PURE: the paper's peer. Events in, effects out; no I/O, no clock, no threads, randomness only as it is given."""
