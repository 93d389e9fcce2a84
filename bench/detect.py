"""How often is the language of a text told? nllbd's detection beside others, on message catalogues of Debian packages.

    python -m bench.detect                      # downloads the packages (50 MB), unpacks them beside, prints tables
    python -m bench.detect --detectors nllbd,cld2 --languages

Short texts are one to three words of at most 25 characters, long ones have 100 to 400. Measured is the half of the
texts whose digest is odd: the weights in nllbd/text/detect/evidence.py were fitted on the other half. Each detector
runs in a process of its own; `memory` is what that process grew by. `right` is the mean over languages of the share
that is told right, so languages that a detector does not know count as wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.common import RESULTS, headline, save
from bench.detect_texts import PACKAGES, SAMPLE_PACKAGE, Texts, read_texts, unpack
from nllbd.languages import Languages
from nllbd.text.detect import Detector
from nllbd.text.detect.labels import codes_of

#: A detector: text → FLORES code (None: unknown) and confidence (None: it has none).
Detect = Callable[[str], tuple[str | None, float | None]]
Sample = Mapping[str, Texts]
KINDS = ("short", "long")
MIN_SHORT, MIN_LONG = 50, 10
_BINS = 10
_PAGE_KB = 4


@dataclass
class Score:
    """One detector on one kind of text."""

    right: float
    answered: float
    right_of_answered: float
    languages: dict[str, float]
    calibration: list[tuple[int, float, float]] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "nllbd-bench" / "catalogues")
    parser.add_argument("--detectors", default=",".join(DETECTORS))
    parser.add_argument("--texts", type=int, default=60, help="most texts of a language and kind")
    parser.add_argument("--languages", action="store_true", help="print a line for every language")
    parser.add_argument("--write-sample", type=Path, help="write the sample that the tests use")
    parser.add_argument("--child", nargs=2, metavar=("DETECTOR", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child[0], read_sample(Path(options.child[1])))))
        return
    if options.write_sample:
        texts = read_texts(unpack([SAMPLE_PACKAGE], options.folder))
        write_sample(options.write_sample, pick(texts, 12, min_short=12, min_long=4))
        return
    run(options)


def run(options: argparse.Namespace) -> None:
    texts = read_texts(unpack(PACKAGES, options.folder))
    sample = pick(texts, options.texts, min_short=MIN_SHORT, min_long=MIN_LONG)
    file = options.folder / "sample.json"
    write_sample(file, sample)
    print(headline({"languages": len(sample), "texts": sum(len(it.short) + len(it.long) for it in sample.values())}))
    print(f"packages: {' '.join(PACKAGES)}\n")
    results: dict[str, Any] = {}
    for name in options.detectors.split(","):
        command = [sys.executable, "-m", "bench.detect", "--child", name, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name}: not measured: {done.stderr.strip().splitlines()[-1]}")
            continue
        results[name] = json.loads(done.stdout)
    print(table(results))
    if options.languages:
        print(language_table(results))
    save("detect", vars(options), results, RESULTS)


def pick(texts: Sample, most: int, *, min_short: int, min_long: int) -> dict[str, Texts]:
    """The odd half of each language that has texts enough, at most `most` of a kind, in the order of their digests."""
    return {
        code: Texts(_odd_half(it.short)[:most], _odd_half(it.long)[:most])
        for code, it in sorted(texts.items())
        if len(it.short) >= min_short and len(it.long) >= min_long
    }


def _odd_half(texts: list[str]) -> list[str]:
    digests = {text: hashlib.md5(text.encode(), usedforsecurity=False).digest() for text in texts}
    return sorted((text for text in texts if digests[text][0] & 1), key=digests.__getitem__)


def measure(name: str, sample: Sample) -> dict[str, Any]:
    """Load a detector and run it over the sample."""
    before, started = _memory_mb(), time.perf_counter()
    detect = DETECTORS[name]()
    detect("Where is the train station?")
    loaded = time.perf_counter()
    scores = {kind: asdict(score(detect, sample, kind)) for kind in KINDS}
    count = sum(len(it.short) + len(it.long) for it in sample.values())
    return {
        "load_s": loaded - started,
        "memory_mb": _memory_mb() - before,
        "text_us": (time.perf_counter() - loaded) / count * 1e6,
        **scores,
    }


def score(detect: Detect, sample: Sample, kind: str) -> Score:
    """A detector on the texts of one kind. `calibration`: number, mean confidence and share right, by confidence."""
    languages: dict[str, float] = {}
    answers: list[tuple[bool, bool, float | None]] = []
    for code, texts in sample.items():
        found = [detect(text) for text in getattr(texts, kind)]
        if found:
            languages[code] = fmean(guess == code for guess, _ in found)
            answers += [(guess is not None, guess == code, confidence) for guess, confidence in found]
    answered = [is_right for is_answered, is_right, _ in answers if is_answered]
    return Score(
        fmean(languages.values()),
        len(answered) / len(answers),
        fmean(answered) if answered else 0.0,
        languages,
        _calibration(answers),
    )


def _calibration(answers: list[tuple[bool, bool, float | None]]) -> list[tuple[int, float, float]]:
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(_BINS)]
    for is_answered, is_right, confidence in answers:
        if is_answered and confidence is not None:
            bins[min(_BINS - 1, int(confidence * _BINS))].append((confidence, is_right))
    return [(len(it), fmean(c for c, _ in it), fmean(r for _, r in it)) for it in bins if it]


# Detectors


def _nllbd() -> Detect:
    detector = Detector(Languages())

    def detect(text: str) -> tuple[str | None, float | None]:
        found = detector.detect(text)
        return (found.language.code if found.language else None), found.confidence

    return detect


def _nllbd_always() -> Detect:
    """With a threshold of 0: always an answer, as the others give."""
    detector = Detector(Languages(), 0.0)

    def detect(text: str) -> tuple[str | None, float | None]:
        found = detector.detect(text)
        return (found.language.code if found.language else None), found.confidence

    return detect


def _labelled(classify: Callable[[str], tuple[str, float | None]]) -> Detect:
    codes: dict[str, str] = {}

    def detect(text: str) -> tuple[str | None, float | None]:
        label, confidence = classify(text)
        if label not in codes:
            codes.update(codes_of([label]))
        return codes[label], confidence

    return detect


def _py3langid() -> Detect:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return _labelled(LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).classify)


def _cld2() -> Detect:
    import pycld2

    def classify(text: str) -> tuple[str, float | None]:
        return pycld2.detect(text.encode(), isPlainText=True, bestEffort=True)[2][0][1], None

    return _labelled(classify)


def _lingua() -> Detect:
    from lingua import LanguageDetectorBuilder

    detector = LanguageDetectorBuilder.from_all_languages().build()

    def classify(text: str) -> tuple[str, float | None]:
        found = detector.detect_language_of(text)
        return (found.iso_code_639_1.name.lower() if found else "none"), None

    return _labelled(classify)


def _langdetect() -> Detect:
    from langdetect import DetectorFactory, LangDetectException, detect

    DetectorFactory.seed = 0
    chinese = {"zh-cn": "zh", "zh-tw": "zh-Hant"}

    def classify(text: str) -> tuple[str, float | None]:
        try:
            label = detect(text)
        except LangDetectException:
            label = "none"
        return chinese.get(label, label), None

    return _labelled(classify)


DETECTORS: dict[str, Callable[[], Detect]] = {
    "nllbd": _nllbd,
    "nllbd-always": _nllbd_always,
    "py3langid": _py3langid,
    "cld2": _cld2,
    "lingua": _lingua,
    "langdetect": _langdetect,
}

# Output


def table(results: Mapping[str, Any]) -> str:
    """Markdown: one line a detector, and how far nllbd's confidence can be trusted."""
    lines = [
        "| detector | short: right | answered | right of answered | long: right | answered | right of answered "
        "| load | memory | a text |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, it in results.items():
        shares = [it[kind][figure] for kind in KINDS for figure in ("right", "answered", "right_of_answered")]
        cost = f"{it['load_s']:.2f} s | {it['memory_mb']:.0f} MB | {it['text_us']:.0f} µs"
        lines.append(f"| {name} | {' | '.join(f'{share:.1%}' for share in shares)} | {cost} |")
    if "nllbd-always" in results:
        lines += ["", "| confidence | texts | mean confidence | told right |", "|---|---|---|---|"]
        for kind in KINDS:
            for count, confidence, right in results["nllbd-always"][kind]["calibration"]:
                lines.append(f"| {kind} | {count} | {confidence:.2f} | {right:.2f} |")
    return "\n".join(lines) + "\n"


def language_table(results: Mapping[str, Any]) -> str:
    """Markdown: share told right, short and long, by language and detector."""
    names = list(results)
    lines = [f"| language | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for code in sorted({code for it in results.values() for code in it["short"]["languages"]}):
        cells = (
            " / ".join(f"{it[kind]['languages'].get(code, float('nan')):.2f}" for kind in KINDS)
            for it in results.values()
        )
        lines.append(f"| {code} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_sample(path: Path, sample: Sample) -> None:
    content = {code: asdict(texts) for code, texts in sample.items()}
    path.write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def read_sample(path: Path) -> dict[str, Texts]:
    """What `write_sample` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {code: Texts(it["short"], it["long"]) for code, it in content.items()}


def _memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * _PAGE_KB / 1024


if __name__ == "__main__":
    main()
