"""What every method inherits."""

from dataclasses import dataclass

from vitlite.methods.base import Method
from vitlite.methods.config import TrainingConfig


@dataclass(frozen=True)
class Scored(TrainingConfig):
    score: str = "mean"


def test_the_image_score_in_words():
    assert Method(Scored(image_size=64)).image_score == "mean of the map at 64 pixels"


def test_the_image_score_of_a_config_without_that_field():
    assert Method(TrainingConfig(image_size=64)).image_score == "score of the map at 64 pixels"
