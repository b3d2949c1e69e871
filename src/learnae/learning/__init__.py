"""What a peer learns: tasks, models as bytes, training and averaging. The only place that imports torch.

Start with `task` (what a user brings), then `inline` (what is done with it) and `process` (the same in a worker process,
as the `Learner` port). A node imports `process` only, which needs neither torch nor numpy.
"""
