"""Whisper programs under one interface, each in a process of its own, for `bench_peers.py`.

    peers.py serve PEER MODEL THREADS            answers requests on stdin, one a line
    peers.py once PEER MODEL THREADS CLIP N      transcribes a clip, N tokens a window, and ends

A request is a JSON list, ["encode"] or ["decode", n, beams] or ["steps", n, beams]; the answer is
a JSON list of the seconds that it took and of the tokens that were decoded. A tool for development,
never imported by the program.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LANGUAGE = "en"


class Peer(Protocol):
    """One program with a model loaded; it works on a window of noise."""

    def encode(self) -> None:
        """Encode the window."""
        ...

    def decode(self, n: int, beams: int) -> int:
        """Decode n tokens of the encoded window, without timestamps; how many there were."""
        ...

    def transcribe(self, clip: str, n: int) -> None:
        """A recording from its file, n tokens in each window."""
        ...


def noise() -> NDArray[np.float32]:
    """(480000,) float32: 30 s at 16 kHz."""
    return np.random.default_rng(0).standard_normal(480_000, np.float32) * np.float32(0.1)


def window(n_mels: int) -> NDArray[np.float32]:
    """(n_mels, 3000) float32."""
    return np.random.default_rng(0).standard_normal((n_mels, 3000), np.float32)


class Ours:
    """This project. `transcribe` is not here: it is measured through the command line."""

    def __init__(self, model: str, threads: int) -> None:
        from pathlib import Path

        from whisper_npu.checkpoint import Checkpoint
        from whisper_npu.decoding import Decoder
        from whisper_npu.devices.opening import open_device
        from whisper_npu.options import DeviceOptions
        from whisper_npu.tokenizer import Tokenizer

        checkpoint = Checkpoint(Path(model))
        self._mel = window(checkpoint.dims.n_mels)
        self._device = open_device(checkpoint, DeviceOptions("cpu", threads=threads))
        self._encoded = self._device.encode(self._mel)
        tokenizer = Tokenizer(checkpoint)
        self._decoder = Decoder(self._device, tokenizer, checkpoint.dims.n_text_ctx)

    def encode(self) -> None:
        """With the keys and values of cross-attention, which others compute later."""
        self._encoded = self._device.encode(self._mel)

    def decode(self, n: int, beams: int) -> int:
        from whisper_npu.options.decoding import DecodingOptions

        options = DecodingOptions(
            language=LANGUAGE,
            beam_size=beams if beams > 1 else None,
            sample_len=n,
            without_timestamps=True,
        )
        return len(self._decoder.decode(self._encoded, options, np.random.default_rng(0)).tokens)

    def steps(self, n: int, beams: int) -> int:
        """The device alone: no search, no filters."""
        session = self._device.session(self._encoded, beams=beams)
        session.step(np.zeros((1, 4), np.int64))
        session.reorder([0] * beams)
        for _ in range(n):
            session.step(np.zeros((beams, 1), np.int64))
        session.close()
        return n

    def transcribe(self, clip: str, n: int) -> None:
        raise NotImplementedError(clip, n)


class FasterWhisper:
    """SYSTRAN/faster-whisper, int8.

    CTranslate2 decodes half as many tokens as max_length says, whatever the prompt.
    """

    PROMPT = (50258, 50259, 50359, 50363)  # English, transcribe, no timestamps

    def __init__(self, model: str, threads: int) -> None:
        from faster_whisper import WhisperModel

        self._model = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=threads)
        self._mel = window(80)

    def encode(self) -> None:
        self._encoded = self._model.encode(self._mel)

    def decode(self, n: int, beams: int) -> int:
        found = self._model.model.generate(
            self._encoded, [list(self.PROMPT)], beam_size=beams, max_length=2 * n
        )
        return len(found[0].sequences_ids[0])

    def transcribe(self, clip: str, n: int) -> None:
        segments, _ = self._model.transcribe(
            clip, language=LANGUAGE, beam_size=1, temperature=0,
            max_new_tokens=2 * n - len(self.PROMPT),
            without_timestamps=True, condition_on_previous_text=False,
            compression_ratio_threshold=None, log_prob_threshold=None, no_speech_threshold=None,
        )  # fmt: skip
        print("".join(segment.text for segment in segments))


class OpenAI:
    """openai/whisper, float32."""

    def __init__(self, model: str, threads: int) -> None:
        import torch
        import whisper

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self._whisper = whisper
        self._model = whisper.load_model(model, device="cpu")
        self._mel = torch.from_numpy(window(80))[None]

    def encode(self) -> None:
        self._encoded = self._model.encoder(self._mel)

    def decode(self, n: int, beams: int) -> int:
        options = self._whisper.DecodingOptions(
            language=LANGUAGE, beam_size=beams if beams > 1 else None, sample_len=n,
            without_timestamps=True, fp16=False,
        )  # fmt: skip
        (result,) = self._whisper.decode(self._model, self._encoded, options)
        return len(result.tokens)

    def transcribe(self, clip: str, n: int) -> None:
        result = self._whisper.transcribe(
            self._model, clip, language=LANGUAGE, temperature=0, sample_len=n, fp16=False,
            without_timestamps=True, condition_on_previous_text=False,
            compression_ratio_threshold=None, logprob_threshold=None, no_speech_threshold=None,
        )  # fmt: skip
        print(result["text"])


class WhisperCpp:
    """ggml-org/whisper.cpp through pywhispercpp."""

    def __init__(self, model: str, threads: int) -> None:
        import _pywhispercpp as library

        self._library, self._threads = library, threads
        self._context = library.whisper_init_from_file_with_params(
            model, library.whisper_context_default_params()
        )
        pcm = noise()
        library.whisper_pcm_to_mel(self._context, pcm, len(pcm), threads)

    def encode(self) -> None:
        self._library.whisper_encode(self._context, 0, self._threads)

    def decode(self, n: int, beams: int) -> int:
        if beams > 1:  # encodes the window as well
            self._full(noise(), n, beams)
            return self._library.whisper_full_n_tokens(self._context, 0)
        for position in range(n):  # without sampling
            self._library.whisper_decode(self._context, 100, 1, position, self._threads)
        return n

    def _full(self, pcm: NDArray[np.float32], n: int, beams: int) -> None:
        library = self._library
        strategies = library.whisper_sampling_strategy
        params = library.whisper_full_default_params(
            strategies.WHISPER_SAMPLING_BEAM_SEARCH
            if beams > 1
            else strategies.WHISPER_SAMPLING_GREEDY
        )
        params.n_threads, params.language = self._threads, LANGUAGE
        params.max_tokens = n - 1  # it decodes one more
        params.no_timestamps = params.no_context = params.single_segment = True
        params.temperature_inc = 0.0
        params.print_progress = params.print_timestamps = False
        params.entropy_thold, params.logprob_thold, params.no_speech_thold = 0.0, -1e9, 1.0
        if beams > 1:
            params.beam_search = {"beam_size": beams, "patience": -1.0}
        library.whisper_full(self._context, params, pcm, len(pcm))

    def transcribe(self, clip: str, n: int) -> None:
        import wave

        with wave.open(clip) as file:
            pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        self._full(pcm.astype(np.float32) / np.float32(32768), n, 1)
        for i in range(self._library.whisper_full_n_segments(self._context)):
            print(self._library.whisper_full_get_segment_text(self._context, i))


PEERS: dict[str, Any] = {
    "ours": Ours,
    "faster-whisper": FasterWhisper,
    "openai-whisper": OpenAI,
    "whisper.cpp": WhisperCpp,
}


def serve(peer: Any) -> None:
    """Answer requests until stdin ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    peer.encode()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        begin = time.perf_counter()
        n = getattr(peer, name)(*arguments)
        print(json.dumps([time.perf_counter() - begin, n]), file=answers, flush=True)


def main() -> None:
    """Command line."""
    command, name, model, threads, *rest = sys.argv[1:]
    peer = PEERS[name](model, int(threads))
    if command == "serve":
        serve(peer)
    else:
        peer.transcribe(rest[0], int(rest[1]))


if __name__ == "__main__":
    main()
