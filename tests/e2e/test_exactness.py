"""Our own sentences through HTTP, all at once with different settings, against transformers token for token."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench import exactness
from nllbd.checkpoint import DEMO_FOLDER, read_checkpoint
from nllbd.languages import Languages
from nllbd.sched.sequence import SearchParams, SequenceRequest
from nllbd.text.segment import MAX_TOKENS, split
from nllbd.text.tokenizer import Tokenizer

NUM_SENTENCES = 48
SETTINGS = itertools.cycle(
    [
        SearchParams(1, 1.0, True, 96),
        SearchParams(4, 1.0, True, 96),
        SearchParams(2, 0.6, False, 96),
        SearchParams(5, 1.4, "never", 64),
    ]
)


def _single_sentences(tokenizer: Tokenizer) -> list[tuple[str, str, str, SearchParams]]:
    """(text, source, target, settings) of texts that are one segment, without white space or markup around it."""
    languages = Languages(read_checkpoint(DEMO_FOLDER).languages)
    directions = itertools.cycle(itertools.permutations(languages.codes, 2))
    cases = []
    for row, (source, target) in zip(exactness.corpus(), directions, strict=False):
        text = row[exactness.COLUMNS.index(source)]
        pieces = split(text, languages.resolve(source, "source_lang"), MAX_TOKENS, tokenizer.count_tokens)
        if len(pieces) == 1 and pieces[0].core == text and text.isascii() and not set(text) & set("<>{}%&$"):
            cases.append((text, source, target, next(SETTINGS)))
        if len(cases) == NUM_SENTENCES:
            break
    return cases


@pytest.mark.timeout(300)
def test_http_answers_are_what_transformers_generates(daemon) -> None:
    tokenizer = Tokenizer(read_checkpoint(DEMO_FOLDER))
    cases = _single_sentences(tokenizer)
    assert len(cases) == NUM_SENTENCES

    def ask(case: tuple[str, str, str, SearchParams]) -> str:
        text, source, target, params = case
        answer = daemon.translate(
            text,
            source,
            target,
            num_beams=params.num_beams,
            length_penalty=params.length_penalty,
            early_stopping=params.early_stopping,
            max_length=params.max_length,
        )
        assert answer.status == 200, answer.body
        return str(answer.json["translated_text"])

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, cases))
    requests = [
        SequenceRequest(i, tokenizer.encode(text, source), tokenizer.language_id(target), params, 0.0)
        for i, (text, source, target, params) in enumerate(cases)
    ]
    expected = [tokenizer.decode(ids) for ids in exactness.reference_outputs(requests)]
    different = [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]]
    assert not different
