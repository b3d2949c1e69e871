"""`learnae demo`: a whole session on this machine, by the same commands that a user gives, and a report of it."""

from learnae.demo.run import DemoPlan, run_demo

__all__ = ["DemoPlan", "run_demo"]
