"""Several methods that are evaluated side by side, so that they can share work; one method is the family of one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from PIL import Image

from ...processing import Vocabulary
from .predictor import Prediction, Predictor

__all__ = ["PredictorFamily", "SinglePredictor"]


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
