// The encoder: one parallel region. Rows go through everything between two attentions in blocks
// small enough for the L2 cache; each thread takes the next block or the next piece of attention.
#pragma once
#include "attention.h"

namespace whisper_npu::ISA {

constexpr int kBlock = 48;  // rows that share one reading of a layer's weights

inline int blocks(int n, int size) { return (n + size - 1) / size; }

// W: format of the linear layers; A: of the convolutions and of attention.
template <class W, class A>
class EncoderOf final : public Encoder {
 public:
  EncoderOf(Pool& pool, const Model& model)
      : pool_(pool), model_(model), threads_((size_t)pool.threads()) {
    const size_t frames = 2 * (size_t)model.n_ctx + 2, stride = (size_t)model.stride;
    n_mels_ = round_up(model.n_mels, kLanes);
    heads_width_ = model.audio_heads * model.head;
    // convolutions read three frames from one before the first: blocks may read past the end
    mel_.zeros((frames + 2 * kBlock) * n_mels_);
    hidden_.zeros((frames + 4 * kBlock) * stride);
    x_.reserve((size_t)model.n_ctx * stride);
    attended_.reserve((size_t)model.n_ctx * heads_width_);
    query_.reserve(model.n_ctx, heads_width_);
    cache_.reserve(model.audio_heads, model.head, model.n_ctx);
    for (int id = 0; id < pool.threads(); ++id) {
      Thread& own = threads_[id];
      const int widest = model.hidden > 3 * heads_width_ ? model.hidden : 3 * heads_width_;
      own.wide.reserve((size_t)kBlock * widest);
      own.line.reserve(stride);
      own.input.reserve(kBlock, model.stride > heads_width_ ? model.stride : heads_width_);
      own.hidden.reserve(kBlock, model.hidden);
      own.attention.reserve(model.head);
    }
  }

  void encode(const float* mel, int positions, float* features, Shown* shown) override {
    positions_ = positions;
    const int n_layers = (int)model_.encoder.size();
    shown_ = shown;
    if (!shown) {
      run(pool_, [&](int id) {
        begin(mel, id);
        for (int i = 0; i < n_layers; ++i) layer(i, features, id);
      });
      return;
    }
    for (int i = -1; i < n_layers; ++i) {
      shown->begin();
      run(pool_, [&](int id) { i < 0 ? begin(mel, id) : layer(i, features, id); });
      shown->end();
    }
  }

 private:
  struct Thread {
    Scratch<float> wide, line;
    Input<W> input, hidden;
    AttentionScratch<A> attention;
  };

  // The stem, and what comes before the first attention.
  void begin(const float* mel, int id) {
    Thread& own = threads_[id];
    stem(mel, own, id);
    each(blocks(positions_, kBlock), [&](int block) { before_attention(0, block, own); });
  }

  // From one attention to the next.
  void layer(int i, float* features, int id) {
    Thread& own = threads_[id];
    each(model_.audio_heads * blocks(positions_, kBlock),
         [&](int piece) { attention(piece, own); });
    each(blocks(positions_, kBlock), [&](int block) {
      after_attention(i, block, own);
      if (i + 1 < (int)model_.encoder.size())
        before_attention(i + 1, block, own);
      else
        finish(block, features);
    });
  }

  void show(Part part, int layer, int first, int n, const float* x, int stride) const {
    if (shown_) shown_->rows(part, layer, first, n, x, (size_t)stride);
  }

  // work(0) ... work(n - 1) among the threads, then a barrier.
  template <class Work>
  void each(int n, Work&& work) {
    for (int i; (i = pool_.next()) < n;) work(i);
    pool_.barrier();
    pool_.rewind();  // by all, to the same value
    pool_.barrier();
  }

  void stem(const float* mel, Thread& own, int id) {
    const Model& m = model_;
    const int frames = 2 * positions_, threads = pool_.threads();
    float* line = own.wide.data;
    if (id == 0)  // behind the last frame, where a longer window may have been
      memset(mel_.data + (size_t)(frames + 1) * n_mels_, 0, n_mels_ * sizeof *mel_.data);
    for (int t = frames * id / threads; t < frames * (id + 1) / threads; ++t) {
      for (int i = 0; i < n_mels_; ++i) line[i] = i < m.n_mels ? mel[(size_t)i * frames + t] : 0;
      for (int i = 0; i < n_mels_; i += kLanes)
        A::put(mel_.data + (size_t)(t + 1) * n_mels_ + i, load(line + i));
    }
    pool_.barrier();
    each(blocks(frames, kBlock), [&](int block) {
      const int first = block * kBlock, n = frames - first < kBlock ? frames - first : kBlock;
      const Rows<A> taps = {mel_.data + (size_t)first * n_mels_, nullptr, (size_t)n_mels_, n};
      linear<A>(taps, m.conv1, 0, m.conv1.n, [&](int row, int column, F value) {
        const F y = gelu(value);
        A::put(hidden_.data + (size_t)(first + row + 1) * m.stride + column, y);
        if (shown_) store(own.wide.data + (size_t)row * m.stride + column, y);
      });
      show(Part::kConv1, 0, first, n, own.wide.data, m.stride);
    });
    each(blocks(positions_, kBlock), [&](int block) {
      const int first = block * kBlock, n = positions_ - first < kBlock ? positions_ - first : kBlock;
      const Rows<A> taps = {hidden_.data + (size_t)2 * first * m.stride, nullptr,
                            (size_t)2 * m.stride, n};
      linear<A>(taps, m.conv2, 0, m.conv2.n, [&](int row, int column, F value) {
        const size_t place = (size_t)(first + row) * m.stride + column;
        const F y = gelu(value);
        store(x_.data + place, y + load(m.audio_positions + place));
        if (shown_) store(own.wide.data + (size_t)row * m.stride + column, y);
      });
      show(Part::kConv2, 0, first, n, own.wide.data, m.stride);
      show(Part::kPositions, 0, first, n, x_.data + (size_t)first * m.stride, m.stride);
    });
  }

  Rows<W> normed(Part part, int layer, int first, int n, const Norm& norm, Thread& own) {
    const float* x = x_.data + (size_t)first * model_.stride;
    const Rows<W> rows = own.input.rows(n);
    for (int i = 0; i < n; ++i) {
      layer_norm(x + (size_t)i * model_.stride, norm.weight, norm.bias, model_.width,
                 [&](int j, F value) { store(own.line.data + j, value); });
      for (int j = round_up(model_.width, kLanes); j < model_.stride; ++j) own.line[j] = 0;
      show(part, layer, first + i, 1, own.line.data, model_.stride);
      prepare<W>(rotated<W>(own.line.data, model_.stride, own.line.data), model_.stride, rows, i);
    }
    return rows;
  }

  void before_attention(int i, int block, Thread& own) {
    const Layer& layer = model_.encoder[i];
    const int first = block * kBlock;
    const int n = positions_ - first < kBlock ? positions_ - first : kBlock;
    const int wide = 3 * heads_width_, width = model_.head;
    const Rows<W> input = normed(Part::kNorm, i, first, n, layer.norm, own);
    linear<W>(input, layer.qkv, 0, round_up(wide, kLanes), [&](int row, int column, F value) {
      store(own.wide.data + (size_t)row * wide + column, value);
    });
    show(Part::kQuery, i, first, n, own.wide.data, wide);
    show(Part::kKey, i, first, n, own.wide.data + heads_width_, wide);
    show(Part::kValue, i, first, n, own.wide.data + 2 * heads_width_, wide);
    const Rows<A> query = query_.rows(positions_);
    for (int row = 0; row < n; ++row) {
      const float* line = own.wide.data + (size_t)row * wide;
      prepare<A>(line, heads_width_, query, first + row);
      for (int h = 0; h < model_.audio_heads; ++h) {
        cache_.head(h).put_key(first + row, line + heads_width_ + h * width);
        cache_.head(h).put_value(first + row, line + 2 * heads_width_ + h * width);
      }
    }
  }

  void attention(int piece, Thread& own) {
    const int per_head = blocks(positions_, kBlock);
    const int h = piece / per_head, first = piece % per_head * kBlock;
    const int n = positions_ - first < kBlock ? positions_ - first : kBlock;
    Rows<A> query = query_.rows(n);
    query.data += query.stride * (size_t)first + h * model_.head;
    attend<A, A>(query, cache_.head(h), positions_, 0, own.attention,
                 attended_.data + (size_t)first * heads_width_ + h * model_.head,
                 (size_t)heads_width_);
  }

  void after_attention(int i, int block, Thread& own) {
    const Layer& layer = model_.encoder[i];
    const int first = block * kBlock;
    const int n = positions_ - first < kBlock ? positions_ - first : kBlock;
    float* x = x_.data + (size_t)first * model_.stride;
    const auto add = [&](int row, int column, F value) {
      float* place = x + (size_t)row * model_.stride + column;
      store(place, load(place) + value);
    };
    show(Part::kMixed, i, first, n, attended_.data + (size_t)first * heads_width_, heads_width_);
    const Rows<W> input = own.input.rows(n);
    for (int row = 0; row < n; ++row) {
      float* line = attended_.data + (size_t)(first + row) * heads_width_;
      prepare<W>(rotated<W>(line, heads_width_, line), heads_width_, input, row);
    }
    linear<W>(input, layer.out, 0, layer.out.n, add);
    show(Part::kOut, i, first, n, x, model_.stride);
    const Rows<W> middle = normed(Part::kMlpNorm, i, first, n, layer.mlp_norm, own);
    const Rows<W> hidden = own.hidden.rows(n);
    if constexpr (kQuantised<W>) {  // the scale of a row needs all of it
      linear<W>(middle, layer.fc1, 0, layer.fc1.n, [&](int row, int column, F value) {
        store(own.wide.data + (size_t)row * model_.hidden + column, gelu(value));
      });
    } else {
      linear<W>(middle, layer.fc1, 0, layer.fc1.n, [&](int row, int column, F value) {
        const F y = gelu(value);
        W::put(hidden.data + hidden.stride * (size_t)row + column, y);
        if (shown_) store(own.wide.data + (size_t)row * model_.hidden + column, y);
      });
    }
    show(Part::kFc1, i, first, n, own.wide.data, model_.hidden);
    if constexpr (kQuantised<W>) {
      for (int row = 0; row < n; ++row) {
        float* line = own.wide.data + (size_t)row * model_.hidden;
        prepare<W>(rotated<W>(line, model_.hidden, line), model_.hidden, hidden, row);
      }
    }
    linear<W>(hidden, layer.fc2, 0, layer.fc2.n, add);
    show(Part::kFc2, i, first, n, x, model_.stride);
  }

  void finish(int block, float* features) {
    const int first = block * kBlock;
    const int n = positions_ - first < kBlock ? positions_ - first : kBlock;
    for (int row = first; row < first + n; ++row)
      layer_norm(x_.data + (size_t)row * model_.stride, model_.encoder_norm.weight,
                 model_.encoder_norm.bias, model_.width, [&](int j, F value) {
                   store(features + (size_t)row * model_.stride + j, value);
                 });
    show(Part::kEnd, 0, first, n, features + (size_t)first * model_.stride, model_.stride);
  }

  Pool& pool_;
  const Model& model_;
  Shown* shown_ = nullptr;
  int n_mels_, heads_width_, positions_ = 0;
  Scratch<typename A::Activation> mel_, hidden_;
  Scratch<float> x_, attended_;
  Input<A> query_;
  Cache<A, A> cache_;
  Row<Thread> threads_;
};

}  // namespace whisper_npu::ISA
