"""A model that is loaded once, for all sessions: tells what kind of file it is given, from the bytes alone.

warmpool run examples/apps/model_inference.py predict --session new --input '{"path": "README.md"}'

The model is Magika's, which its package carries. It is loaded in `preload`, before the template forks, so no session
waits for it and all of them share its memory. That is right only in a process without threads, and three would start:
OpenBLAS has a pool from the import of numpy on, onnxruntime an uploader of telemetry from its own import on, and a
session of onnxruntime has a pool. Each is told not to, which is why the imports stand in a function.
"""

from __future__ import annotations

import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import model_validator

from warmpool import BaseApp, BaseAppInput, BaseAppOutput

if TYPE_CHECKING:
    from magika import Magika
    from onnxruntime import InferenceSession


class ModelInfo(BaseAppOutput):
    name: str
    package: str
    """The version of Magika."""
    labels: list[str]
    bytes: int
    """Of the file of the model."""
    load_seconds: float
    """What loading took once, imports and a first prediction included, and no session waited for."""
    loaded_by: int
    """The process that did it."""


class PredictInput(BaseAppInput):
    """What to look at: bytes, or text, which counts as its UTF-8; or the path of a file."""

    content: bytes | None = None
    path: Path | None = None

    @model_validator(mode="after")
    def check(self) -> Self:
        if (self.content is None) == (self.path is None):
            raise ValueError("give either `content` or `path`")
        return self


class Prediction(BaseAppOutput):
    label: str
    description: str
    mime_type: str
    group: str
    is_text: bool
    score: float


class ModelInference(BaseApp):
    model: ClassVar[Magika]
    info: ClassVar[ModelInfo]

    @classmethod
    def preload(cls) -> None:
        start = time.perf_counter()
        cls.model = load_magika()
        # What the first prediction allocates is then shared as well.
        cls.model.identify_bytes(Path(__file__).read_bytes())
        cls.info = describe(cls.model, time.perf_counter() - start)

    def load_model(self) -> ModelInfo:
        """What is loaded, and what that took."""
        return self.info

    def predict(self, input: PredictInput) -> Prediction:
        """The kind of the content, and how sure the model is of it."""
        if input.content is not None:
            result = self.model.identify_bytes(input.content)
        else:
            assert input.path is not None
            with input.path.open("rb") as file:  # of a large file only parts are read
                result = self.model.identify_stream(file)
        found = result.output
        return Prediction(
            label=str(found.label),
            description=found.description,
            mime_type=found.mime_type,
            group=found.group,
            is_text=found.is_text,
            score=result.score,
        )

    run = predict  # what is meant by a call that names no function


def load_magika() -> Magika:
    """Magika, in a process that has no thread but its own before and after."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime
    from magika import Magika

    class MagikaOfOneThread(Magika):
        def _init_onnx_session(self) -> InferenceSession:
            options = onnxruntime.SessionOptions()
            options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            return onnxruntime.InferenceSession(self._model_path, options, providers=["CPUExecutionProvider"])

    return MagikaOfOneThread()


def describe(model: Magika, seconds: float) -> ModelInfo:
    return ModelInfo(
        name=model.get_model_name(),
        package=version("magika"),
        labels=[str(label) for label in model.get_output_content_types()],
        bytes=model._model_path.stat().st_size,
        load_seconds=round(seconds, 3),
        loaded_by=os.getpid(),
    )
