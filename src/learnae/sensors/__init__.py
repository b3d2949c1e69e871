"""PURE: readings of sensors on their way from a device to a dataslice, and the old MAM format beside them (4.2)."""
