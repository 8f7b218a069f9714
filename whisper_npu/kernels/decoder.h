// The decoder: one parallel region for a step of all hypotheses, so that weights are read once.
//
// Threads share the outputs of each linear layer, or the heads, with a barrier between; each
// normalises and quantises all rows for itself, which is cheaper than another barrier.
#pragma once
#include "attention.h"
#include "encoder.h"

namespace whisper_npu::ISA {

template <class K, class V>
class EncodedAs final : public Encoded {
 public:
  EncodedAs(const Model& model, int positions)
      : positions_(positions), caches_(model.decoder.size()) {
    for (size_t i = 0; i < model.decoder.size(); ++i)
      caches_[i].reserve(model.text_heads, model.head, positions);
  }

  int positions() const override { return positions_; }
  Cache<K, V>& layer(int i) const { return caches_[i]; }

  // Projects the audio features (positions, stride) for every layer.
  template <class W>
  void project(Pool& pool, const Model& model, const float* features, Shown* shown) {
    const int n_layers = (int)model.decoder.size();
    Row<Projecting<W>> threads((size_t)pool.threads());
    for (int id = 0; id < pool.threads(); ++id) {
      threads[id].input.reserve(kBlock, model.stride);
      threads[id].line.reserve((size_t)2 * model.text_heads * model.head * kBlock);
    }
    const auto layers = [&](int begin, int end) {
      run(pool, [&](int id) {
        for (int block; (block = pool.next()) < blocks(positions_, kBlock);)
          project_block(model, features, block * kBlock, begin, end, threads[id], shown);
      });
    };
    if (!shown) return layers(0, n_layers);
    for (int i = 0; i < n_layers; ++i) {
      shown->begin();
      layers(i, i + 1);
      shown->end();
    }
  }

  // Takes keys and values (positions, heads * width) of each layer as they are.
  void keep(Pool& pool, const Model& model, const float* const* keys, const float* const* values,
            int width) {
    run(pool, [&](int) {
      float line[1024] = {};  // a head's width is at most this (engine.cpp)
      const int n = (int)model.decoder.size() * model.text_heads;
      for (int piece; (piece = pool.next()) < n;) {
        const int i = piece / model.text_heads, h = piece % model.text_heads;
        HeadCache<K, V> head = layer(i).head(h);
        for (int t = 0; t < positions_; ++t) {
          const size_t place = ((size_t)t * model.text_heads + h) * width;
          memcpy(line, keys[i] + place, sizeof(float) * (size_t)width);
          head.put_key(t, line);
          memcpy(line, values[i] + place, sizeof(float) * (size_t)width);
          head.put_value(t, line);
        }
      }
    });
  }

 private:
  template <class W>
  struct Projecting {  // a thread's working memory
    Input<W> input;
    Scratch<float> line;
  };

  // Rows from `first` on, for some of the layers.
  template <class W>
  void project_block(const Model& model, const float* features, int first, int begin, int end,
                     Projecting<W>& own, Shown* shown) {
    const int wide = model.text_heads * model.head;
    const int n = positions_ - first < kBlock ? positions_ - first : kBlock;
    const Rows<W> rows = own.input.rows(n);
    for (int i = 0; i < n; ++i)
      prepare<W>(rotated<W>(features + (size_t)(first + i) * model.stride, model.stride, own.line.data),
                 model.stride, rows, i);
    for (int i = begin; i < end; ++i) {
      linear<W>(rows, model.decoder[i].cross_kv, 0, 2 * wide, [&](int row, int column, F value) {
        store(own.line.data + (size_t)row * 2 * wide + column, value);
      });
      if (shown) {
        shown->rows(Part::kCrossKey, i, first, n, own.line.data, (size_t)2 * wide);
        shown->rows(Part::kCrossValue, i, first, n, own.line.data + wide, (size_t)2 * wide);
      }
      for (int h = 0; h < model.text_heads; ++h) {
        HeadCache<K, V> head = layer(i).head(h);
        for (int row = 0; row < n; ++row) {
          const float* x = own.line.data + (size_t)row * 2 * wide + h * model.head;
          head.put_key(first + row, x);
          head.put_value(first + row, x + wide);
        }
      }
    }
  }

  const int positions_;
  Row<Cache<K, V>> caches_;
};

// W: format of the linear layers; K, V: of keys and values.
template <class W, class K, class V>
class SessionOf final : public Session {
 public:
  SessionOf(Pool& pool, const Model& model, const EncodedAs<K, V>& encoded, int beams,
            const Head* aligned, int n_aligned)
      : pool_(pool), model_(model), encoded_(encoded), beams_(beams), n_aligned_(n_aligned),
        n_layers_((int)model.decoder.size()), wide_(model.text_heads * model.head),
        caches_((size_t)n_layers_ * beams), aligned_((size_t)n_aligned), slots_((size_t)beams),
        next_((size_t)beams), taken_((size_t)beams), threads_((size_t)pool.threads()) {
    for (int i = 0; i < n_aligned; ++i) aligned_[i] = aligned[i];
    if (n_aligned) seen_.reserve((size_t)n_aligned * model.n_text_ctx * encoded.positions());
    claim(0);
  }

  int rows() const override { return rows_; }
  int length() const override { return length_; }

  void step(const int64_t* tokens, int n, bool every_position, float* logits) override {
    const int m = rows_ * n;
    reserve(m);
    run(pool_, [&](int id) {
      Thread& own = threads_[id];
      for (int row = id; row < m; row += pool_.threads()) embed(tokens[row], length_ + row % n, row);
      pool_.barrier();
      for (int i = 0; i < n_layers_; ++i) {
        const Layer& layer = model_.decoder[i];
        project(normed(layer.norm, m, own), layer.qkv, id, mixed_.data, 3 * wide_, false);
        each_head(id, [&](int h) { self_attention(i, h, n, own); });
        add(attended(m, own), layer.out, id);
        project(normed(layer.cross_norm, m, own), layer.cross_query, id, mixed_.data, wide_, false);
        each_head(id, [&](int h) { cross_attention(i, h, m, n, own); });
        add(attended(m, own), layer.cross_out, id);
        project(normed(layer.mlp_norm, m, own), layer.fc1, id, mixed_.data, model_.hidden, true);
        add(prepared(mixed_.data, model_.hidden, m, own.hidden, own), layer.fc2, id);
      }
      predict(n, every_position, logits, id, own);
    });
    length_ += n;
  }

  void reorder(const int* sources, int n) override {
    // the first to name a slot keeps it; others copy it to one that nobody goes on from
    for (int i = 0; i < beams_; ++i) next_[i] = -1, taken_[i] = false;
    for (int i = 0; i < n; ++i) {
      const int slot = slots_[sources[i]];
      if (!taken_[slot]) taken_[slot] = true, next_[i] = slot;
    }
    for (int i = 0, spare = 0; i < n; ++i) {
      if (next_[i] >= 0) continue;
      while (taken_[spare]) ++spare;
      taken_[spare] = true;
      next_[i] = spare;
      claim(spare);
      copy(slots_[sources[i]], spare);
    }
    for (int i = 0; i < n; ++i) slots_[i] = next_[i];
    rows_ = n;
  }

  void alignment(float* scores) const override {
    const size_t steps = (size_t)length_ * encoded_.positions();
    for (int i = 0; i < n_aligned_; ++i)
      memcpy(scores + i * steps, seen_.data + (size_t)i * model_.n_text_ctx * encoded_.positions(),
             steps * sizeof(float));
  }

 private:
  struct Thread {
    Input<W> input, hidden;
    Input<K> query;
    Scratch<float> line;
    AttentionScratch<V> attention;
  };

  Cache<K, V>& cache(int layer, int slot) { return caches_[(size_t)layer * beams_ + slot]; }

  void claim(int slot) {  // memory for a slot, when first used
    if (slot < claimed_) return;
    for (; claimed_ <= slot; ++claimed_)
      for (int i = 0; i < n_layers_; ++i)
        cache(i, claimed_).reserve(model_.text_heads, model_.head, model_.n_text_ctx);
  }

  void copy(int from, int to) {
    run(pool_, [&](int) {
      for (int i; (i = pool_.next()) < n_layers_;)
        for (int h = 0; h < model_.text_heads; ++h)
          cache(i, to).copy(h, cache(i, from), length_);
    });
  }

  void reserve(int m) {
    const int widest = model_.hidden > 3 * wide_ ? model_.hidden : 3 * wide_;
    x_.reserve((size_t)m * model_.stride);
    mixed_.reserve((size_t)m * widest);
    attended_.reserve((size_t)m * wide_);
    for (int id = 0; id < pool_.threads(); ++id) {
      Thread& own = threads_[id];
      own.input.reserve(m, model_.stride > wide_ ? model_.stride : wide_);
      own.hidden.reserve(m, model_.hidden);
      own.query.reserve(m, model_.head);
      own.line.reserve((size_t)widest);
      own.attention.reserve(model_.head);
    }
  }

  void embed(int64_t token, int position, int row) {
    const int width = model_.width;
    float* x = x_.data + (size_t)row * model_.stride;
    const float* at = model_.text_positions + (size_t)position * model_.stride;
    const auto* fp16 = static_cast<const uint16_t*>(model_.embedding) + (size_t)token * width;
    const auto* full = static_cast<const float*>(model_.embedding) + (size_t)token * width;
    for (int i = 0; i < width; ++i)
      x[i] = (model_.embedding_is_fp16 ? fp16_to_float(fp16[i]) : full[i]) + at[i];
    for (int i = width; i < model_.stride; ++i) x[i] = 0;
  }

  Rows<W> normed(const Norm& norm, int m, Thread& own) {
    const Rows<W> rows = own.input.rows(m);
    for (int i = 0; i < m; ++i) norm_row(norm, i, i, rows, own);
    return rows;
  }

  void norm_row(const Norm& norm, int from, int to, const Rows<W>& rows, Thread& own) {
    layer_norm(x_.data + (size_t)from * model_.stride, norm.weight, norm.bias, model_.width,
               [&](int j, F value) { store(own.line.data + j, value); });
    for (int j = round_up(model_.width, kLanes); j < model_.stride; ++j) own.line[j] = 0;
    prepare<W>(rotated<W>(own.line.data, model_.stride, own.line.data), model_.stride, rows, to);
  }

  Rows<W> prepared(const float* x, int width, int m, Input<W>& input, Thread& own) {
    const Rows<W> rows = input.rows(m);
    for (int i = 0; i < m; ++i)
      prepare<W>(rotated<W>(x + (size_t)i * width, width, own.line.data), width, rows, i);
    return rows;
  }
  Rows<W> attended(int m, Thread& own) {
    return prepared(attended_.data, wide_, m, own.input, own);
  }

  // This thread's share of a layer's outputs; then everyone has them all.
  template <class Out>
  void share(const Rows<W>& x, const Linear& layer, int n, int id, Out&& out) {
    const int units = blocks(n, kLanes), threads = pool_.threads();
    linear<W>(x, layer, (int)((int64_t)units * id / threads) * kLanes,
              (int)((int64_t)units * (id + 1) / threads) * kLanes, out);
    pool_.barrier();
  }

  void project(const Rows<W>& x, const Linear& layer, int id, float* to, int n, bool gelu_too) {
    share(x, layer, n, id, [&](int row, int column, F value) {
      store(to + (size_t)row * n + column, gelu_too ? gelu(value) : value);
    });
  }

  void add(const Rows<W>& x, const Linear& layer, int id) {
    share(x, layer, model_.stride, id, [&](int row, int column, F value) {
      float* place = x_.data + (size_t)row * model_.stride + column;
      store(place, load(place) + value);
    });
  }

  template <class Work>
  void each_head(int id, Work&& work) {
    const int n = model_.text_heads, threads = pool_.threads();
    for (int h = n * id / threads; h < n * (id + 1) / threads; ++h) work(h);
    pool_.barrier();
  }

  void self_attention(int i, int h, int n, Thread& own) {
    const int width = model_.head;
    const size_t ld = 3 * (size_t)wide_;
    for (int b = 0; b < rows_; ++b) {
      HeadCache<K, V> head = cache(i, slots_[b]).head(h);
      const Rows<K> query = own.query.rows(n);
      for (int t = 0; t < n; ++t) {
        const float* line = mixed_.data + ld * (size_t)(b * n + t) + h * width;
        prepare<K>(line, width, query, t);
        head.put_key(length_ + t, line + wide_);
        head.put_value(length_ + t, line + 2 * wide_);
      }
      attend<K, V>(query, head, length_ + 1, 1, own.attention,
                   attended_.data + (size_t)b * n * wide_ + h * width, (size_t)wide_);
    }
  }

  void cross_attention(int i, int h, int m, int n, Thread& own) {
    const Rows<K> query = own.query.rows(m);
    for (int row = 0; row < m; ++row)
      prepare<K>(mixed_.data + (size_t)row * wide_ + h * model_.head, model_.head, query, row);
    const size_t n_keys = (size_t)encoded_.positions();
    Scores seen;
    for (int a = 0; a < n_aligned_; ++a)
      if (aligned_[a].layer == i && aligned_[a].head == h)
        seen = {seen_.data + ((size_t)a * model_.n_text_ctx + length_) * n_keys, n_keys, n};
    attend<K, V>(query, encoded_.layer(i).head(h), (int)n_keys, 0, own.attention,
                 attended_.data + h * model_.head, (size_t)wide_, seen);
  }

  void predict(int n, bool every_position, float* logits, int id, Thread& own) {
    const int per_row = every_position ? n : 1, m = rows_ * per_row;
    const Rows<W> rows = own.input.rows(m);
    for (int i = 0; i < m; ++i)
      norm_row(model_.decoder_norm, every_position ? i : i * n + n - 1, i, rows, own);
    const int vocabulary = model_.n_vocab;
    share(rows, model_.vocabulary, vocabulary, id, [&](int row, int column, F value) {
      float* place = logits + (size_t)row * vocabulary + column;
      if (column + kLanes <= vocabulary)
        store(place, value);
      else
        store(place, value, vocabulary - column);
    });
  }

  Pool& pool_;
  const Model& model_;
  const EncodedAs<K, V>& encoded_;
  const int beams_, n_aligned_, n_layers_, wide_;
  int rows_ = 1, length_ = 0, claimed_ = 0;
  Row<Cache<K, V>> caches_;
  Row<Head> aligned_;
  Row<int> slots_;  // where each row keeps its keys and values
  Row<int> next_;   // where it will, while `reorder` is at work
  Row<bool> taken_;
  Row<Thread> threads_;
  Scratch<float> x_, mixed_, attended_, seen_;
};

}  // namespace whisper_npu::ISA
