"""The reward rules that the laboratory compares, one class in one file each. A file that is put here takes part.

How to add one: docs/add-an-attack.md.
"""
