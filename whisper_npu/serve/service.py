"""What all protocols offer: a recording -> what is heard in it, as it is found."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whisper_npu.errors import OptionError
from whisper_npu.events import WindowDone
from whisper_npu.languages import LANGUAGES, language_code
from whisper_npu.listening import hear
from whisper_npu.options.transcription import AUTO
from whisper_npu.serve.refusals import TOO_LARGE, Refusal
from whisper_npu.serve.uploads import seconds
from whisper_npu.transcribe import Transcription
from whisper_npu.transcript import Segment, Transcript

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from whisper_npu.events import Event
    from whisper_npu.listening import Features
    from whisper_npu.options import TranscribeOptions
    from whisper_npu.options.serving import ServeOptions
    from whisper_npu.serve.metrics import Metrics
    from whisper_npu.serve.models import Models
    from whisper_npu.serve.queue import Place, Queue
    from whisper_npu.serve.uploads import Upload

    Float = NDArray[np.float32]

_DETECTED = 30.0  # seconds in which the language is looked for


class _LeftError(Exception):
    """The client has left: nobody waits for these features."""


@dataclass(frozen=True)
class Service:
    """The models, the queue before them, and what is asked of them unless a request says more."""

    models: Models
    queue: Queue
    defaults: TranscribeOptions
    options: ServeOptions
    metrics: Metrics

    async def transcribe(
        self, place: Place, upload: Upload, model: str, options: TranscribeOptions
    ) -> AsyncGenerator[Event | Transcript, None]:
        """What is heard, as it is found, and at last all of it.

        Raises Refusal, TimeoutError, AudioError, OptionError, ModelError, DeviceError.
        """
        async with self.queue.turn(place):
            features = await place.within(self._features(upload, model, options))
            self.metrics.audio(features.duration)
            windows = self._windows(model, features, options)
            async with aclosing(self.queue.steps(place, windows)) as steps:
                async for found in steps:
                    for event in found:
                        yield event

    async def language(self, place: Place, upload: Upload, model: str) -> tuple[str, float]:
        """The language at the beginning of a recording, and how sure it is. Raises as above."""
        if not self.models.checkpoint(model).is_multilingual:
            return "en", 1.0
        async with self.queue.turn(place):
            features = await place.within(
                self._features(upload, model, self.defaults, at_most=_DETECTED)
            )
            return await place.within(self.queue.run(self._language, model, features))

    def _language(self, name: str, features: Features) -> tuple[str, float]:
        with self.models.using(name) as model:
            encoded = model.device.encode(features.window(0, silence=True))
            probabilities, _ = model.decoder.detect_language(encoded)
        return max(probabilities.items(), key=lambda pair: pair[1])

    async def _features(
        self, upload: Upload, model: str, options: TranscribeOptions, at_most: float | None = None
    ) -> Features:
        """Features of a recording, or of its first seconds; made in a thread that ends with us."""
        n_mels = self.models.checkpoint(model).dims.n_mels
        left = threading.Event()

        def made() -> Features:
            with upload.blocks() as blocks:
                return hear(self._within(blocks, at_most, left), n_mels, options)

        try:
            return await asyncio.to_thread(made)
        finally:
            left.set()

    def _within(
        self, blocks: Iterator[Float], at_most: float | None, left: threading.Event
    ) -> Iterator[Float]:
        """The blocks, as long as they are wanted. Raises Refusal for too long a recording."""
        n_samples = 0
        for block in blocks:
            if left.is_set():
                raise _LeftError
            n_samples += len(block)
            if at_most is not None and seconds(n_samples) >= at_most:
                yield block
                return
            if seconds(n_samples) > self.options.max_audio:
                longest = f"{self.options.max_audio:g} s"
                raise Refusal(TOO_LARGE, f"the recording is longer than {longest}", code="too_long")
            yield block

    def _windows(
        self, name: str, features: Features, options: TranscribeOptions
    ) -> Iterator[list[Event | Transcript]]:
        """What each window brings; runs in the thread of the models."""
        began, segments = time.monotonic(), []
        with self.models.using(name) as model:
            transcription = Transcription(model, features, options)
            found: list[Event | Transcript] = []
            for event in transcription:
                found.append(event)
                if isinstance(event, Segment):
                    segments.append(event)
                if isinstance(event, WindowDone):
                    self.metrics.window(time.monotonic() - began)
                    yield found
                    found = []
                    began = time.monotonic()
            yield [*found, transcription.transcript(segments)]


def language(text: str | None, default: str = AUTO) -> str:
    """The language that a client names: en, English, en-US, en_GB. Raises OptionError."""
    if not text or text.lower() == AUTO:
        return default
    try:
        return language_code(text)
    except OptionError:
        code = text.replace("_", "-").partition("-")[0].lower()
        if code in LANGUAGES and code != text.lower():
            return code
        raise
