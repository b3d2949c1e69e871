"""A learner without learning: models of 20 bytes in which training and averaging help or hurt as they do in real networks.

A model is 8 *skills*, each a whole number of 0 to 65,535. Every validation example tests one
skill and is right if the skill exceeds its difficulty. What real training shows, and how it is kept here:

* training raises the skills that the peer's own data cover, towards a ceiling that more data raise, and with noise: it can hurt;
* skills that the data do not cover fade a little, so a peer alone ends below the swarm;
* averaging takes the weighted mean of two models, which averages their noise out and brings in what the other one can, but loses
  in proportion to how far apart the two are (networks that drifted apart do not average well): it can hurt.

Pure integers: the same seed gives the same bytes on every machine, about 20 microseconds a call. Needs neither torch nor numpy.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from learnae.errors import ModelRejectedError, SliceRejectedError
from learnae.protocol.measures import Evaluation, Recount, TaskFacts

SKILLS: Final = 8
SKILL_MAX: Final = 65_535
MODEL_BYTES: Final = 4 + 2 * SKILLS
MAGIC: Final = b"SYN1"
SALT_BYTES: Final = 16
SLICE_BYTES: Final = 12  # magic, skill, number
INITIAL_SKILL: Final = 6_500  # A guess among ten classes.
PACE: Final = 4  # A training cycle closes about a quarter of the gap to the ceiling.
FADING_PERMILLE: Final = 4
NOISE: Final = 4_000  # Largest change of one skill by chance in a training cycle.
DISAGREEMENT_PERMILLE: Final = 120  # Of the distance between two skills, lost in the middle between them.
LEARNERS_MAX: Final = 100_000  # Of one run: seeds of two runs never meet.
COUNTED_MAX: Final = 16  # Measurements that a learner remembers: its own model is measured again with every rival.
_LAYOUT: Final = struct.Struct(f"<4s{SKILLS}H")
_MASK: Final = (1 << 64) - 1

Skills = tuple[int, ...]


def encode_skills(skills: Sequence[int]) -> bytes:
    return _LAYOUT.pack(MAGIC, *skills)


def decode_skills(model: bytes) -> Skills:
    """Raises: ModelRejectedError: not a synthetic model."""
    if len(model) != MODEL_BYTES or model[:4] != MAGIC:
        raise ModelRejectedError(f"it has {len(model)} bytes that are no synthetic model of {MODEL_BYTES}")
    skills: Skills = _LAYOUT.unpack(model)[1:]
    return skills


def train_skills(skills: Skills, coverage: Sequence[int], seed: int) -> Skills:
    """One training cycle. `coverage` says for every skill how many examples the data have of it."""
    state = (seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & _MASK
    trained = []
    for skill, examples in zip(skills, coverage, strict=True):
        state = (state * 6364136223846793005 + 1442695040888963407) & _MASK
        noise = (state >> 33) % (2 * NOISE + 1) - NOISE
        if examples:
            ceiling = SKILL_MAX - SKILL_MAX // (2 + examples // 8)
            skill += (ceiling - skill) // PACE + noise
        else:
            skill -= skill * FADING_PERMILLE // 1000
        trained.append(min(max(skill, 0), SKILL_MAX))
    return tuple(trained)


def average_skills(local: Skills, remote: Skills, remote_share: float) -> Skills:
    """The mean, less what is lost by disagreement: most in the middle, nothing at a share of 0 or 1."""
    share = round(remote_share * 1000)
    lost = DISAGREEMENT_PERMILLE * 4 * share * (1000 - share) // 1_000_000
    return tuple(
        max(0, (ours * (1000 - share) + theirs * share - abs(ours - theirs) * lost) // 1000)
        for ours, theirs in zip(local, remote, strict=True)
    )


class SyntheticLearner:
    """One peer's view: its own data cover some skills more than others, its validation set tests all of them.

    `seed` decides data and validation set; `examples` is how much data it has.
    """

    def __init__(self, seed: int, *, examples: int = 200, slices: int = 8, shared_slices: int = 0, validation: int = 96) -> None:
        self._coverage = _deal(seed, examples)
        self._slices, self._shared = slices, shared_slices
        self._examples, self._seed = examples, seed
        self._difficulties = _draw_difficulties(seed, validation // SKILLS)
        self._validation = validation // SKILLS * SKILLS
        self._counted: dict[bytes, list[int]] = {}

    def open(self) -> TaskFacts:
        return TaskFacts(
            train_examples=self._examples,
            validation_examples=self._validation,
            device="none",
            parameters=SKILLS,
            model_bytes=MODEL_BYTES,
            private_slices=self._slices - self._shared,
            shared_slices=self._shared,
        )

    def initial_model(self, seed: int) -> bytes:
        return encode_skills(train_skills((INITIAL_SKILL,) * SKILLS, (0,) * SKILLS, seed))

    def set_initial(self, model: bytes) -> None:
        return None  # Its models are a few bytes and travel as they are, whatever the codec.

    def read_shared_slice(self, index: int) -> bytes:
        if not 0 <= index < self._shared:
            raise IndexError(f"slice {index} is not one of the {self._shared} that are shared")
        best = max(range(SKILLS), key=lambda skill: self._coverage[(skill + index) % SKILLS])
        return struct.pack("<4sII", MAGIC, (best + index) % SKILLS, self._seed * self._slices + index & 0xFFFF_FFFF)

    def evaluate(self, model: bytes, *, reference: bytes | None) -> Evaluation:
        ours = self._count(model)
        theirs = ours if reference is None else self._count(reference)
        gained = sum(a - b for a, b in zip(ours, theirs, strict=True) if a > b)
        lost = sum(b - a for a, b in zip(ours, theirs, strict=True) if b > a)
        return Evaluation(correct=sum(ours), total=self._validation, gained=gained, lost=lost)

    def train(self, model: bytes, *, private_slices: Sequence[int], slices: Sequence[bytes], seed: int) -> tuple[bytes, Evaluation]:
        coverage = [0] * SKILLS
        if private_slices:
            for skill, examples in enumerate(self._coverage):
                coverage[skill] = examples * min(len(private_slices), self._slices) // self._slices
        for content in slices:
            coverage[_read_slice(content)] += self._examples // self._slices
        trained = encode_skills(train_skills(decode_skills(model), coverage, seed))
        return trained, self.evaluate(trained, reference=model)

    def average(self, local: bytes, remote: bytes, *, remote_share: float) -> tuple[bytes, Evaluation, Evaluation]:
        average = encode_skills(average_skills(decode_skills(local), decode_skills(remote), remote_share))
        return average, self.evaluate(average, reference=local), self.evaluate(remote, reference=local)

    def read_validation(self, salt: bytes) -> tuple[bytes, int]:
        """The difficulties of the own validation examples, for auditors."""
        numbers = [difficulty for skill in self._difficulties for difficulty in skill]
        return MAGIC + salt + struct.pack(f"<{len(numbers)}H", *numbers), self._validation

    def recount(self, before: bytes, after: bytes, remote: bytes, validation: bytes) -> Recount:
        """Count right answers again on another's difficulties. Raises: ModelRejectedError, SliceRejectedError."""
        difficulties = _read_validation(validation)
        old, new, theirs = (decode_skills(model) for model in (before, after, remote))
        counts = [sum(map(bisect_left, difficulties, skills)) for skills in (old, new)]
        derives = new == theirs or any(average_skills(old, theirs, share / 1000) == new for share in range(1, 1001))
        total = sum(map(len, difficulties))
        return Recount(correct_before=counts[0], correct_after=counts[1], total=total, derives=derives)

    def close(self) -> None:
        return None

    def _count(self, model: bytes) -> list[int]:
        """Right answers per skill: the examples that are easier than the skill is high."""
        counts = self._counted.get(model)
        if counts is None:
            counts = list(map(bisect_left, self._difficulties, decode_skills(model)))
            if len(self._counted) >= COUNTED_MAX:
                self._counted.clear()
            self._counted[model] = counts
        return counts


def make_learners(seed: int, peers: int, *, shared_slices: int = 0) -> list[SyntheticLearner]:
    """The learners of a simulated run: other seeds give other data to everybody."""
    return [SyntheticLearner(seed * LEARNERS_MAX + index, shared_slices=shared_slices) for index in range(peers)]


def _read_slice(content: bytes) -> int:
    if len(content) != SLICE_BYTES or content[:4] != MAGIC or content[4] >= SKILLS:
        raise SliceRejectedError(f"it has {len(content)} bytes that are no synthetic slice of {SLICE_BYTES}")
    return content[4]


def _read_validation(content: bytes) -> list[list[int]]:
    """Sorted difficulties per skill. Raises: SliceRejectedError."""
    body = content[len(MAGIC) + SALT_BYTES :]
    per_skill, rest = divmod(len(body), 2 * SKILLS)
    if not content.startswith(MAGIC) or rest or not per_skill:
        raise SliceRejectedError(f"it has {len(content)} bytes that are no synthetic validation examples")
    numbers = struct.unpack(f"<{SKILLS * per_skill}H", body)
    return [sorted(numbers[skill * per_skill : (skill + 1) * per_skill]) for skill in range(SKILLS)]


def _deal(seed: int, examples: int) -> Skills:
    """How many examples of each skill a peer has: unequal, two of eight skills missing, the same for the same seed."""
    weights = [byte + 64 for byte in hashlib.sha256(b"coverage %d" % seed).digest()[:SKILLS]]
    for missing in (seed % SKILLS, (seed // SKILLS + seed + 3) % SKILLS):
        weights[missing] = 0
    return tuple(examples * weight // sum(weights) for weight in weights)


@lru_cache(maxsize=1024)
def _draw_difficulties(seed: int, per_skill: int) -> tuple[tuple[int, ...], ...]:
    """Sorted difficulties of the examples that test each skill, drawn from 0 to SKILL_MAX."""
    stream = hashlib.shake_256(b"validation %d" % seed).digest(2 * SKILLS * per_skill)
    numbers = struct.unpack(f"<{SKILLS * per_skill}H", stream)
    return tuple(tuple(sorted(numbers[skill::SKILLS])) for skill in range(SKILLS))
