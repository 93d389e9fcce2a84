"""Executes step plans on a model: encode what starts, decode one token for every lane, advance the search.

Knows tensors and the plan's slot arithmetic; knows nothing of queues, deadlines or fairness.
"""

from __future__ import annotations

import time

import torch

from nllbd.engine.batch import Batch, SavedRow
from nllbd.engine.rows import Layout, decode_layout, decoder_rows, prefill_layout, share_ancestry
from nllbd.engine.search import advance, finished_sequence
from nllbd.model.decoder import KVCache
from nllbd.model.encoder import SourceBatch
from nllbd.model.nllb import NllbModel
from nllbd.sched.plan import FinishedSequence, StartedSequence, StepPlan, StepResult
from nllbd.sched.sequence import Hypothesis

ONE_THREAD_WORK = 100_000_000
"""Multiplications below which a pass runs on one thread: handing out so little work costs more than it saves, and far
more when other processes keep the cores busy (40 ms a step instead of 5, seen with the demonstration model)."""

START_LENGTH = 2  # </s> and the language code, decided before the first step


class ModelRunner:
    """The real runner (see `nllbd.sched.plan.Runner`): owns the KV cache's tensors and the running batch."""

    def __init__(self, model: NllbModel, num_blocks: int, block_size: int, num_threads: int = 1) -> None:
        self.model = model
        self.num_threads = num_threads
        self._threads_now = 0
        self.block_size = block_size
        self.cache = KVCache(model.config, num_blocks * block_size, model.kv_dtype, model.device)
        self.reset()

    def reset(self) -> None:
        """Forget every sequence and all search state."""
        self.batch = Batch(self.model.device)
        self.suspended: dict[int, SavedRow] = {}
        self.layout: Layout | None = None

    @torch.inference_mode()
    def execute(self, plan: StepPlan) -> StepResult:
        """One step. May raise anything; the caller then resets."""
        begin = time.perf_counter()
        self._leave(plan)
        immediate, fresh = self._start(plan.started)
        encoded = time.perf_counter()
        for seq_id, blocks in plan.grown:
            self.batch.grow(seq_id, blocks)
        finished = self._decode(fresh) if len(self.batch) else []
        return StepResult(
            step=plan.step,
            finished=(*immediate, *finished),
            encode_s=encoded - begin if plan.started else 0.0,
            decode_s=time.perf_counter() - encoded,
        )

    def _leave(self, plan: StepPlan) -> None:
        for seq_id in plan.preempted:
            self.suspended[seq_id] = self.batch.save(seq_id)
        if plan.released or plan.preempted:
            self.batch.remove((*plan.released, *plan.preempted))
            self.layout = None
        for seq_id in plan.released:
            self.suspended.pop(seq_id, None)

    def _start(self, started: tuple[StartedSequence, ...]) -> tuple[list[FinishedSequence], list[int]]:
        """Encode and append; returns what is over before its first step, and the batch rows to prefill."""
        immediate = [item for item in started if item.request.params.max_length <= START_LENGTH]
        items = sorted(
            (item for item in started if item.request.params.max_length > START_LENGTH),
            key=lambda item: len(item.request.source_ids),
        )
        fresh = []
        slots: list[int] = []
        for item in items:
            own = self._slots(item.cross_blocks, len(item.request.source_ids))
            slots += own
            row = self.batch.append(item.request, own, item.self_blocks)
            self.batch.columns["tokens"][row, :, 0] = self.model.config.decoder_start_id
            self.batch.columns["tokens"][row, :, 1] = item.request.target_id
            if item.resumed:
                self.batch.restore(row, self.suspended.pop(item.request.seq_id))
                share_ancestry(self.batch, row)
            fresh.append(row)
        if items:
            self._encode([item.request.source_ids for item in items], slots)
            self.layout = None
        return [_cut_at_start(item) for item in immediate], fresh

    def _encode(self, sources: list[tuple[int, ...]], slots: list[int]) -> None:
        self._use_threads(len(slots) * self.model.encoder_weights)
        hidden = self.model.encode(SourceBatch.pack(sources, self.model.device))
        self.model.write_cross_kv(hidden, torch.tensor(slots, device=self.model.device), self.cache)

    def _use_threads(self, work: int) -> None:
        wanted = 1 if work < ONE_THREAD_WORK else self.num_threads
        if wanted != self._threads_now:
            self.model.set_num_threads(wanted)
            self._threads_now = wanted

    def _slots(self, blocks: tuple[int, ...], count: int) -> list[int]:
        size = self.block_size
        return [blocks[i // size] * size + i % size for i in range(count)]

    def _decode(self, fresh: list[int]) -> list[FinishedSequence]:
        batch = self.batch
        layout = prefill_layout(batch, fresh) if fresh else self.layout or decode_layout(batch)
        self.layout = None if fresh else layout  # a layout with prefill rows serves one step only
        self._use_threads(len(layout.sequence) * self.model.decoder_weights)
        hidden = self.model.decode(decoder_rows(batch, layout, self.block_size), self.cache)
        if layout.projected is not None:
            hidden = hidden[layout.projected]
        log_probs, ids = self.model.project_topk(hidden, 2 * batch.num_lanes)
        over = advance(batch, log_probs[layout.lane_source], ids[layout.lane_source], self.model.config.eos_id)
        if not over:
            return []
        finished = [finished_sequence(batch, row, self.model.config.eos_id) for row in over]
        batch.remove([item.seq_id for item in finished])
        self.layout = None
        return finished


def _cut_at_start(item: StartedSequence) -> FinishedSequence:
    """max_length leaves no room after the language code."""
    only = Hypothesis((item.request.target_id,), 0.0)
    return FinishedSequence(item.request.seq_id, (only,), truncated=True)
