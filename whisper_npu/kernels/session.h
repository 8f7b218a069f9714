// One window: what the decoder attends to, and the hypotheses that are being decoded of it.
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

// K, V: format of keys and values.
template <class K, class V>
class SessionOf final : public Session {
 public:
  SessionOf(Pool& pool, const Model& model, const EncodedAs<K, V>& encoded, int beams,
            const Head* aligned, int n_aligned)
      : pool_(pool), model_(model), encoded_(encoded), beams_(beams), n_aligned_(n_aligned),
        n_layers_((int)model.decoder.size()), caches_((size_t)n_layers_ * beams),
        aligned_((size_t)n_aligned), slots_((size_t)beams), next_((size_t)beams),
        taken_((size_t)beams) {
    for (int i = 0; i < n_aligned; ++i) aligned_[i] = aligned[i];
    if (n_aligned) seen_.reserve((size_t)n_aligned * model.n_text_ctx * encoded.positions());
    claim(0);
  }

  int rows() const override { return rows_; }
  int length() const override { return length_; }

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

  struct Working {  // a thread's working memory
    Input<K> query;
    AttentionScratch<V> attention;
  };

  // One layer and head for n new tokens of each row, whose keys and values are kept.
  //   mixed  (rows * n, ld)   queries, keys, values
  //   out    (rows * n, ldo)  from this head's part on
  void self_attention(int i, int h, int n, const float* mixed, size_t ld, Working& own, float* out,
                      size_t ldo) {
    const int width = model_.head, wide = model_.text_heads * width;
    for (int b = 0; b < rows_; ++b) {
      HeadCache<K, V> head = cache(i, slots_[b]).head(h);
      const Rows<K> query = own.query.rows(n);
      for (int t = 0; t < n; ++t) {
        const float* line = mixed + ld * (size_t)(b * n + t) + h * width;
        prepare<K>(line, width, query, t);
        head.put_key(length_ + t, line + wide);
        head.put_value(length_ + t, line + 2 * wide);
      }
      attend<K, V>(query, head, length_ + 1, 1, own.attention, out + (size_t)b * n * ldo, ldo);
    }
  }

  // The same over the window.
  //   mixed  (rows * n, ldo)  queries
  void cross_attention(int i, int h, int n, const float* mixed, Working& own, float* out,
                       size_t ldo) {
    const int m = rows_ * n;
    const Rows<K> query = own.query.rows(m);
    for (int row = 0; row < m; ++row)
      prepare<K>(mixed + (size_t)row * ldo + h * model_.head, model_.head, query, row);
    const size_t n_keys = (size_t)encoded_.positions();
    Scores seen;
    for (int a = 0; a < n_aligned_; ++a)
      if (aligned_[a].layer == i && aligned_[a].head == h)
        seen = {seen_.data + ((size_t)a * model_.n_text_ctx + length_) * n_keys, n_keys, n};
    attend<K, V>(query, encoded_.layer(i).head(h), (int)n_keys, 0, own.attention, out, ldo, seen);
  }

  // The new tokens are there now.
  void advance(int n) { length_ += n; }

 private:
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

  Pool& pool_;
  const Model& model_;
  const EncodedAs<K, V>& encoded_;
  const int beams_, n_aligned_, n_layers_;
  int rows_ = 1, length_ = 0, claimed_ = 0;
  Row<Cache<K, V>> caches_;
  Row<Head> aligned_;
  Row<int> slots_;  // where each row keeps its keys and values
  Row<int> next_;   // where it will, while `reorder` is at work
  Row<bool> taken_;
  Scratch<float> seen_;
};

}  // namespace whisper_npu::ISA
