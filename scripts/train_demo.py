#!/usr/bin/env python3
"""Train the demo model from scratch on the CPU and export it in Hugging Face format.

    scripts/train_demo.py --out models/demo           # everything, from the seed
    scripts/train_demo.py --resume last.pt ...        # go on after an interruption

Needs torch, tokenizers, safetensors, soundfile, soxr, espeak-ng and flite.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from demo_speech import HELD_OUT, RATE, WORDS, Clip, noises, recorded, synthesise
from demo_windows import (
    IGNORE,
    POSITION,
    Batch,
    Speakers,
    Vocabulary,
    Windows,
    log_mel,
    train_tokenizer,
)
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.nn import functional

from whisper_npu.checkpoint import Checkpoint
from whisper_npu.tokenizer import Tokenizer

N_SYNTHETIC = 2400
N_TIMESTAMPS = 1501


@dataclass(frozen=True)
class Sizes:
    """Dimensions of the model, named as in config.json."""

    vocab_size: int
    d_model: int = 128
    encoder_layers: int = 3
    decoder_layers: int = 2
    attention_heads: int = 4
    num_mel_bins: int = 80
    max_source_positions: int = 1500
    max_target_positions: int = 448


class Attention(nn.Module):
    """Multi-head attention with Hugging Face's parameter names; keys have no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, source: Tensor, *, causal: bool = False) -> Tensor:
        """x: (B, T, D) asks; source: (B, C, D) answers."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q_proj(x), self.k_proj(source), self.v_proj(source))
        )
        if k.shape[2] > 1000:
            out = functional.scaled_dot_product_attention(q, k, v)
        else:  # in bfloat16 faster than the fused form, which saves memory alone
            scores = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
            if causal:
                scores = scores + torch.full_like(scores[0, 0], -1e4).triu(1)
            out = scores.softmax(-1) @ v
        return self.out_proj(out.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A pre-norm layer of the encoder, or of the decoder (which also looks at the encoder)."""

    def __init__(self, width: int, heads: int, *, cross: bool) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        if cross:
            self.encoder_attn = Attention(width, heads)
            self.encoder_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, encoded: Tensor | None = None) -> Tensor:
        """x: (B, T, D); encoded: (B, C, D) for the decoder."""
        normed = self.self_attn_layer_norm(x)
        x = x + self.self_attn(normed, normed, causal=encoded is not None)
        if encoded is not None:
            x = x + self.encoder_attn(self.encoder_attn_layer_norm(x), encoded)
        hidden = functional.gelu(self.fc1(self.final_layer_norm(x)))
        return x + self.fc2(hidden)


def sinusoids(length: int, channels: int) -> Tensor:
    """Whisper's fixed positions: (length, channels)."""
    step = math.log(10000) / (channels // 2 - 1)
    angles = torch.arange(length)[:, None] * torch.exp(-step * torch.arange(channels // 2))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Encoder(nn.Module):
    """log-mel to audio positions."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.d_model
        self.conv1 = nn.Conv1d(sizes.num_mel_bins, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        for conv in (self.conv1, self.conv2):
            conv.weight.data *= 3  # else the positions drown the sound, and learning starts late
        self.embed_positions = nn.Embedding(sizes.max_source_positions, width)
        self.embed_positions.weight.data = sinusoids(sizes.max_source_positions, width)
        self.embed_positions.weight.requires_grad = False
        self.layers = nn.ModuleList(
            Layer(width, sizes.attention_heads, cross=False) for _ in range(sizes.encoder_layers)
        )
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, mel: Tensor, offsets: Tensor) -> Tensor:
        """mel: (B, 80, F), offsets: (B,) position of the first frames -> (B, F / 2, D)."""
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.embed_positions(offsets[:, None] + torch.arange(x.shape[1]))
        for layer in self.layers:
            x = layer(x)
        return self.layer_norm(x)


class Decoder(nn.Module):
    """Tokens and audio positions to logits."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.d_model
        self.embed_tokens = nn.Embedding(sizes.vocab_size, width)
        self.embed_positions = nn.Embedding(sizes.max_target_positions, width)
        # a timestamp is its position in the encoder, mapped: 1501 tokens learn together
        self.register_buffer("times", sinusoids(N_TIMESTAMPS, width), persistent=False)
        self.time_map = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.time_map.weight)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        nn.init.normal_(self.embed_positions.weight, std=0.01)
        self.layers = nn.ModuleList(
            Layer(width, sizes.attention_heads, cross=True) for _ in range(sizes.decoder_layers)
        )
        self.layer_norm = nn.LayerNorm(width)

    def embeddings(self) -> Tensor:
        """What the exported model has as its token embeddings: (V, D)."""
        n_text = self.embed_tokens.num_embeddings - N_TIMESTAMPS
        text, times = self.embed_tokens.weight[:n_text], self.embed_tokens.weight[n_text:]
        return torch.cat([text, times + self.time_map(self.times)])

    def forward(self, tokens: Tensor, encoded: Tensor, embeddings: Tensor) -> Tensor:
        """tokens: (B, T), encoded: (B, C, D) -> hidden state before the logits (B, T, D)."""
        x = functional.embedding(tokens, embeddings)
        x = x + self.embed_positions.weight[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, encoded)
        return self.layer_norm(x)


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy; of a timestamp, its neighbours within 0.06 s are right as well, but less.

    logits: (N, V), targets: (N,): the times that we learn from are no more exact than that.
    """
    logs = logits.log_softmax(-1)
    first, last = logits.shape[1] - N_TIMESTAMPS, logits.shape[1] - 1
    steps = torch.arange(-3, 4)
    shares = torch.exp(-((steps / 1.5) ** 2) / 2)
    near = (targets[:, None] + steps).clamp(first, last)
    smooth = (logs.gather(1, near) * (shares / shares.sum())).sum(1)
    exact = logs.gather(1, targets[:, None])[:, 0]
    return -torch.where(targets >= first, smooth, exact).mean()


class Whisper(nn.Module):
    """The model, with a CTC head over words that exists for training alone."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.encoder = Encoder(sizes)
        self.decoder = Decoder(sizes)
        self.ctc_head = nn.Linear(sizes.d_model, len(WORDS) + 1)

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy per learnt token, and CTC per word in the window."""
        encoded = self.encoder(batch.mel, batch.offsets)
        embeddings = self.decoder.embeddings()
        hidden = self.decoder(batch.tokens, encoded, embeddings)
        learnt = batch.targets != IGNORE
        logits = functional.linear(hidden[learnt], embeddings)
        tokens = token_loss(logits.float(), batch.targets[learnt])
        words = functional.ctc_loss(
            self.ctc_head(encoded).float().log_softmax(-1).transpose(0, 1),
            batch.words,
            torch.full((len(encoded),), encoded.shape[1]),
            batch.word_counts,
            reduction="sum",
            zero_infinity=True,
        ) / batch.word_counts.sum().clamp(min=1)
        return tokens, words


# Until which share of the training: how much of it is hard (spoiled audio, anywhere in the 30 s,
# after a prompt), and the window lengths in seconds with their shares. Too hard too early, and the
# encoder does not begin to learn.
PLAN: list[tuple[float, float, dict[float, float]]] = [
    (0.06, 0.0, {3.0: 0.6, 5.0: 0.4}),
    (0.20, 0.25, {3.0: 0.5, 5.0: 0.35, 8.0: 0.15}),
    (0.30, 0.5, {3.0: 0.3, 5.0: 0.3, 8.0: 0.25, 12.0: 0.15}),
    (0.65, 0.6, {4.0: 0.3, 8.0: 0.3, 12.0: 0.1, 30.0: 0.3}),
    (1.00, 0.6, {4.0: 0.15, 8.0: 0.25, 12.0: 0.15, 30.0: 0.45}),
]


def make_plan(steps: int, seed: int) -> list[tuple[float, bool]]:
    """For every step: window length in seconds, and whether it is a hard one."""
    rng = np.random.default_rng(seed)
    plan = []
    for step in range(steps):
        _, hard, lengths = next(stage for stage in PLAN if step < stage[0] * steps)
        length = float(rng.choice(list(lengths), p=list(lengths.values())))
        plan.append((length, bool(rng.random() < hard)))
    return plan


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm up, hold, and fall linearly over the last 40 %."""
    return peak * min(1.0, (step + 1) / 150, (steps - step) / (0.4 * steps))


@torch.no_grad()
def following_heads(model: Whisper, vocabulary: Vocabulary, clips: list[Clip]) -> list[list[int]]:
    """The (layer, head) pairs of cross-attention that look at each word while it is written.

    Word times are read off these heads. A head's score is how often its peak lies within the word.
    """
    hits: dict[tuple[int, int], list[bool]] = {}
    for clip in clips:
        samples = np.zeros(30 * RATE, np.float32)
        samples[: len(clip.samples)] = clip.samples / np.float32(32768)
        encoded = model.encoder(log_mel(samples)[None], torch.zeros(1, dtype=torch.int64))
        words = [vocabulary.words[word] for word, _, _ in clip.words]
        x = torch.tensor([[vocabulary.sot, vocabulary.no_timestamps, *words]])
        x = functional.embedding(x, model.decoder.embeddings())
        x = x + model.decoder.embed_positions.weight[: x.shape[1]]
        for number, layer in enumerate(cast("list[Layer]", model.decoder.layers)):
            attention = layer.encoder_attn
            asked = layer.self_attn_layer_norm(x)
            asked = x + layer.self_attn(asked, asked, causal=True)
            q = attention.q_proj(layer.encoder_attn_layer_norm(asked))[0, 1:-1]
            q, k = (
                y.unflatten(-1, (attention.heads, -1)) for y in (q, attention.k_proj(encoded)[0])
            )
            peaks = torch.einsum("thd,chd->htc", q, k).argmax(-1) * POSITION
            for head, row in enumerate(peaks.tolist()):
                found = hits.setdefault((number, head), [])
                found += [
                    start - 1600 <= peak <= end + 1600
                    for peak, (_, start, end) in zip(row, clip.words, strict=True)
                ]
            x = layer(x, encoded)
    scores = {pair: float(np.mean(found)) for pair, found in hits.items()}
    print("words found by each (layer, head):", {p: round(s, 2) for p, s in scores.items()})
    return [list(pair) for pair, score in scores.items() if score >= 0.8 * max(scores.values())]


def export(weights: dict[str, Tensor], sizes: Sizes, heads: list[list[int]], folder: Path) -> None:
    """Write a Hugging Face folder: weights in float16, tokenizer and configuration.

    heads: (layer, head) of the cross-attention that word times are read off
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"model.{name}": value.half().contiguous()
        for name, value in weights.items()
        if not name.startswith(("ctc_head", "decoder.time_map"))
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    tokenizer = train_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    v = Vocabulary.of(tokenizer)
    ids = {"bos_token_id": v.eot, "eos_token_id": v.eot, "pad_token_id": v.eot}
    ours = Tokenizer(Checkpoint(folder))
    common: dict[str, Any] = {**ids, "decoder_start_token_id": v.sot}
    width = sizes.d_model
    config = {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "activation_function": "gelu",
        "d_model": width,
        "encoder_layers": sizes.encoder_layers,
        "decoder_layers": sizes.decoder_layers,
        "num_hidden_layers": sizes.encoder_layers,
        "encoder_attention_heads": sizes.attention_heads,
        "decoder_attention_heads": sizes.attention_heads,
        "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width,
        "num_mel_bins": sizes.num_mel_bins,
        "max_source_positions": sizes.max_source_positions,
        "max_target_positions": sizes.max_target_positions,
        "max_length": sizes.max_target_positions,
        "vocab_size": sizes.vocab_size,
        "is_encoder_decoder": True,
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        **common,
    }
    generation = {
        "is_multilingual": False,
        "alignment_heads": heads,
        "begin_suppress_tokens": list(ours.blank),
        "suppress_tokens": list(ours.suppressed((-1,))),
        "no_timestamps_token_id": v.timestamp_begin - 1,
        "prev_sot_token_id": v.sot_prev,
        "max_initial_timestamp_index": 50,
        "max_length": sizes.max_target_positions,
        "return_timestamps": True,
        **common,
    }
    preprocessor = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": sizes.num_mel_bins,
        "sampling_rate": 16000,
        "n_fft": 400,
        "hop_length": 160,
        "chunk_length": 30,
        "n_samples": 480000,
        "nb_max_frames": 3000,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }
    for name, value in (
        ("config", config),
        ("generation_config", generation),
        ("preprocessor_config", preprocessor),
    ):
        text = json.dumps(value, indent=2) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


class Trainer:
    """The model with what training keeps beside it: working copy, averages, optimizers, step."""

    def __init__(self, sizes: Sizes) -> None:
        self.model = Whisper(sizes)  # exact weights
        self.working = Whisper(sizes).bfloat16()  # computes with copies of them
        self.averaged = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.step = 0
        trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        matrices = {n: p for n, p in trained.items() if p.ndim == 2 and ".layers." in n}
        others = [p for n, p in trained.items() if n not in matrices]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
            torch.optim.Muon(
                list(matrices.values()), weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
            ),
        ]

    def learn(self, batch: Batch, rate: float, ctc_weight: float) -> tuple[float, float]:
        """One step; the two losses."""
        with torch.no_grad():
            for theirs, ours in zip(
                self.working.parameters(), self.model.parameters(), strict=True
            ):
                theirs.copy_(ours)
        self.working.zero_grad()
        tokens, words = self.working.losses(batch)
        torch.autograd.backward(tokens + ctc_weight * words)
        self._gather_gradients()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        self.step += 1
        decay = min(0.99, self.step / (self.step + 9))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.averaged[name].lerp_(value, 1 - decay)
        return float(tokens.detach()), float(words.detach())

    def _gather_gradients(self) -> None:
        """Give the exact weights the working copy's gradients, averaged over all processes."""
        pairs = [
            (theirs.grad, ours)
            for theirs, ours in zip(self.working.parameters(), self.model.parameters(), strict=True)
            if theirs.grad is not None
        ]
        flat = torch.cat([gradient.flatten() for gradient, _ in pairs]).float()
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for part, (_, ours) in zip(
            torch.split(flat, [p.numel() for _, p in pairs]), pairs, strict=True
        ):
            ours.grad = part.view_as(ours)

    def save(self, path: Path) -> None:
        """A checkpoint to resume from."""
        state = {
            "model": self.model.state_dict(),
            "averaged": self.averaged,
            "step": self.step,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        saved = torch.load(path, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.averaged, self.step = saved["averaged"], saved["step"]
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)


def training_windows(options: argparse.Namespace, vocabulary: Vocabulary) -> Windows:
    """All the speech but the held-out speakers', in windows."""
    clips = [clip for clip in recorded(options.data) if clip.speaker not in HELD_OUT]
    clips += synthesise(N_SYNTHETIC, 1, options.cache)
    return Windows(
        Speakers(clips),
        vocabulary,
        make_plan(options.steps, options.seed),
        seed=options.seed,
        recordings=noises(options.data, "noise"),
        rooms=noises(options.data, "rir"),
        parts=options.processes,
    )


def train(rank: int, options: argparse.Namespace) -> None:
    """One process of the training; each has its own windows, all have the same weights.

    One thread a process: on a busy machine two threads wait for one another most of the time.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rendezvous = f"file://{options.cache.resolve()}/{options.name}.rendezvous"
    distributed.init_process_group(
        "gloo", init_method=rendezvous, rank=rank, world_size=options.processes
    )
    torch.manual_seed(options.seed)
    vocabulary = Vocabulary.of(train_tokenizer())
    sizes = Sizes(vocab_size=vocabulary.size)
    trainer = Trainer(sizes)
    if options.resume:
        trainer.load(options.resume)
    windows = training_windows(options, vocabulary)
    numbers = range(trainer.step * options.processes + rank, len(windows), options.processes)
    loader = torch.utils.data.DataLoader(
        windows, batch_size=None, sampler=numbers, num_workers=1, prefetch_factor=8
    )
    losses = []
    for batch in loader:
        done = trainer.step / options.steps
        batch.mel = batch.mel.bfloat16()
        rate = learning_rate(trainer.step, options.steps, options.rate)
        losses.append(trainer.learn(batch, rate, 1.0 if done < 0.7 else 0.5))
        if rank == 0 and trainer.step % options.log == 0:
            tokens, words = np.mean(losses, axis=0)
            losses.clear()
            now = time.strftime("%H:%M:%S")
            print(f"{now} step {trainer.step} tokens {tokens:.3f} ctc {words:.3f}", flush=True)
        if rank == 0 and (trainer.step % 250 == 0 or trainer.step == options.steps):
            trainer.save(options.cache / f"{options.name}.pt")
    if rank == 0:
        trainer.model.load_state_dict(trainer.averaged)
        clips = [clip for clip in recorded(options.data) if clip.source == "an4"]
        heads = following_heads(trainer.model, vocabulary, clips[::20])
        weights = trainer.model.state_dict()
        weights["decoder.embed_tokens.weight"] = trainer.model.decoder.embeddings().detach()
        export(weights, sizes, heads, options.out)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data/train_pack"))
    parser.add_argument(
        "--cache", type=Path, default=Path("build/demo"), help="for made speech and checkpoints"
    )
    parser.add_argument("--out", type=Path, default=Path("models/demo"))
    parser.add_argument("--name", default="last", help="of the checkpoint in the cache")
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--steps", type=int, default=13500)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--log", type=int, default=50)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    synthesise(N_SYNTHETIC, 1, options.cache)  # before the processes, which would do it twice
    (options.cache / f"{options.name}.rendezvous").unlink(missing_ok=True)
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=train, args=(r, options)) for r in range(options.processes)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a training process failed")


if __name__ == "__main__":
    main()
