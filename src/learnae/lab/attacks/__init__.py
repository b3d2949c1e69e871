"""The catalogue of attacks, one class in one file each. A file that is put here is in the catalogue; nothing else has to be edited.

How to add one: docs/add-an-attack.md.
"""
