"""Output ids against transformers' `generate()`, and low precision against float32 and against the sentence alone.

    python -m bench.exactness                       # the contract's sweep: 2,000 sentences and 200 joined ones (long)
    python -m bench.exactness --sentences 100 --joined 10
    python -m bench.exactness --precision int8 bfloat16 --sentences 1000

Requests with different settings share the batch, arrive at random steps, and the KV pool is so small that sequences
are preempted all the time. Every difference is printed with the float64 scores of both outputs; below 1e-4 it is a
near-tie, of which the contract allows 0.1 %.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import torch
from transformers import M2M100ForConditionalGeneration

from nllbd.bridge.protocol import EngineConfig
from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
from nllbd.engine.build import BLOCK_SIZE, build_engine
from nllbd.engine.engine import Engine
from nllbd.model.decoder import KVCache
from nllbd.sched.sequence import SearchParams, SequenceOutcome, SequenceRequest
from nllbd.text.tokenizer import Tokenizer

DATA = Path(__file__).parent / "demo_model" / "data"
COLUMNS = ("eng_Latn", "fra_Latn", "deu_Latn", "spa_Latn", "por_Latn", "ita_Latn")
NEAR_TIE = 1e-4
JOINED_TOKENS = 200
FOREVER = 1e12  # a deadline that never comes


@dataclass(frozen=True)
class Difference:
    """Two outputs for one request, with the float64 scores of both."""

    request: SequenceRequest
    ours: tuple[int, ...]
    theirs: tuple[int, ...]
    our_score: float
    their_score: float

    @property
    def is_near_tie(self) -> bool:
        return abs(self.our_score - self.their_score) < NEAR_TIE

    def __str__(self) -> str:
        kind = "near-tie" if self.is_near_tie else "DIFFERENCE"
        return (
            f"{kind}: {self.request.params}\n  source {self.request.source_ids}\n"
            f"  ours   {self.our_score:.9f} {self.ours}\n  theirs {self.their_score:.9f} {self.theirs}"
        )


def corpus() -> list[tuple[str, ...]]:
    """Held-out rows first, then the hand-written ones; columns as in COLUMNS."""
    rows = [tuple(cells) for _, cells in json.loads((DEMO_FOLDER / "held_out.json").read_text(encoding="utf-8"))]
    with lzma.open(DATA / "everyday.tsv.xz", "rt", encoding="utf-8") as lines:
        rows += [tuple(line.rstrip("\n").split("\t")) for line in lines]
    return [row for row in rows if len(row) == len(COLUMNS) and all(row)]


def make_requests(num_sentences: int, num_joined: int, seed: int) -> list[SequenceRequest]:
    """Requests over all directions of the demo model, in random order, settings sampled as the contract says."""
    rng = random.Random(seed)
    checkpoint = read_checkpoint(DEMO_FOLDER)
    tokenizer = Tokenizer(checkpoint)
    rows = corpus()
    rng.shuffle(rows)
    directions = list(permutations(checkpoint.languages or (), 2))
    requests = []
    for number in range(num_sentences + num_joined):
        source, target = directions[number % len(directions)]
        column = COLUMNS.index(source)
        text = rows[number % len(rows)][column]
        if number >= num_sentences:
            text = _joined(rows, column, number, tokenizer)
        requests.append(
            SequenceRequest(
                seq_id=number,
                source_ids=tokenizer.encode(text, source),
                target_id=tokenizer.language_id(target),
                params=_sample_params(rng),
                deadline=FOREVER,
                client=f"client{number % 3}",
                request_id=f"request{number % 17}",
            )
        )
    rng.shuffle(requests)
    return requests


def _joined(rows: Sequence[tuple[str, ...]], column: int, number: int, tokenizer: Tokenizer) -> str:
    """Sentences strung together up to JOINED_TOKENS source tokens."""
    text = rows[number % len(rows)][column]
    for offset in range(1, len(rows)):
        longer = f"{text} {rows[(number + offset) % len(rows)][column]}"
        if tokenizer.count_tokens(longer) > JOINED_TOKENS - 2:
            break
        text = longer
    return text


def _sample_params(rng: random.Random) -> SearchParams:
    early_stopping = rng.choice((True, False, "never"))
    return SearchParams(
        num_beams=rng.choice((1, 2, 4, 5)),
        length_penalty=rng.choice((0.6, 1.0, 1.4)),
        early_stopping=early_stopping,  # type: ignore[arg-type]
        max_length=64 if early_stopping == "never" else 96,
    )


def load_reference() -> M2M100ForConditionalGeneration:
    """transformers' model in float32, as its users load it."""
    return M2M100ForConditionalGeneration.from_pretrained(DEMO_FOLDER, dtype=torch.float32).eval()


@torch.inference_mode()
def reference_output(model: M2M100ForConditionalGeneration, request: SequenceRequest) -> tuple[int, ...]:
    """Ids after the initial `</s>` that `generate()` gives for a batch of one."""
    params = request.params
    beam_settings = {"early_stopping": params.early_stopping, "length_penalty": params.length_penalty}
    output = model.generate(
        input_ids=torch.tensor([request.source_ids]),
        forced_bos_token_id=request.target_id,
        num_beams=params.num_beams,
        max_length=params.max_length,
        **(beam_settings if params.num_beams > 1 else {}),
    )
    return tuple(output[0, 1:].tolist())


@torch.inference_mode()
def float64_score(model: M2M100ForConditionalGeneration, request: SequenceRequest, ids: tuple[int, ...]) -> float:
    """Score / Lᵖ of an output under the model in float64; the forced language code costs nothing."""
    logits = model(
        input_ids=torch.tensor([request.source_ids]), decoder_input_ids=torch.tensor([(2, *ids[:-1])])
    ).logits
    log_probs = logits[0].log_softmax(dim=-1)
    total = sum(log_probs[place, token].item() for place, token in enumerate(ids) if place > 0)
    return total / len(ids) ** request.params.length_penalty


def small_engine(precision: str, pool_blocks: int, max_num_lanes: int = 48) -> Engine:
    """The real engine on the demo model with a KV pool of `pool_blocks`."""
    config = read_checkpoint(DEMO_FOLDER).config
    dtype = torch.float32 if precision in ("float32", "int8") else getattr(torch, precision)
    return build_engine(
        EngineConfig(
            model_path=str(DEMO_FOLDER),
            device="cpu",
            dtype=precision,
            kv_cache_bytes=KVCache.bytes_per_slot(config, dtype) * BLOCK_SIZE * pool_blocks,
            max_num_lanes=max_num_lanes,
            max_waiting_segments=1_000_000,
            max_waiting_tokens=1 << 40,
        ),
        watermark_steps=0,
    )


def run_engine(engine: Engine, requests: Iterable[SequenceRequest], seed: int) -> dict[int, SequenceOutcome]:
    """All requests through the engine, a few joining before each step; checks integrity now and then."""
    rng = random.Random(seed)
    waiting = list(requests)[::-1]
    outcomes: dict[int, SequenceOutcome] = {}
    step = 0
    while waiting or engine.has_work:
        arriving = min(len(waiting), rng.choice((0, 0, 0, 1, 1, 2, 6)))
        engine.add([waiting.pop() for _ in range(arriving)])
        outcomes.update((outcome.seq_id, outcome) for outcome in engine.step())
        step += 1
        if step % 50 == 0:
            engine.check_integrity()
    engine.check_integrity()
    return outcomes


def alone(engine: Engine, request: SequenceRequest) -> tuple[int, ...]:
    """The output of a request that has the engine to itself."""
    (outcome,) = run_engine(engine, [request], seed=0).values()
    return outcome.hypotheses[0].token_ids


def reference_outputs(requests: Sequence[SequenceRequest], file: Path | None = None) -> Iterator[tuple[int, ...]]:
    """What transformers gives for each request, remembered in `file` (JSON lines), for it takes most of the time."""
    known: dict[str, tuple[int, ...]] = {}
    if file is not None and file.exists():
        known = {key: tuple(ids) for key, ids in map(json.loads, file.read_text().splitlines())}
    model = load_reference()
    for request in requests:
        key = repr((request.source_ids, request.target_id, request.params))
        if key not in known:
            known[key] = reference_output(model, request)
            if file is not None:
                with file.open("a") as lines:
                    lines.write(json.dumps([key, known[key]]) + "\n")
        yield known[key]


def compare(
    requests: Sequence[SequenceRequest],
    outcomes: dict[int, SequenceOutcome],
    *,
    remembered: Path | None = None,
    progress: bool = False,
) -> list[Difference]:
    """Every request whose output is not that of transformers."""
    exact: M2M100ForConditionalGeneration | None = None
    differences = []
    for done, (request, theirs) in enumerate(zip(requests, reference_outputs(requests, remembered), strict=True)):
        ours = outcomes[request.seq_id].hypotheses[0].token_ids
        if ours != theirs:
            exact = exact or load_reference().double()
            scores = float64_score(exact, request, ours), float64_score(exact, request, theirs)
            differences.append(Difference(request, ours, theirs, *scores))
        if progress and done % 20 == 0:
            sys.stderr.write(f"\r{done}/{len(requests)} compared, {len(differences)} differ")
            sys.stderr.flush()
    return differences


def _report_float32(requests: list[SequenceRequest], pool_blocks: int, seed: int, remembered: Path | None) -> int:
    engine = small_engine("float32", pool_blocks)
    start = time.perf_counter()
    outcomes = run_engine(engine, requests, seed)
    took = time.perf_counter() - start
    print(f"nllbd: {len(requests)} sequences in {took:.1f} s, {engine.stats.preemptions} preemptions")
    differences = compare(requests, outcomes, remembered=remembered, progress=True)
    print()
    for difference in differences:
        print(difference)
    ties = sum(difference.is_near_tie for difference in differences)
    equal = len(requests) - len(differences)
    print(f"equal to transformers: {equal}/{len(requests)} ({100 * equal / len(requests):.3f} %)")
    print(
        f"near-ties: {ties} ({100 * ties / len(requests):.3f} %, allowed 0.1 %), differences: {len(differences) - ties}"
    )
    return int(len(differences) > ties or ties > len(requests) / 1000)


def _report_precision(precision: str, requests: list[SequenceRequest], pool_blocks: int, seed: int) -> None:
    exact = run_engine(small_engine("float32", pool_blocks), requests, seed)
    engine = small_engine(precision, pool_blocks)
    outcomes = run_engine(engine, requests, seed)
    ours = {seq_id: outcome.hypotheses[0].token_ids for seq_id, outcome in outcomes.items()}
    as_float32 = sum(ours[request.seq_id] == exact[request.seq_id].hypotheses[0].token_ids for request in requests)
    as_alone = sum(ours[request.seq_id] == alone(engine, request) for request in requests)
    total = len(requests)
    print(
        f"{precision}: equal to float32 {as_float32}/{total} ({100 * as_float32 / total:.2f} %), "
        f"equal to the same sentence alone {as_alone}/{total} ({100 * as_alone / total:.2f} %), "
        f"{engine.stats.preemptions} preemptions"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--joined", type=int, default=200)
    parser.add_argument("--pool-blocks", type=int, default=48, help=f"KV blocks of {BLOCK_SIZE} token positions")
    parser.add_argument("--precision", nargs="*", default=["float32"])
    parser.add_argument("--remember", type=Path, help="file that keeps transformers' outputs between runs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    requests = make_requests(options.sentences, options.joined, options.seed)
    lengths = sorted(len(request.source_ids) for request in requests)
    print(f"{len(requests)} requests, source tokens {lengths[0]}…{lengths[-1]}, pool {options.pool_blocks} blocks")
    failed = 0
    for precision in options.precision:
        if precision == "float32":
            failed |= _report_float32(requests, options.pool_blocks, options.seed, options.remember)
        else:
            _report_precision(precision, requests, options.pool_blocks, options.seed)
    return failed


if __name__ == "__main__":
    sys.exit(main())
