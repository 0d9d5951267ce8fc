"""Model agent: market.log -> scenario sets and their listings. One owner, one unit."""

from __future__ import annotations

from schemas.topics import CHECKPOINTS_MODEL, MARKET_LOG
from streams.engine.model_epochs import ModelEpochs
from streams.pipeline.config import PipelineConfig
from streams.runtime.worker import make_app, run_worker


class ModelFactory:
    def empty(self, unit: int) -> ModelEpochs:
        return ModelEpochs()

    def load(self, unit: int, raw: bytes) -> ModelEpochs:
        return ModelEpochs.load(raw)

    def unit_of(self, topic: str, partition: int) -> int:
        return 0


def run(config: PipelineConfig, name: str) -> int:
    """Run the model worker until it is told to stop."""
    app = make_app(
        "model", [MARKET_LOG], ModelFactory(), config.settings(), name=name, checkpoint_topic=CHECKPOINTS_MODEL
    )
    return run_worker(app)
