"""The simulator: an event heap with a virtual clock around many `Peer`s. Same seed, same trace, on every machine.

It carries the peers' effects out as a node would: gossip with delay and loss, direct messages and fetches that fail across a
partition, transactions that take a block, training that takes time. Checkers run after every event.
"""

from __future__ import annotations

import hashlib
import heapq
from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final

from nacl.signing import SigningKey

from learnae.ids import Cid, PeerId, compute_cid
from learnae.protocol import events as ev
from learnae.protocol.calls import Call
from learnae.protocol.fund import FundError
from learnae.protocol.peer import Peer, PeerSettings
from learnae.protocol.rules import SessionRules
from learnae.protocol.sharing import decode_hashlist, encode_hashlist
from learnae.protocol.store import ControlStore
from learnae.sim.chain import BLOCK_S, SimulatedChain
from learnae.sim.checkers import Checker
from learnae.sim.codec import SharedCodec
from learnae.sim.gossip import PAGE_S, Gossip
from learnae.sim.host import Host
from learnae.sim.learner import SimulatedLearner
from learnae.sim.scenario import EPOCH_S, FUNDING_S, Scenario

FETCH_TIMEOUT_S: Final = 4.0  # A node gives up on providers that cannot be reached after about as long.
EVALUATE_SHARE: Final = 0.1  # Measuring takes this part of the time of a training step.
AFTER_S: Final = 120  # A session that is not over two minutes after its vote counts as stuck.

Observe = Callable[["World", Host, ev.Event, "list[ev.Effect]"], None]
PeerType = Callable[..., Peer]
"""Makes a peer from what `Peer` itself is made of; another one than `Peer` plays an attacker."""


def derive_key(seed: int, index: int) -> SigningKey:
    """The Ed25519 key of one peer of the world with this seed."""
    return SigningKey(hashlib.sha256(f"learnae simulation {seed} {index}".encode()).digest())


class World:
    """One simulated session."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        seed: int,
        learners: Sequence[SimulatedLearner],
        initial_model: bytes,
        observe: Observe | None = None,
        peer_types: Mapping[int, PeerType] | None = None,
    ) -> None:
        """`peer_types` are the hosts, by index, whose peer is not a `Peer`: nothing is promised of them."""
        self.scenario = scenario
        self.seed = seed
        self.rng = Random(seed)
        self.now_s = float(EPOCH_S)
        self.initial = compute_cid(initial_model)
        self.rules: SessionRules = scenario.compute_rules(initial_model=self.initial, model_bytes=len(initial_model))
        self.events = 0
        self.deliveries = 0  # vertices that gossip brought to a peer
        self.told: list[tuple[float, int, ev.Tell]] = []
        self._known = ControlStore(SharedCodec(), shared=True)
        self._heap: list[tuple[float, int, int, int, ev.Event | None]] = []  # due, order, host, incarnation; or -1, moment of gossip
        self._pushed = 0
        self._trace = hashlib.sha256()
        self._observe = observe
        self._peer_types = peer_types or {}
        self.hostile = frozenset(self._peer_types)
        self._gossip = Gossip(scenario.link, self.rng, len(learners))
        self.hosts = [self._make_host(index, learner) for index, learner in enumerate(learners)]
        self.index_of = {host.name: host.index for host in self.hosts}
        for host in self.hosts:
            host.files[self.initial] = initial_model
            host.pins.add(self.initial)
        self._connect()
        self.chain = SimulatedChain(self.rules, [host.name for host in self.hosts])
        self.checker = Checker(self)
        self._crashes = self._plan_crashes()

    # --- building -------------------------------------------------------------------------------------------

    def _make_host(self, index: int, learner: SimulatedLearner) -> Host:
        key = derive_key(self.seed, index)
        name = PeerId(bytes(key.verify_key))
        scenario = self.scenario
        settings = PeerSettings(
            reports_help=index >= scenario.silent,
            tips_budget_wei=10**18,
            pace_s=scenario.cycle_s,
            relay_gas_max=scenario.relay_gas_max,
        )

        peer_type = self._peer_types.get(index, Peer)

        def make_peer(rng: Random) -> Peer:
            return peer_type(
                rules=self.rules,
                me=name,
                sign=lambda message: key.sign(message).signature,
                rng=rng,
                settings=settings,
                store=self._known,
            )

        return Host(index, name, learner, make_peer)

    def _connect(self) -> None:
        """Random mutual connections, on average `degree` each, and a ring so that everybody is reachable."""
        count = len(self.hosts)
        pairs = [(i, (i + 1) % count) for i in range(count)] if count > 1 else []
        for _ in range((self.scenario.degree - 2) * count // 2 if count > 2 else 0):
            a, b = self.rng.sample(range(count), 2)
            pairs.append((a, b))
        for a, b in sorted({(min(pair), max(pair)) for pair in pairs}):
            self.hosts[a].neighbours.append(b)
            self.hosts[b].neighbours.append(a)

    def _plan_crashes(self) -> list[tuple[float, int, bool]]:
        """(time, host, comes back) of every crash and return, in order."""
        start_s = EPOCH_S + FUNDING_S
        plan: list[tuple[float, int, bool]] = []
        for crash in self.scenario.crashes:
            plan.append((start_s + crash.at_s, crash.peer, False))
            if crash.back_s is not None:
                plan.append((start_s + crash.back_s, crash.peer, True))
        for index in self.rng.sample(range(len(self.hosts)), int(self.scenario.churn * len(self.hosts))):
            at_s = start_s + self.rng.uniform(1, self.scenario.training_s - 12)
            plan += [(at_s, index, False), (at_s + self.rng.uniform(1, 10), index, True)]
        return sorted(plan)

    # --- running --------------------------------------------------------------------------------------------

    def run(self, *, progress: Callable[[float], None] | None = None) -> None:
        """Run until every peer that is up has finished, or the session counts as stuck."""
        for host in self.hosts:
            self._start(host)
        end_s = self.rules.voting_ends_s + AFTER_S
        tick_s = self.now_s
        plan = self._crashes
        while self._heap and self.now_s < end_s:
            due_s = self._heap[0][0]
            if plan and plan[0][0] <= min(due_s, tick_s):
                self.now_s, index, back = plan.pop(0)
                self._break_or_return(self.hosts[index], back)
                continue
            if tick_s <= due_s:
                self.now_s = tick_s
                tick_s += BLOCK_S
                if progress is not None:
                    progress((self.now_s - EPOCH_S) / (end_s - AFTER_S - EPOCH_S))
                self._read_chain()
                if all(host.finished or host.peer is None for host in self.hosts):
                    break
                continue
            self.now_s, _, index, incarnation, event = heapq.heappop(self._heap)
            if event is None:
                self._deliver_pages(incarnation)
                continue
            host = self.hosts[index]
            if host.peer is not None and host.incarnation == incarnation:
                self._deliver(host, event)

    def crash(self, index: int, *, back_after_s: float | None) -> None:
        """Kill a peer now, also while its effects are carried out; it returns after so many seconds, or never."""
        self._break_or_return(self.hosts[index], False)
        if back_after_s is not None:
            insort(self._crashes, (self.now_s + back_after_s, index, True))

    @property
    def trace(self) -> str:
        """A hash over every event and effect of the run."""
        return self._trace.hexdigest()

    def _break_or_return(self, host: Host, back: bool) -> None:
        if back:
            self._start(host)
            return
        host.crash()
        self._gossip.lose(host.index)
        for other in host.neighbours:
            self._push(self.hosts[other], self._draw_delay_s(), ev.PeerDisconnected(host.name))

    def _start(self, host: Host) -> None:
        host.peer = host.make_peer(Random(f"{self.seed} {host.index} {host.incarnation}"))
        started = ev.Started(
            facts=host.learner.open(),
            addresses=(f"/sim/{host.index}",),
            vertices=[encoded for _, encoded in host.vertices],
            records=dict(host.records),
        )
        self._deliver(host, started)
        for other in host.neighbours:
            if self.hosts[other].peer is not None:
                self._push(host, self._draw_delay_s(), ev.PeerConnected(self.hosts[other].name))
                self._push(self.hosts[other], self._draw_delay_s(), ev.PeerConnected(host.name))

    def _read_chain(self) -> None:
        view = self.chain.read(int(self.now_s))
        for host in self.hosts:
            if host.peer is not None and not host.finished:
                self._deliver(host, ev.ChainRead(view))

    def _push(self, host: Host, delay_s: float, event: ev.Event) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, (self.now_s + delay_s, self._pushed, host.index, host.incarnation, event))

    def _deliver(self, host: Host, event: ev.Event) -> None:
        assert host.peer is not None
        if isinstance(event, ev.TimerFired):
            if host.timers.get(event.timer) != self.now_s:
                return
            del host.timers[event.timer]
        self.events += 1
        incarnation = host.incarnation
        effects = host.peer.handle(event, self.now_s)
        heard = len(event.page) if isinstance(event, ev.VerticesReceived) else 1
        self._trace.update(b"%.6f %d %s %d %d\n" % (self.now_s, host.index, type(event).__name__.encode(), heard, len(effects)))
        for effect in effects:
            if type(effect) is ev.SaveVertices:
                host.vertices += effect.vertices
            elif type(effect) is not ev.PassVerdict:
                self._carry_out(host, effect)
                if host.incarnation != incarnation:
                    return  # Killed between two effects.
        self.checker.check_event(host, event, effects)
        if self._observe is not None:
            self._observe(self, host, event, effects)

    # --- carrying effects out -------------------------------------------------------------------------------

    def _carry_out(self, host: Host, effect: ev.Effect) -> None:
        match effect:
            case ev.PublishVertex(cid=cid, encoded=encoded):
                self._trace.update(cid)
                host.vertices.append((cid, encoded))
                self._publish(host, encoded)
            case ev.SaveRecord(name=name, content=content):
                if content is None:
                    host.records.pop(name, None)
                else:
                    host.records[name] = content
            case ev.SendSync(peer=peer, content=content):
                other = self.hosts[self.index_of[peer]]
                if other.peer is not None and self._reaches(host, other):
                    self._push(other, self._draw_delay_s(), ev.SyncReceived(host.name, content))
            case ev.SetTimer(timer=timer, at_s=at_s):
                host.timers[timer] = max(at_s, self.now_s)
                self._pushed += 1
                heapq.heappush(self._heap, (host.timers[timer], self._pushed, host.index, host.incarnation, ev.TimerFired(timer)))
            case ev.FetchFile():
                self._fetch(host, effect)
            case ev.PinFile(cid=cid):
                host.pins.add(cid)
            case ev.UnpinFile(cid=cid):
                host.unpin(cid)
            case ev.ShareSlices() | ev.ReadHashlist():
                self._share(host, effect)
            case ev.StoreValidation() | ev.RecountReceipt():
                self._audit(host, effect)
            case ev.OpenFile(cid=cid, peers=peers):
                host.opened.setdefault(cid, set()).update(peers)
            case ev.TrainModel() | ev.AverageModels() | ev.EvaluateModel():
                self._learn(host, effect)
            case ev.SignCall(number=number, call=call):
                self._push(host, 0.0, ev.CallSigned(number, self.chain.sign(host.name, call)))
            case ev.SubmitTransaction(number=number, call=call):
                self._submit(host, number, call)
            case ev.Tell():
                self.told.append((self.now_s, host.index, effect))
            case ev.Finish(fault=fault):
                host.finished, host.fault = True, fault
            case _:
                pass  # Verdicts and addresses: everybody reaches everybody here.

    def _publish(self, host: Host, encoded: bytes) -> None:
        others = [other for other in self.hosts if other.peer is not None and other is not host]
        if self.scenario.partitions:
            others = [other for other in others if self._reaches(host, other)]
        for moment in self._gossip.publish(host.name, encoded, others, now_s=self.now_s):
            self._pushed += 1
            heapq.heappush(self._heap, (moment * PAGE_S, self._pushed, -1, moment, None))

    def _deliver_pages(self, moment: int) -> None:
        for host, page in zip(self.hosts, self._gossip.take(moment), strict=True):
            if page and host.peer is not None:
                self.deliveries += len(page)
                self._deliver(host, ev.VerticesReceived(page))

    def _reaches(self, a: Host, b: Host) -> bool:
        at_s = self.now_s - EPOCH_S - FUNDING_S
        return not any(p.from_s <= at_s < p.to_s and a.index % p.groups != b.index % p.groups for p in self.scenario.partitions)

    def _draw_delay_s(self) -> float:
        return self.rng.uniform(self.scenario.link.delay_min_s, self.scenario.link.delay_max_s)

    def _fetch(self, host: Host, fetch: ev.FetchFile) -> None:
        content = host.files.get(fetch.cid)
        delay_s, failed_after_s = 0.0, 0.0
        for provider in () if content is not None else fetch.providers:
            other = self.hosts[self.index_of[provider]]
            if other.peer is not None and self._reaches(host, other) and other.gives(fetch.cid, host.name):
                content = other.files[fetch.cid]
                delay_s = 2 * self._draw_delay_s() + len(content) / self.scenario.link.bandwidth_bytes_s
                break
            asked = other.peer is not None and self._reaches(host, other)
            failed_after_s = max(failed_after_s, 2 * self.scenario.link.delay_max_s if asked else FETCH_TIMEOUT_S)
        if content is None:
            self._push(host, failed_after_s, ev.FetchFailed(fetch.number, "none of its providers could give it"))
        elif len(content) > fetch.bytes_max:
            self._push(host, delay_s, ev.FetchFailed(fetch.number, "larger than announced"))
        else:
            host.store(fetch.cid, content)
            if not fetch.public:
                host.opened.setdefault(fetch.cid, set())
            self._push(host, delay_s, ev.FileFetched(fetch.number))

    def _share(self, host: Host, effect: ev.ShareSlices | ev.ReadHashlist) -> None:
        if isinstance(effect, ev.ReadHashlist):
            slices = decode_hashlist(host.files[effect.hashlist], slices_max=effect.slices_max) or ()
            self._push(host, 0.0, ev.HashlistRead(effect.number, slices))
            return
        cids = [self._keep(host, host.learner.read_shared_slice(i)) for i in range(host.learner.open().shared_slices)]
        hashlist = self._keep(host, encode_hashlist(cids))
        self._push(host, 0.0, ev.SlicesShared(effect.number, hashlist, tuple(cids)))

    def _keep(self, host: Host, content: bytes) -> Cid:
        cid = compute_cid(content)
        host.store(cid, content)
        host.pins.add(cid)
        return cid

    def _learn(self, host: Host, effect: ev.TrainModel | ev.AverageModels | ev.EvaluateModel) -> None:
        """Do the work now and answer when it would be done."""
        step_s = self.scenario.cycle_s * self.rng.uniform(0.8, 1.2)
        learner, files = host.learner, host.files
        event: ev.Event
        match effect:
            case ev.TrainModel():
                slices = [files[cid] for cid in effect.slices]
                model, evaluation = learner.train(
                    files[effect.model], private_slices=effect.private_slices, slices=slices, seed=effect.seed
                )
                event = ev.ModelTrained(effect.number, self._store(host, model), len(model), evaluation)
            case ev.AverageModels():
                local, remote = files[effect.local], files[effect.remote]
                step_s *= 2 * EVALUATE_SHARE
                model, evaluation, measured = learner.average(local, remote, remote_share=effect.remote_share)
                event = ev.ModelsAveraged(effect.number, self._store(host, model), len(model), evaluation, measured)
            case ev.EvaluateModel():
                step_s *= EVALUATE_SHARE
                reference = None if effect.reference is None else files[effect.reference]
                evaluation = learner.evaluate(files[effect.model], reference=reference)
                event = ev.ModelEvaluated(effect.number, len(files[effect.model]), evaluation)
        self._push(host, step_s, event)

    def _audit(self, host: Host, effect: ev.StoreValidation | ev.RecountReceipt) -> None:
        learner, files = host.learner, host.files
        event: ev.Event
        if isinstance(effect, ev.StoreValidation):
            content, total = learner.read_validation(effect.salt)
            cid = self._keep(host, content)
            host.opened[cid] = set()
            event = ev.ValidationStored(effect.number, cid, total)
        else:
            names = (effect.before, effect.after, effect.remote, effect.validation)
            missing = next((cid for cid in names if cid not in files), None)
            if missing is not None:
                event = ev.FileLost(effect.number, missing)
            else:
                event = ev.ReceiptRecounted(effect.number, learner.recount(*(files[cid] for cid in names)))
        self._push(host, 2 * EVALUATE_SHARE * self.scenario.cycle_s, event)

    def _store(self, host: Host, model: bytes) -> Cid:
        cid = compute_cid(model)
        host.store(cid, model)
        return cid

    def _submit(self, host: Host, number: int, call: Call) -> None:
        try:
            address = self.chain.execute(host.name, call, int(self.now_s))
        except FundError as error:
            self._push(host, BLOCK_S, ev.TransactionFailed(number, error.reason, final=False))
            return
        self._push(host, BLOCK_S, ev.TransactionConfirmed(number, address))
