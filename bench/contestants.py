"""What runs in a measured process: one translation library behind one small protocol.

    python -m bench.contestants '{"kind": "ctranslate2", "model": DIR, …}'

A line of JSON on standard input is an order, a line on standard output the answer; `bench/child.py` is the other end.
Each library imports only what it needs itself, so that its memory is its own. Token ids go in and come out; turning
them into a library's own input is not timed, everything after that is.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

#: (source ids with language code and `</s>`, id of the target language)
Job = tuple[Sequence[int], int]
#: Ids behind the target language's code, `</s>` included.
Output = list[int]
Call = Callable[[], list[Output]]

EOS_ID = 2
FOREVER = 1e12  # a deadline that never comes


class Contestant(Protocol):
    """A library: constructed = imported, `load` = the model ready, `prepare` = a call that can be timed."""

    def load(self, spec: dict[str, Any]) -> None: ...

    def prepare(self, jobs: Sequence[Job], beams: int, max_length: int, how: dict[str, Any]) -> Call: ...


class Nllbd:
    """The engine as a library, with the settings that a user gets who sets none. All jobs are handed in at once, in
    the order given; `how` = {"alone": true}: one after the other."""

    def __init__(self) -> None:
        # as build_engine does before it loads torch; here torch comes first, so that the bare imports can be weighed
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        import torch  # noqa: F401

        from nllbd.engine.build import build_engine

        self._build = build_engine
        self._next_id = 0

    def load(self, spec: dict[str, Any]) -> None:
        from nllbd.bridge.protocol import EngineConfig

        config = EngineConfig(
            model_path=spec["model"],
            device=spec["device"],
            dtype=spec["precision"],
            num_threads=spec["threads"],
            max_waiting_segments=1 << 40,
            max_waiting_tokens=1 << 40,
            **spec["settings"],
        )
        self._engine = self._build(config)

    def prepare(self, jobs: Sequence[Job], beams: int, max_length: int, how: dict[str, Any]) -> Call:
        from nllbd.sched.sequence import SearchParams, SequenceRequest

        params = SearchParams(num_beams=beams, max_length=max_length)
        first = self._next_id
        self._next_id += len(jobs)
        requests = [
            SequenceRequest(first + place, tuple(source), target, params, FOREVER)
            for place, (source, target) in enumerate(jobs)
        ]
        groups = [[request] for request in requests] if how.get("alone") else [requests]
        return lambda: [output for group in groups for output in self._run(group)]

    def _run(self, requests: list[Any]) -> list[Output]:
        self._engine.add(requests)
        outputs: dict[int, Output] = {}
        while self._engine.has_work:
            for outcome in self._engine.step():
                outputs[outcome.seq_id] = list(outcome.hypotheses[0].token_ids[1:])
        return [outputs[request.seq_id] for request in requests]


class CTranslate2:
    """Settings: inter_threads, intra_threads. `how`: batch_type, max_batch_size, and mode "batch" (sorts all by length,
    its batches run in parallel where there are several workers) or "iterable" (its own asynchronous streaming)."""

    def __init__(self) -> None:
        import ctranslate2

        self._library = ctranslate2

    def load(self, spec: dict[str, Any]) -> None:
        options = {"intra_threads": spec["threads"], **spec["settings"]}
        self._translator = self._library.Translator(
            spec["model"], device=spec["device"], compute_type=spec["precision"], **options
        )
        names = json.loads((Path(spec["model"]) / "shared_vocabulary.json").read_text(encoding="utf-8"))
        self._names: list[str] = names
        self._ids = {name: place for place, name in enumerate(names)}

    def prepare(self, jobs: Sequence[Job], beams: int, max_length: int, how: dict[str, Any]) -> Call:
        sources = [[self._names[token] for token in source] for source, _ in jobs]
        prefixes = [[self._names[target]] for _, target in jobs]
        options: dict[str, Any] = {
            "beam_size": beams,
            "max_decoding_length": max_length - 1,  # counts all but the initial </s>
            "return_end_token": True,
        }
        if how.get("alone"):
            return lambda: [
                self._output(self._translator.translate_batch([source], [prefix], **options)[0])
                for source, prefix in zip(sources, prefixes, strict=True)
            ]
        options |= {"batch_type": how["batch_type"], "max_batch_size": how["max_batch_size"]}
        translate = (
            self._translator.translate_iterable if how["mode"] == "iterable" else self._translator.translate_batch
        )
        return lambda: [self._output(result) for result in translate(sources, prefixes, **options)]

    def _output(self, result: Any) -> Output:
        return [self._ids[name] for name in result.hypotheses[0][1:]]


class Transformers:
    """`generate()`: static batches of `how["batch_size"]`, sorted by length (and by target: its forced first token is
    one a call), or one by one."""

    def __init__(self) -> None:
        import torch
        import transformers

        transformers.utils.logging.set_verbosity_error()
        self._torch = torch

    def load(self, spec: dict[str, Any]) -> None:
        from bench.peers import load_transformers

        self._torch.set_num_threads(spec["threads"])
        model = load_transformers(Path(spec["model"]), getattr(self._torch, spec["precision"]))
        self._model = model.to(spec["device"])

    def prepare(self, jobs: Sequence[Job], beams: int, max_length: int, how: dict[str, Any]) -> Call:
        size = 1 if how.get("alone") else how["batch_size"]
        order = sorted(range(len(jobs)), key=lambda place: (jobs[place][1], len(jobs[place][0])))
        batches: list[list[int]] = []
        for place in order:
            if batches and len(batches[-1]) < size and jobs[batches[-1][0]][1] == jobs[place][1]:
                batches[-1].append(place)
            else:
                batches.append([place])

        def call() -> list[Output]:
            outputs: list[Output] = [[] for _ in jobs]
            for batch in batches:
                for place, output in zip(
                    batch, self._generate([jobs[i] for i in batch], beams, max_length), strict=True
                ):
                    outputs[place] = output
            return outputs

        return call

    def _generate(self, jobs: list[Job], beams: int, max_length: int) -> list[Output]:
        torch = self._torch
        width = max(len(source) for source, _ in jobs)
        pad = self._model.config.pad_token_id
        ids = torch.tensor([[*source, *[pad] * (width - len(source))] for source, _ in jobs], device=self._model.device)
        beam_settings = {"early_stopping": True, "length_penalty": 1.0} if beams > 1 else {}
        with torch.inference_mode():
            made = self._model.generate(
                input_ids=ids,
                attention_mask=(ids != pad).long(),
                forced_bos_token_id=jobs[0][1],
                num_beams=beams,
                max_length=max_length,
                **beam_settings,
            )
        return [_to_end(row[2:]) for row in made.tolist()]


def _to_end(row: list[int]) -> Output:
    return row[: row.index(EOS_ID) + 1] if EOS_ID in row else row


KINDS: dict[str, type[Contestant]] = {"nllbd": Nllbd, "ctranslate2": CTranslate2, "transformers": Transformers}


def _memory(field: str) -> int:
    """Bytes, from the kernel's account of this process: VmRSS now, VmHWM at its peak."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def _serve(spec: dict[str, Any], orders: TextIO, answers: TextIO) -> None:
    def answer(**facts: Any) -> None:
        answers.write(json.dumps(facts) + "\n")
        answers.flush()

    contestant = KINDS[spec["kind"]]()
    imported = _memory("VmRSS")
    begin = time.perf_counter()
    contestant.load(spec)
    load_s = time.perf_counter() - begin
    answer(imported_rss=imported, load_s=load_s, loaded_rss=_memory("VmRSS"), load_peak_rss=_memory("VmHWM"))
    for line in orders:
        order = json.loads(line)
        call = contestant.prepare(order["jobs"], order["beams"], order["max_length"], order["how"])
        begin = time.perf_counter()
        outputs = call()
        seconds = time.perf_counter() - begin
        answer(seconds=seconds, outputs=outputs, rss=_memory("VmRSS"), peak_rss=_memory("VmHWM"))


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    _serve(json.loads(sys.argv[1]), sys.stdin, answers)


if __name__ == "__main__":
    main()
