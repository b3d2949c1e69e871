"""`python -m learnae` is the command `learnae`."""

from learnae.cli import run_program

run_program()
