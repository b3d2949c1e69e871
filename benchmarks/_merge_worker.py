"""A node's worker process that measures nothing: the merge benchmark excludes evaluation, which no other system does."""

from __future__ import annotations

from learnae.ids import Content
from learnae.learning import inline, worker
from learnae.protocol.measures import Evaluation


class Unmeasured(inline.InlineLearner):
    """Every model is as good as every other."""

    def evaluate(self, model: Content, *, reference: Content | None) -> Evaluation:
        return Evaluation(correct=0, total=1, gained=0, lost=0)


if __name__ == "__main__":
    setattr(inline, "InlineLearner", Unmeasured)  # noqa: B010 - what the worker takes when it is asked to open
    worker.main()
