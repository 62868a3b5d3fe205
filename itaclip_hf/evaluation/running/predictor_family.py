"""Several methods that are evaluated side by side, so that they can share work; one method is the family of one."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from PIL import Image

from ...processing import Vocabulary
from .predictor import Prediction, Predictor

__all__ = ["JoinedFamily", "PredictorFamily", "SinglePredictor"]


class PredictorFamily(Protocol):
    """Methods under evaluation on the same images; each gives what it would give by itself."""

    @property
    def vocabularies(self) -> Sequence[Vocabulary]:
        """The classes of each method; all have as many."""
        ...

    @property
    def prepare_images(self) -> Callable[[list[Image.Image]], Mapping[str, Any]]:
        """Makes of images what `predict_each` takes; see `Predictor.prepare_images`."""
        ...

    def predict_each(
        self, prepared: Mapping[str, Any], wanted: Sequence[int]
    ) -> Iterator[tuple[int, Sequence[Prediction]]]:
        """Label maps of a batch for the wanted methods, given by their positions, in any order."""
        ...

    def describe_each(self) -> list[dict[str, Any]]:
        """Everything that determines the result of each method, as JSON values."""
        ...


class SinglePredictor:
    """The family of one method."""

    def __init__(self, predictor: Predictor) -> None:
        self.vocabularies = (predictor.vocabulary,)
        self.prepare_images = predictor.prepare_images
        self._predictor = predictor

    def predict_each(
        self, prepared: Mapping[str, Any], wanted: Sequence[int]
    ) -> Iterator[tuple[int, Sequence[Prediction]]]:
        """Label maps of the one method."""
        for position in wanted:
            yield position, self._predictor.predict(prepared)

    def describe_each(self) -> list[dict[str, Any]]:
        """The description of the one method."""
        return [self._predictor.describe()]


class JoinedFamily:
    """Families of any kinds as one, whose methods stand one family after the other."""

    def __init__(self, families: Sequence[PredictorFamily]) -> None:
        self.vocabularies = tuple(vocabulary for family in families for vocabulary in family.vocabularies)
        self.prepare_images = functools.partial(_prepare_for_each, [family.prepare_images for family in families])
        self._families = families

    def predict_each(
        self, prepared: Mapping[str, Any], wanted: Sequence[int]
    ) -> Iterator[tuple[int, Sequence[Prediction]]]:
        """Label maps of the wanted methods, family by family."""
        first = 0
        for number, family in enumerate(self._families):
            positions = range(first, first + len(family.vocabularies))
            inside = [position - first for position in wanted if position in positions]
            for position, predictions in family.predict_each(prepared[str(number)], inside) if inside else ():
                yield first + position, predictions
            first = positions.stop

    def describe_each(self) -> list[dict[str, Any]]:
        """The descriptions that the families give."""
        return [description for family in self._families for description in family.describe_each()]


def _prepare_for_each(
    kinds: Sequence[Callable[..., Mapping[str, Any]]], images: list[Image.Image], **of_regions: Any
) -> dict[str, Mapping[str, Any]]:
    """By number of the family."""
    return {str(number): prepare(images, **of_regions) for number, prepare in enumerate(kinds)}
