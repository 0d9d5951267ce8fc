"""The risk model of an installation, as its newest checkpoint has it."""

from __future__ import annotations

from schemas.topics import CHECKPOINTS_MODEL
from streams.engine.model_epochs import ModelEpochs
from streams.runtime.checkpoints import CheckpointReader
from streams.runtime.log_reader import LogReader
from streams.runtime.settings import RuntimeSettings


async def newest_model(settings: RuntimeSettings) -> ModelEpochs | None:
    """None where no model has written a checkpoint."""
    reader = LogReader(settings)
    await reader.start()
    try:
        topic = settings.topic(CHECKPOINTS_MODEL)
        if topic not in await reader.topics():
            return None
        found = await CheckpointReader(reader, topic).newest(0)
        return None if found is None else ModelEpochs.load(found.state)
    finally:
        await reader.stop()


def mean_open_interest_usd(model: ModelEpochs) -> dict[str, float]:
    """By underlying, where any was stated by the time of the last bar."""
    if model.model is None:
        return {}
    means = zip(model.model.spec.underlyings, model.model.open_interest[:, 1].tolist(), strict=True)
    return {name: mean for name, mean in means if mean > 0.0}
