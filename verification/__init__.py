"""Checks of the contracts with tools that are made for them: forge, halmos, slither, and faults that are put in on purpose.

`python -m verification` lists what can be run. docs/verification.md says what was checked, with what result.
"""
