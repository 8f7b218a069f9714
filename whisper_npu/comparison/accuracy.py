"""Two texts -> how far apart they are: word and character error rates, and which words differ.

Texts are normalised as openai/whisper's evaluation does it (case, punctuation, numbers, spelling)
and aligned with the fewest errors; characters are counted in languages without spaces between
words. Radford et al. 2022, appendix C. The door to jiwer and whisper-normalizer, which come with
the extra `compare`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING

from whisper_npu.errors import OptionError
from whisper_npu.languages import UNSPACED

if TYPE_CHECKING:
    from collections.abc import Callable

    from jiwer import CharacterOutput, WordOutput


@dataclass(frozen=True)
class Errors:
    """How many units of a reference were heard wrongly. Sums over recordings with +."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def rate(self) -> float:
        """Errors per unit of the reference, above 1 when much was invented."""
        errors = self.substitutions + self.deletions + self.insertions
        return errors / max(1, self.hits + self.substitutions + self.deletions)

    def record(self) -> dict[str, float]:
        """As JSON knows it."""
        return asdict(self) | {"rate": self.rate}

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


@dataclass(frozen=True)
class Chunk:
    """A stretch of the alignment: the same in both, or what stands for what."""

    same: bool
    reference: str  # empty: inserted
    hypothesis: str  # empty: deleted


@dataclass(frozen=True)
class Difference:
    """A hypothesis against its reference."""

    words: Errors  # of characters in a language without spaces
    characters: Errors
    chunks: tuple[Chunk, ...]  # normalised text, in order

    @property
    def rate(self) -> float:
        """The rate that counts: WER, or CER in a language without spaces."""
        return self.words.rate


def difference(reference: str, hypothesis: str, language: str) -> Difference:
    """Compare two texts of one language (a code). Raises OptionError without the extra."""
    try:
        from jiwer import process_characters, process_words
    except ImportError as error:
        raise OptionError(MISSING) from error
    spelt = not any(letter.isdigit() for letter in reference + hypothesis)
    normalise, joint = normaliser(language, spelt=spelt), "" if language in UNSPACED else " "
    said, heard = normalise(reference), normalise(hypothesis)
    words = process_words(said, heard)
    characters = process_characters(said.replace(" ", joint), heard.replace(" ", joint))
    reference_words, heard_words = words.references[0], words.hypotheses[0]
    chunks = tuple(
        Chunk(
            chunk.type == "equal",
            joint.join(reference_words[chunk.ref_start_idx : chunk.ref_end_idx]),
            joint.join(heard_words[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in words.alignments[0]
    )
    return Difference(_errors(words), _errors(characters), chunks)


def _errors(found: WordOutput | CharacterOutput) -> Errors:
    return Errors(found.hits, found.substitutions, found.deletions, found.insertions)


MISSING = "comparing texts needs two more packages: pip install 'whisper-npu[compare]'"


@cache
def normaliser(language: str, *, spelt: bool = False) -> Callable[[str], str]:
    """Text -> words between single spaces, as evaluations of Whisper compare them.

    spelt  no text has a digit: numbers stay words. Else "three one four" becomes 314, one word,
           which is right beside a text that has 314, and hides how much of it is wrong beside none
    """
    try:
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise OptionError(MISSING) from error
    if language == "en":
        normalise = EnglishTextNormalizer()
        if spelt:
            normalise.standardize_numbers = str
    else:
        normalise = BasicTextNormalizer(split_letters=language in UNSPACED)
    return lambda text: " ".join(normalise(text).split())
