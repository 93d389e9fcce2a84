"""Throughput, latency, memory and fidelity on one corpus: nllbd, CTranslate2 and transformers, each at its best.

    python -m bench.offline                              # 600M shape, beams 1 and 4, five rounds
    python -m bench.offline --shape 1.3B --beams 4
    python -m bench.offline --entrants nllbd:int8 ctranslate2:int8 --sentences 200
    python -m bench.offline --device cuda --entrants nllbd:float16 transformers:float16
    python -m bench.offline --quick                      # a sample on the small model: does it run at all?

Every contestant has a process of its own and the same number of threads; all stay loaded and take turns, in another
order each round. CTranslate2's backend, threads and batches are found by a sweep first (bench/sweep.py). A ratio is
taken round by round, then its median: what slows the machine in one round slows both. Ids go in, ids come out: reading
and writing text is not part of it. `equal` compares with the small checkpoint in float32, the same function.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import common, corpus
from bench.child import Child, Loaded, Spec
from bench.contestants import Job, Output
from bench.entrants import Entrant, enter, make_spec
from bench.offline_results import draw, print_table, ratios, round_line, speed, summary
from bench.quality import Quality, equal_share, scores
from bench.sweep import ALONE
from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
from nllbd.text.tokenizer import Tokenizer

CPU_ENTRANTS = ("nllbd:int8", "nllbd:float32", "ctranslate2:int8", "ctranslate2:float32", "transformers:float32")
GPU_ENTRANTS = ("nllbd:float16", "transformers:float16", "ctranslate2:int8@cpu")


def main() -> None:
    options = _arguments()
    print(common.headline(vars(options)))
    begin = time.perf_counter()
    results = Bench(options).run()
    results["took_s"] = round(time.perf_counter() - begin, 1)
    path = common.save(f"offline-{_name(options)}", vars(options), results, options.results)
    draw(path.with_suffix(".svg"), results)


class Team:
    """An entrant's processes: for many sentences and for single ones; the same where it runs both best the same way."""

    def __init__(self, entrant: Entrant, beams: int) -> None:
        self.many = Child(entrant.specs[beams])
        is_same = entrant.specs[beams] == entrant.alone_specs[beams]
        self.single = self.many if is_same else Child(entrant.alone_specs[beams])

    def close(self) -> None:
        self.many.close()
        if self.single is not self.many:
            self.single.close()


class Bench:
    """One run. The methods stand in the order in which they happen."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.model: Path = options.model or _wide(options)
        self.sentences = corpus.sentences(options.sentences, corpus.directions(options.directions), options.seed)
        self.tokenizer = Tokenizer(read_checkpoint(self.model))
        self.jobs: list[Job] = [
            (self.tokenizer.encode(it.text, it.source), self.tokenizer.language_id(it.target)) for it in self.sentences
        ]
        self.alone = corpus.evenly(self.sentences, options.alone)
        self.threads = options.threads or len(os.sched_getaffinity(0))

    def run(self) -> dict[str, Any]:
        options = self.options
        where = self.model, options.cache_dir, self.threads, options.device
        specs = [make_spec(name, *where) for name in options.entrants]
        print(f"corpus: {len(self.jobs)} sentences, {sum(len(ids) for ids, _ in self.jobs)} source tokens")
        print("finding the best way to run each:")
        entrants = [
            enter(
                spec,
                self.jobs,
                self._places(spec),
                options.beams,
                options.max_length,
                quick=options.quick,
                memory=options.sweep_file,
            )
            for spec in specs
        ]
        loads = self._load_times(entrants)
        by_beams = {str(beams): self._measure(entrants, beams) for beams in options.beams}
        return {
            "corpus": {"sentences": len(self.jobs), "source_tokens": sum(len(ids) for ids, _ in self.jobs)},
            "threads": self.threads,
            "entrants": {it.label: self._described(it) for it in entrants},
            "loads": {label: [asdict(load) for load in them] for label, them in loads.items()},
            "beams": by_beams,
        }

    def _places(self, spec: Spec) -> Sequence[int]:
        """All sentences for those that are compared at full speed, a sample for the slow ones."""
        is_slow = spec.kind == "transformers" or (spec.precision == "float32" and spec.device == "cpu")
        if not is_slow or self.options.slow_sentences >= len(self.jobs):
            return range(len(self.jobs))
        return corpus.evenly(self.sentences, self.options.slow_sentences)

    def _described(self, entrant: Entrant) -> dict[str, Any]:
        return {
            "specs": {str(beams): spec.described() for beams, spec in entrant.specs.items()},
            "alone_specs": {str(beams): spec.described() for beams, spec in entrant.alone_specs.items()},
            "ways": {str(beams): dict(way) for beams, way in entrant.ways.items()},
            "sentences": len(entrant.places),
            "tried": list(entrant.tried),
        }

    def _load_times(self, entrants: Sequence[Entrant]) -> dict[str, list[Loaded]]:
        """Fresh processes, one after the other; files are in the page cache by now."""
        first = self.options.beams[0]
        loads: dict[str, list[Loaded]] = {it.label: [] for it in entrants}
        for _ in range(self.options.rounds):
            for entrant in entrants:
                with Child(entrant.specs[first]) as child:
                    loads[entrant.label].append(child.loaded)
        for label, them in loads.items():
            print(f"{label:24} load {common.spread(load.load_s for load in them)} s")
        return loads

    def _measure(self, entrants: Sequence[Entrant], beams: int) -> dict[str, Any]:
        reference = self._reference(beams)
        teams = {it.label: Team(it, beams) for it in entrants}
        rounds: dict[str, list[dict[str, Any]]] = {it.label: [] for it in entrants}
        first_outputs: dict[str, list[Output]] = {}
        try:
            for entrant in entrants:  # warm-up: allocations, kernels chosen at first use, lazy imports
                jobs = [self.jobs[place] for place in entrant.places[:: max(1, len(entrant.places) // 8)]]
                teams[entrant.label].many.translate(jobs, beams, self.options.max_length, entrant.ways[beams])
                teams[entrant.label].single.translate(jobs[:1], beams, self.options.max_length, ALONE)
            for number in range(self.options.rounds):
                turn = number % len(entrants)
                for entrant in [*entrants[turn:], *entrants[:turn]]:
                    record, outputs = self._round(teams[entrant.label], entrant, beams)
                    first_outputs.setdefault(entrant.label, outputs)
                    record["same_as_first_round"] = equal_share(outputs, first_outputs[entrant.label])
                    rounds[entrant.label].append(record)
                    print(round_line(beams, number, entrant.label, record), flush=True)
            same_alone = self._same_alone(
                teams[entrants[0].label], entrants[0], beams, first_outputs[entrants[0].label]
            )
        finally:
            loaded = {label: team.many.loaded for label, team in teams.items()}
            for team in teams.values():
                team.close()
        made = {}
        for it in entrants:
            quality = self._quality(it, first_outputs[it.label], reference)
            made[it.label] = {**summary(rounds[it.label], loaded[it.label]), **asdict(quality)}
            made[it.label]["rounds"] = rounds[it.label]
        made[entrants[0].label]["same_as_alone"] = same_alone
        over = ratios(entrants[0].label, made)
        gap = self._quality_gap(entrants[0], first_outputs[entrants[0].label], reference)
        print_table(made, over, f"beam {beams}; {entrants[0].label} less float32: {gap}")
        return {"entrants": made, "ratios": over, "ratios_of": entrants[0].label, "int8_less_float32": gap}

    def _reference(self, beams: int) -> list[Output]:
        """What float32 says: transformers on the small checkpoint, which computes the same function."""
        folder = self.options.model or DEMO_FOLDER
        with Child(Spec("reference", "transformers", folder, "float32", self.threads)) as child:
            return child.translate(self.jobs, beams, self.options.max_length, {"batch_size": 16}).outputs

    def _round(self, team: Team, entrant: Entrant, beams: int) -> tuple[dict[str, Any], list[Output]]:
        jobs = [self.jobs[place] for place in entrant.places]
        length = self.options.max_length
        reply = team.many.translate(jobs, beams, length, entrant.ways[beams])
        singles = [team.single.translate([self.jobs[place]], beams, length, ALONE) for place in self.alone]
        record = speed(jobs, reply)
        record["alone_s"] = [round(single.seconds, 5) for single in singles]
        record["alone_tokens_per_s"] = sum(len(it.outputs[0]) for it in singles) / sum(it.seconds for it in singles)
        at = {place: row for row, place in enumerate(entrant.places)}
        both = [
            (single.outputs[0], reply.outputs[at[p]]) for p, single in zip(self.alone, singles, strict=True) if p in at
        ]
        record["same_as_alone"] = equal_share(*zip(*both, strict=True)) if both else None
        record["peak_rss"] = reply.peak_rss
        record["load_average"] = common.load_average()
        return record, reply.outputs

    def _same_alone(self, team: Team, entrant: Entrant, beams: int, outputs: list[Output]) -> float:
        """The share of the first entrant's outputs that are the same when each sentence comes alone."""
        rows = range(0, len(outputs), max(1, len(outputs) // self.options.same_alone))
        jobs = [self.jobs[entrant.places[row]] for row in rows]
        alone = team.single.translate(jobs, beams, self.options.max_length, ALONE).outputs
        return equal_share([outputs[row] for row in rows], alone)

    def _quality_gap(self, entrant: Entrant, outputs: list[Output], reference: list[Output]) -> dict[str, float] | None:
        """The first entrant's scores less those of float32, on the same sentences."""
        ours = self._quality(entrant, outputs, reference)
        exact = self._quality(entrant, [reference[place] for place in entrant.places], reference)
        if ours.bleu is None or ours.chrf is None or exact.bleu is None or exact.chrf is None:
            return None
        return {"bleu": ours.bleu - exact.bleu, "chrf": ours.chrf - exact.chrf}

    def _quality(self, entrant: Entrant, outputs: list[Output], reference: list[Output]) -> Quality:
        texts = [self.tokenizer.decode(ids) for ids in outputs]
        scored = scores(texts, [self.sentences[place].reference for place in entrant.places])
        bleu, chrf = scored or (None, None)
        return Quality(equal_share(outputs, [reference[place] for place in entrant.places]), bleu, chrf)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="600M", choices=["600M", "1.3B", "3.3B"], help="of the widened demo model")
    parser.add_argument("--model", type=Path, help="another checkpoint folder instead")
    parser.add_argument("--cache-dir", type=Path, default=Path("~/.cache/nllbd-bench"))
    parser.add_argument("--entrants", nargs="+", help=f"default: {' '.join(CPU_ENTRANTS)}; ratios are of the first one")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (CTranslate2 stays on the CPU: @cuda moves it)")
    parser.add_argument("--threads", type=int, default=0, help="default: all cores")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--directions", default="eng_Latn-fra_Latn", help="FROM-TO[,FROM-TO…]")
    parser.add_argument("--sentences", type=int, default=400)
    parser.add_argument("--slow-sentences", type=int, default=48, help="for float32 and transformers; even in length")
    parser.add_argument("--alone", type=int, default=12, help="sentences that are also timed alone, each round")
    parser.add_argument("--same-alone", type=int, default=200, help="sentences of the first entrant compared so, once")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    parser.add_argument("--sweep-file", type=Path, help="keeps what the sweep found")
    parser.add_argument("--quick", action="store_true", help="few sentences, the small model, two rounds")
    options = parser.parse_args()
    if options.quick:
        options.model = options.model or DEMO_FOLDER
        options.sentences, options.slow_sentences, options.alone = min(options.sentences, 24), 8, 4
        options.rounds = min(options.rounds, 2)
    options.entrants = options.entrants or list(CPU_ENTRANTS if options.device == "cpu" else GPU_ENTRANTS)
    return options


def _wide(options: argparse.Namespace) -> Path:
    from bench.widen import cached  # torch: only here

    return cached(options.shape, options.cache_dir)


def _name(options: argparse.Namespace) -> str:
    return options.model.name if options.model else str(options.shape)


if __name__ == "__main__":
    main()
