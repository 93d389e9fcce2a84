"""The runner for GPUs: fixed buffers, CUDA graphs by size, and results read one step behind. Unmeasured.

Why a step behind
    Whether a search is over is known on the device only. Instead of waiting for it, the next step is planned and
    launched, and then the flags of the step before it are read, which have arrived meanwhile: `execute(n + 1)` reports
    what ended in step n. A sequence that has ended takes part in one further step, in which nothing of it changes.
    The scheduler need not know: for it, such a sequence grew by one more position. Two cases are settled at once. A
    search that must end because of `max_length` (the host can count) is waited for in the same call, for the scheduler
    gives it no further position. Before a preemption the flags are read first; a sequence that had ended by then is
    reported when it starts again.
What a step consists of
    Sources of sequences that start (their own graph, by size); the decoder positions that a resumed one lost; then one
    graph for everything else: embedding, layers, projection, search. A new sequence computes `</s>` and the language
    code in its first step, as two rows of lane 0, which is all that its lanes have in common by then.
On other devices the same code runs without graphs, which is how it is tested.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from nllbd.engine.device_batch import BatchSize, DeviceBatch, Placed
from nllbd.engine.flight import START_LENGTH, Arrangement, Flight, Live, Suspended
from nllbd.engine.graphs import GraphPool
from nllbd.engine.search import advance_fixed, make_finished
from nllbd.engine.sources import SourceBuffers, bucket
from nllbd.model.decoder import KVCache
from nllbd.model.nllb import NllbModel
from nllbd.model.paged import Kernels, PagedNetwork
from nllbd.sched.plan import FatalRunnerError, FinishedSequence, StartedSequence, StepPlan, StepResult
from nllbd.sched.sequence import Hypothesis, SequenceRequest

SPLIT_FROM = 192  # positions; longer histories are divided over programs while rows are few
SPLITS, SPLIT_ROWS = 8, 64
FUSED_ROWS = 16  # up to here the kernels for few rows, unless `warm_up` measured
WARM_ROWS = (1, 2, 4, 8, 16, 32, 64)
WARM_REPEATS = 20


@dataclass(frozen=True, slots=True)
class StepShape:
    """What a graph is recorded for."""

    num_rows: int
    num_lanes: int
    splits: int
    fused: bool


class GpuRunner:
    """Fulfils `nllbd.sched.plan.Runner`; see the module's docstring.

    Args:
        num_blocks, block_size: the KV pool.
        max_num_lanes, max_num_beams: what the scheduler keeps to.
        max_positions: longest hypothesis and longest source, the model's own limit if not given.
        kernels: those of the device if not given.

    Raises ConfigError where the model's precision or the device has no kernels.
    """

    def __init__(
        self,
        model: NllbModel,
        num_blocks: int,
        block_size: int,
        *,
        max_num_lanes: int,
        max_num_beams: int,
        max_positions: int | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        self.device, self._block_size = model.device, block_size
        self._max_positions = min(max_positions or model.config.max_positions, model.config.max_positions)
        self._max_num_beams = max_num_beams
        self.cache = KVCache(model.config, num_blocks * block_size, model.kv_dtype, model.device)
        self.network = PagedNetwork(model, self.cache, kernels)
        # the references wait for the device, which cannot be recorded
        self.graphs = GraphPool(model.device, enabled=self.network.kernels.name == "triton")
        self.fused_rows = FUSED_ROWS
        self.warm_up_ms: dict[tuple[int, bool], float] = {}  # by rows, and whether by the kernels for few rows
        self.last_shape: StepShape | None = None
        self._sources = SourceBuffers(model.device)
        self._batch = DeviceBatch(model.device, self._batch_size(max_num_lanes), block_size)
        is_cuda = model.device.type == "cuda"
        self._flags = [torch.zeros(max_num_lanes, dtype=torch.bool, pin_memory=is_cuda) for _ in range(2)]
        self._side = torch.cuda.Stream(model.device) if is_cuda else None  # type: ignore[no-untyped-call]
        self.reset()

    def _batch_size(self, max_num_lanes: int) -> BatchSize:
        positions = self._max_positions + 1
        return BatchSize(
            sequences=max_num_lanes,
            lanes=1 << (self._max_num_beams - 1).bit_length(),
            positions=positions,
            self_blocks=-(-positions * self._max_num_beams // self._block_size),
            cross_blocks=-(-self._max_positions // self._block_size),
            rows=bucket(2 * max_num_lanes),
        )

    def reset(self) -> None:
        """Forget every sequence and all search state."""
        self.live: dict[int, Live] = {}
        self.suspended: dict[int, Suspended] = {}
        self._free = list(range(self._batch.size.sequences))  # a heap: low slots first
        self._flight: Flight | None = None
        self._arrangement: Arrangement | None = None
        self.launches = 0
        self._batch.clear()

    @torch.inference_mode()
    def execute(self, plan: StepPlan) -> StepResult:
        """One step. Raises FatalRunnerError when the device is lost; after anything else the caller resets."""
        try:
            return self._execute(plan)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # PyTorch, its libraries and Triton each have their own words but this one
            if "CUDA" not in str(error):
                raise
            raise FatalRunnerError(f"the GPU failed: {error}") from error

    def _execute(self, plan: StepPlan) -> StepResult:
        begin = time.perf_counter()
        finished = self._settle(plan) if plan.preempted else []
        self._leave(plan)
        immediate, failed = self._start(plan.started)
        encoded = time.perf_counter()
        for seq_id, blocks in plan.grown:
            if seq_id in self.live:
                self._grow(self.live[seq_id], blocks)
        previous, self._flight = self._flight, self._launch() if self.live else None
        finished += self._land(previous)
        if self._flight is not None and self._flight.must_land:
            flight, self._flight = self._flight, None
            finished += self._land(flight)
        return StepResult(
            step=plan.step,
            finished=(*immediate, *finished),
            failed=tuple(failed),
            encode_s=encoded - begin if plan.started else 0.0,
            decode_s=time.perf_counter() - encoded,
        )

    def warm_up(self) -> None:
        """Compile and record what is common, and measure up to how many rows the kernels for few rows are the faster.

        Only while nothing runs: rows are empty then, but weights are read all the same.
        """
        assert not self.live
        sizes = [rows for rows in WARM_ROWS if rows <= self._batch.size.rows]
        self.warm_up_ms = {
            (rows, fused): self.time_step_ms(StepShape(rows, 1, 1, fused), WARM_REPEATS)
            for rows in sizes
            for fused in (False, True)
        }
        self.fused_rows = 0
        for rows in sizes:
            if self.warm_up_ms[rows, True] >= self.warm_up_ms[rows, False]:
                break
            self.fused_rows = rows
        widths = [2**power for power in range(1, self._batch.size.lanes.bit_length())]
        others = [StepShape(1, width, 1, self.fused_rows > 0) for width in widths]
        others += [StepShape(1, 1, SPLITS, self.fused_rows > 0), StepShape(self._batch.size.rows, 1, 1, False)]
        for shape in others:
            self.time_step_ms(shape, 1)
        self._warm_up_encoder()

    @torch.inference_mode()
    def _warm_up_encoder(self) -> None:
        count, packed = self._sources.fill([(self.network.config.eos_id,)], [-1])  # -1: its KV is not kept
        for _ in range(2):
            self.graphs.run(("encode", count), partial(self.network.encode, packed))

    @torch.inference_mode()
    def time_step_ms(self, shape: StepShape, times: int) -> float:
        """Milliseconds of the device for a launch of this shape, the mean of `times`.

        Moves searches on behind the scheduler's back: whatever runs must be aborted afterwards.
        """
        self._batch.flush()
        for _ in range(2):
            self.graphs.run(shape, partial(self._step, shape))
        return self.graphs.time_ms(shape, partial(self._step, shape), times)

    # Sequences come and go

    def _settle(self, plan: StepPlan) -> list[FinishedSequence]:
        """Before a preemption, read what the last launch ended; returns what is to be reported now."""
        flight, self._flight = self._flight, None
        ended = {item.seq_id: item for item in self._land(flight)}
        for seq_id in plan.preempted:
            if seq_id in ended:
                self.suspended[seq_id] = Suspended(finished=ended.pop(seq_id))
        return [item for item in ended.values() if item.seq_id not in plan.released]

    def _leave(self, plan: StepPlan) -> None:
        for seq_id in plan.preempted:
            if (live := self.live.get(seq_id)) is not None:
                length = live.length(self.launches)
                self.suspended[seq_id] = Suspended(self._batch.save(live.slot, live.request.params.num_beams, length))
                self._forget(live)
        for seq_id in plan.released:
            self.suspended.pop(seq_id, None)
            if (live := self.live.get(seq_id)) is not None:
                self._forget(live)

    def _forget(self, live: Live) -> None:
        del self.live[live.seq_id]
        self._batch.free(live.slot)
        heapq.heappush(self._free, live.slot)
        self._arrangement = None

    def _start(self, started: Sequence[StartedSequence]) -> tuple[list[FinishedSequence], list[tuple[int, str]]]:
        """Returns what is over before its first step, and what cannot be served, with the reason."""
        immediate: list[FinishedSequence] = []
        failed: list[tuple[int, str]] = []
        items: list[StartedSequence] = []
        for item in started:
            seq_id = item.request.seq_id
            kept = self.suspended.get(seq_id)
            if kept is not None and kept.finished is not None:
                immediate.append(kept.finished)
                del self.suspended[seq_id]
            elif item.request.params.max_length <= START_LENGTH:
                only = Hypothesis((item.request.target_id,), 0.0)
                immediate.append(FinishedSequence(seq_id, (only,), truncated=True))
            elif (reason := self._misfit(item.request)) is not None:
                failed.append((seq_id, reason))
            else:
                items.append(item)
        if items:
            self._place(items)
            self._encode(items)
            self._resume([item for item in items if item.resumed])
        return immediate, failed

    def _misfit(self, request: SequenceRequest) -> str | None:
        """Why a sequence does not fit the fixed buffers, if it does not."""
        params, limit = request.params, self._max_positions
        if params.max_length > limit:
            return f"max_length is {params.max_length}; this model has {limit} positions"
        if len(request.source_ids) > limit:
            return f"the source has {len(request.source_ids)} tokens; this model has {limit} positions"
        if params.num_beams > self._max_num_beams:
            return f"num_beams is {params.num_beams}; at most {self._max_num_beams} are served"
        ids, vocabulary = (request.target_id, *request.source_ids), self.network.config.vocab_size
        if min(ids) < 0 or max(ids) >= vocabulary:  # on a GPU this would end the process, not the sequence
            bad = next(token for token in ids if not 0 <= token < vocabulary)
            return f"token id {bad} is outside the model's vocabulary of {vocabulary}"
        return None

    def _place(self, items: Sequence[StartedSequence]) -> None:
        slots = [heapq.heappop(self._free) for _ in items]
        requests = [item.request for item in items]
        self._batch.start(slots, requests, self.network.config.decoder_start_id)
        for slot, item in zip(slots, items, strict=True):
            live = Live(item.request, slot, first_launch=self.launches)
            self.live[live.seq_id] = live
            self._batch.set_cross_blocks(slot, item.cross_blocks)
            self._grow(live, item.self_blocks)
        self._arrangement = None

    def _grow(self, live: Live, blocks: Sequence[int]) -> None:
        self._batch.add_self_blocks(live.slot, live.num_blocks, blocks)
        live.num_blocks += len(blocks)

    def _encode(self, items: Sequence[StartedSequence]) -> None:
        size = self._block_size
        slots = [
            item.cross_blocks[i // size] * size + i % size
            for item in items
            for i in range(len(item.request.source_ids))
        ]
        count, packed = self._sources.fill([item.request.source_ids for item in items], slots)
        self.graphs.run(("encode", count), partial(self.network.encode, packed))

    def _resume(self, items: Sequence[StartedSequence]) -> None:
        """Restore the search of preempted sequences and compute the KV they lost, outside the graphs."""
        for item in items:
            live = self.live[item.request.seq_id]
            saved = self.suspended.pop(live.seq_id).saved
            live.first_launch -= int(saved["length"]) - START_LENGTH
            live.fresh = False
            ancestor = self._batch.restore(live.slot, saved)
            self._batch.flush()
            self.network.decode(self._batch.prefill_rows(live.slot, ancestor), 2)

    # A step

    def _launch(self) -> Flight:
        now = self._arrangement = self._arrangement or self._arrange()
        self._batch.flush()
        shape = self.last_shape = self._shape(now)
        self.graphs.run(shape, partial(self._step, shape))
        must_land = self.launches >= now.first_end
        self.launches += 1
        over = self._flags[self.launches % 2]
        over.copy_(self._batch.columns["over"], non_blocking=True)
        arrived = None
        if self._side is not None:
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        if now.has_fresh:
            for live in now.by_slot.values():
                live.fresh = False
            self._arrangement = None
        return Flight(now.by_slot, over, arrived, must_land)

    def _arrange(self) -> Arrangement:
        by_slot = {live.slot: live for live in sorted(self.live.values(), key=lambda live: live.slot)}
        placed = [Placed(slot, live.request.params.num_beams, live.fresh) for slot, live in by_slot.items()]
        return Arrangement.of(by_slot, self._batch.arrange(placed))

    def _shape(self, now: Arrangement) -> StepShape:
        num_rows = bucket(now.num_rows)
        is_long = num_rows <= SPLIT_ROWS and now.longest(self.launches) >= SPLIT_FROM
        return StepShape(num_rows, self._batch.num_lanes, SPLITS if is_long else 1, num_rows <= self.fused_rows)

    def _step(self, shape: StepShape) -> None:
        """What a graph records: from the rows as they lie on the device to the next tokens and the flags."""
        batch, network = self._batch, self.network
        rows = batch.rows(shape.num_rows, shape.num_lanes, shape.splits)
        log_probs, ids = network.decode(rows, 2 * shape.num_lanes, fused=shape.fused)
        eos_id = network.config.eos_id
        if network.kernels.beam_step is not None:
            network.kernels.beam_step(batch.columns, log_probs, ids, batch.lane_source, shape.num_lanes, eos_id)
        else:
            batch.num_lanes = shape.num_lanes  # as arranged, except in a warm-up
            source = batch.lane_source[: len(batch), : shape.num_lanes]
            advance_fixed(batch, log_probs[source], ids[source], eos_id)

    def _land(self, flight: Flight | None) -> list[FinishedSequence]:
        """Read a launch's flags; returns and forgets what it ended."""
        if flight is None:
            return []
        done = [live for live in flight.wait() if self.live.get(live.seq_id) is live]
        if not done:
            return []
        with torch.cuda.stream(self._side):  # beside the launch that is under way; does nothing on other devices
            length = max(live.length(self.launches) for live in done)
            lanes = max(live.request.params.num_beams for live in done)
            table = self._batch.read_finished([live.slot for live in done], lanes, length)
        finished = []
        for live, lines in zip(done, table, strict=True):
            scores = lines[:, 0].view(torch.float64).tolist()
            eos_id = self.network.config.eos_id
            finished.append(make_finished(live.request, scores, lines[:, 1].tolist(), lines[:, 2:], eos_id))
            self._forget(live)
        return finished
