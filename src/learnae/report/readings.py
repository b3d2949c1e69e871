"""What stands below each plot, in plain words: what one sees, and which section of the paper it is. `**...**` is set in bold."""

from __future__ import annotations

from learnae.report.markup import Markup, tag

ACCURACY = (
    "Thin lines are peers, thick ones medians of the honest peers. Every peer trains on its own data and, at random turns, averages "
    "its model with one that another peer announced; it keeps the average only if its own examples say so (**section 4.1**). The "
    "vertical scale is stretched towards 100 %: equal steps remove equal shares of the remaining errors. Pooled training is what one "
    "machine would reach that was given everybody's data, which is just what peers do not have to give."
)
ADOPTIONS = (
    "A ribbon starts wide at the helper, in the helper's colour, and ends in a point at the peer that became better by averaging with "
    "the helper's model; its width is the accuracy gained in total. Dots grow with the help given. There is no global model and no "
    "round: everybody averages with whom it likes, when it likes (**sections 4.1 and 7.3**)."
)
LEDGER = (
    "Each row is one peer's signed Shared Contribution Vector: the credits it owes to every helper, added up over its real "
    "improvements (**section 6, figures 3 and 4**). All rows together are the ledger that members vote by. A column is what the swarm "
    "as a whole says of one helper, so a row that is missing takes little away from anybody."
)
BALANCES = (
    "Bars go up or down from the deposit. Under direct tips (**section 4.3, equation 1**) a peer that reports nothing pays nothing and "
    "only gains. The DAO divides the fund by what the whole swarm reports of each peer (**section 6**): what a peer gets no longer hangs "
    "on whom it happened to help, nor on what it says itself. This is the correction of figures 7 and 9."
)
TABLE = (
    "Accuracies are measured on the held-out test set; the bottom row gives medians of the honest peers, and sums. Help is counted in "
    "credits, integers computed from counts of right answers before and after an averaging (**equation 1**)."
)


def set_reading(words: str) -> Markup:
    """A paragraph; every second piece between double stars is bold. Foreign text in it is escaped like any other."""
    pieces = words.split("**")
    return tag("p", *[tag("strong", piece) if index % 2 else piece for index, piece in enumerate(pieces)], class_="reading")
