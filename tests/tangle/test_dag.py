"""The DAG of one lane: grows only, orders by parents, finds gaps and forks, and stays bounded."""

from __future__ import annotations

from random import Random

from learnae.tangle.dag import BRANCH_VERTICES_MAX, TIPS_AGE_MAX_MS, TIPS_CHOSEN, Fork, OrphanPool, TangleDag
from learnae.tangle.vertex import Vertex
from tests.protocol.builders import ALICE, BOB, CAROL, NET, NOW_MS, Author, announce, make_cid


def grow(dag: TangleDag, author: Author, count: int) -> list[Vertex]:
    vertices = [author.write(announce(f"{author.name} {number}")) for number in range(count)]
    for vertex in vertices:
        dag.insert(vertex)
    return vertices


def test_insert__is_idempotent_and_counts_without_gaps() -> None:
    """Protocol, sync: the have-vector is issuer -> highest sequence without a gap."""
    dag, alice = TangleDag(NET), Author("alice")
    vertices = grow(dag, alice, 3)

    assert dag.insert(vertices[1]).entry is None
    assert dag.have_vector() == {ALICE: 3}
    assert len(dag) == 3
    assert dag.head(ALICE) == vertices[2]
    assert list(dag.chain(ALICE)) == vertices


def test_fork__cuts_the_chain_at_the_common_prefix() -> None:
    """Protocol: an issuer with a fork proof against it is frozen at the common prefix; the earliest fork counts."""
    dag, alice = TangleDag(NET), Author("alice")
    first, second, third = grow(dag, alice, 3)
    late = dag.insert(alice.write(announce("rival of third"), previous=second))
    assert late.fork is not None and late.fork.sequence == 3
    assert list(dag.chain(ALICE)) == [first, second]

    early = dag.insert(alice.write(announce("rival of second"), previous=first))

    assert early.fork is not None and early.fork.sequence == 2
    assert list(dag.chain(ALICE)) == [first]
    assert dag.is_branch(second) and dag.is_branch(third) and not dag.is_branch(first)
    assert not dag.prove_fork(Fork(ALICE, 3, second.compute_statement(), third.compute_statement()))
    assert dag.fork(ALICE) == early.fork


def test_fork__of_the_first_vertex_leaves_nothing() -> None:
    dag, alice = TangleDag(NET), Author("alice")
    (first,) = grow(dag, alice, 1)
    rival = Author("alice").write(announce("rival"))

    dag.insert(rival)

    assert list(dag.chain(ALICE)) == []
    assert dag.first_ms(ALICE) is None
    assert dag.get(first.cid) == first and dag.get(rival.cid) == rival


def test_branches__are_kept_up_to_a_bound() -> None:
    """Threats: a forker costs bounded memory, whatever it signs."""
    dag, alice = TangleDag(NET), Author("alice")
    grow(dag, alice, 1)
    dag._branches[dag.store.place(ALICE)] = set(range(-BRANCH_VERTICES_MAX + 1, 0))

    kept = dag.insert(Author("alice").write(announce("rival 1")))
    refused = dag.insert(Author("alice").write(announce("rival 2")))

    assert kept.entry is not None and refused.entry is None
    assert refused.fork is None
    assert len(dag) == 2


def test_lacking__gives_parents_first_in_pages() -> None:
    """Protocol, sync: page what the other lacks, parents first; the oldest page comes first."""
    dag, alice, bob = TangleDag(NET), Author("alice"), Author("bob")
    order: list[Vertex] = []
    for number in range(6):
        for author in (alice, bob):
            others = [author_.log[-1] for author_ in (alice, bob) if author_ is not author and author_.log]
            vertex = author.write(announce(f"{author.name} {number}"), parents=others, time_ms=NOW_MS + len(order))
            dag.insert(vertex)
            order.append(vertex)

    assert dag.lacking({}, vertices_max=100) == order
    assert dag.lacking({}, vertices_max=5) == order[:5]
    assert dag.lacking({ALICE: 6, BOB: 4}, vertices_max=100) == bob.log[4:]
    assert dag.lacking({ALICE: 9, BOB: 9, CAROL: 3}, vertices_max=100) == []


def test_lacking__of_a_forker_is_only_the_common_prefix() -> None:
    """What others ignore must not fill the pages: a forker with a long log would stop everybody's sync."""
    dag, alice, bob = TangleDag(NET), Author("alice"), Author("bob")
    grow(dag, alice, 300)
    dag.insert(alice.write(announce("rival"), previous=alice.log[1]))
    after = grow(dag, bob, 1)

    assert dag.lacking({}, vertices_max=10) == [*alice.log[:2], *after]


def test_ancestry__walks_one_issuers_branch() -> None:
    dag, alice = TangleDag(NET), Author("alice")
    vertices = grow(dag, alice, 5)

    assert [entry.vertex for entry in dag.ancestry(vertices[4].cid, vertices_max=3)] == vertices[:1:-1]
    assert list(dag.ancestry(make_cid("unknown"), vertices_max=3)) == []


def test_parents__are_own_head_and_recent_tips_of_issuers_that_did_not_fork() -> None:
    """Protocol: the issuer's previous vertex first, and up to three recent tips of others, none old, forked or from the future."""
    dag = TangleDag(NET)
    authors = {name: Author(name) for name in ("alice", "bob", "carol", "dave", "erin", "mallory", "frank", "grace")}
    now_ms = NOW_MS + TIPS_AGE_MAX_MS + 50_000
    for name, author in authors.items():
        age_ms = {"dave": TIPS_AGE_MAX_MS + 1, "erin": -1}.get(name, 1000)
        dag.insert(author.write(announce(name), time_ms=now_ms - age_ms))
    dag.insert(Author("mallory").write(announce("rival"), time_ms=now_ms - 1000))
    good = {authors[name].log[-1].cid for name in ("bob", "carol", "frank", "grace")}

    drawn = [dag.choose_parents(ALICE, now_ms=now_ms, rng=Random(seed)) for seed in range(30)]

    assert all(parents[0] == authors["alice"].log[-1].cid for parents in drawn)
    assert all(len(parents) == 1 + TIPS_CHOSEN and set(parents[1:]) <= good for parents in drawn)
    assert set().union(*(parents[1:] for parents in drawn)) == good
    assert TangleDag(NET).choose_parents(ALICE, now_ms=0, rng=Random(0)) == (dag.genesis,)


def test_tips__are_at_most_one_per_issuer() -> None:
    """Nothing unbounded: a vertex takes its predecessor off the tips."""
    dag, alice, bob = TangleDag(NET), Author("alice"), Author("bob")
    grow(dag, alice, 20)
    grow(dag, bob, 20)

    assert set(dag.tips) == {alice.log[-1].cid, bob.log[-1].cid}


# --- orphans ------------------------------------------------------------------------------------------------------


def test_orphans__are_released_when_the_last_missing_one_comes() -> None:
    pool, author = OrphanPool(), Author("alice")
    vertex = author.write(announce())
    one, two = make_cid("one"), make_cid("two")
    pool.add(vertex, [one, two])

    assert pool.missing(cids_max=10) == [one, two] and pool.is_needed(one)
    assert pool.release(one) == []
    assert pool.release(two) == [vertex]
    assert len(pool) == 0 and pool.used_bytes == 0 and not pool.is_needed(two)


def test_orphans__one_issuer_gets_only_its_share() -> None:
    """Limits: one issuer cannot push out the others."""
    author, other = Author("alice"), Author("bob")
    first, second, bobs = author.write(announce("1")), author.write(announce("2")), other.write(announce("3"))
    pool = OrphanPool(bytes_per_issuer_max=len(first.encoded) + len(second.encoded) - 1)

    assert pool.add(first, [make_cid("x")])
    assert not pool.add(second, [make_cid("x")])
    assert pool.add(bobs, [make_cid("x")])
    assert first.cid in pool and second.cid not in pool


def test_orphans__the_oldest_make_room_in_total() -> None:
    """Limits: the pool is bounded in total."""
    vertices = [Author(name).write(announce(name)) for name in ("alice", "bob", "carol")]
    pool = OrphanPool(bytes_max=len(vertices[0].encoded) * 2 + 10)
    for vertex in vertices:
        assert pool.add(vertex, [make_cid("x")])

    assert [vertex.cid in pool for vertex in vertices] == [False, True, True]
    assert pool.used_bytes <= len(vertices[0].encoded) * 2 + 10


def test_orphans__expire_by_their_own_time() -> None:
    author = Author("alice")
    pool = OrphanPool()
    for number in range(4):
        pool.add(author.write(announce(str(number)), time_ms=NOW_MS + number), [make_cid("never")])

    assert pool.expire(before_ms=NOW_MS + 2) == 2
    assert len(pool) == 2
    assert pool.expire(before_ms=NOW_MS + 10) == 2
    assert pool.missing(cids_max=10) == [] and pool.used_bytes == 0


def test_missing__every_issuers_orphans_get_an_equal_share() -> None:
    """One issuer that names what does not exist must not fill every question."""
    pool, mallory, bob = OrphanPool(), Author("mallory"), Author("bob")
    for number in range(20):
        pool.add(mallory.write(announce(str(number))), [make_cid(f"no {number} {i}") for i in range(8)])
    pool.add(bob.write(announce()), [make_cid("real")])

    asked = pool.missing(cids_max=16)

    assert make_cid("real") in asked and len(asked) <= 16
