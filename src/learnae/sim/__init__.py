"""The same `Peer` on a virtual clock: a seeded network with delay, loss, partitions, crashes and rejoins."""
