"""TF-IDF of words and characters with a linear model: the baseline that short texts are hard to beat with.

Joachims, "Text Categorization with Support Vector Machines", ECML 1998, for words; Cavnar and Trenkle, "N-Gram-Based
Text Categorization", SDAIR 1994, for characters; Wang and Manning, "Baselines and Bigrams", ACL 2012, for pairs of
words.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core import Fitted, FitView, Needs, State, Steps, Unfit
from headstart.numerics.artifacts import Table
from headstart.numerics.linear_fit import fit_linear
from headstart.numerics.steps import apply, features
from headstart.numerics.steps_text import fit_tfidf


@dataclass(frozen=True, kw_only=True, slots=True)
class WordCharTfidf:
    """Words and character n-grams by TF-IDF, then logistic or ridge regression, its strength chosen inside the fold.

    Shapes: texts (N,); at most `words + characters` columns, sparse float64; weights (C, columns) float32.
    Returns: a `Table`: two `tfidf` steps and a linear one.
    Errors: `Unfit` for a strength, a number of columns or a length that is not positive.

    Words of one letter are kept, and counts are damped (1 + log). Of each text the first 20,000 characters are read.
    Misleads where classes differ by meaning and not by words, and where a text pair is joined to one text.
    """

    needs = Needs(tasks=("single_label", "multi_label", "regression"), modalities=("text",))
    claims = ("learns_separable", "chance_when_permuted", "numbers_in_their_unit")
    cites = "doi:10.1007/BFb0026683; SDAIR 1994; ACL 2012 P12-2018"

    words: int = 15_000
    characters: int = 25_000
    longest_word_gram: int = 2
    longest_character_gram: int = 5
    strengths: tuple[float, ...] = (0.3, 3.0, 30.0, 300.0)  # C of the logistic model, one of which is chosen

    def __post_init__(self) -> None:
        numbers = (self.words, self.characters, self.longest_word_gram, self.longest_character_gram - 1)
        if min(numbers) < 1 or not self.strengths or min(self.strengths) <= 0:
            raise Unfit(
                f"columns, lengths and strengths are above 0 (character n-grams from 2), and these are {self}",
                where="WordCharTfidf(words=…, characters=…, strengths=…)",
                fix="leave out what you do not need to change",
            )

    def __call__(self, view: FitView, state: State | None, steps: Steps) -> Fitted:  # noqa: ARG002  # the shape of its kind
        texts = view.train.texts
        least = 2 if len(texts) > 2000 else 1
        longest = self.longest_character_gram
        read = (
            fit_tfidf(texts, unit="word", lengths=(1, self.longest_word_gram), most=self.words, least_texts=least),
            fit_tfidf(texts, unit="char_wb", lengths=(2, longest), most=self.characters, least_texts=least),
        )
        fit = fit_linear(
            features(read, view.train),
            view.train.labels,
            view.task,
            view.classes,
            view.train.ids,
            strengths=self.strengths,
        )
        table = Table((*read, *fit.steps))
        return Fitted(table, apply(table, view.valid), facts=fit.facts)
