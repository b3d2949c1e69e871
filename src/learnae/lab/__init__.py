"""Experiments on the ledger: the paper's own (section 7), with the reward code that a node uses."""
