// The decoder: one parallel region for a step of all hypotheses of all sessions, so that weights are
// read once. What a row becomes does not depend on who else is there.
//
// Threads share the outputs of each linear layer, or the heads, with a barrier between; each
// normalises and quantises all rows for itself, which is cheaper than another barrier.
#pragma once
#include "session.h"

namespace whisper_npu::ISA {

// W: format of the linear layers; K, V: of keys and values.
template <class W, class K, class V>
class DecoderOf final : public Decoder {
 public:
  DecoderOf(Pool& pool, const Model& model)
      : pool_(pool), model_(model), wide_(model.text_heads * model.head),
        threads_((size_t)pool.threads()) {}

  void step(const Step* steps, int n_steps) override {
    reserve(steps, n_steps);
    run(pool_, [&](int id) {
      Thread& own = threads_[id];
      for (int row = id; row < m_; row += pool_.threads()) embed(row);
      pool_.barrier();
      for (int i = 0; i < (int)model_.decoder.size(); ++i) {
        const Layer& layer = model_.decoder[i];
        project(normed(layer.norm, own), layer.qkv, id, mixed_.data, 3 * wide_, false);
        each_head(id, n_steps, [&](int h, const Part& part) {
          part.session->self_attention(i, h, part.step->n,
                                       mixed_.data + part.first * 3 * (size_t)wide_,
                                       3 * (size_t)wide_, own.attention, head_of(part, h), wide_);
        });
        add(attended(own), layer.out, id);
        project(normed(layer.cross_norm, own), layer.cross_query, id, mixed_.data, wide_, false);
        each_head(id, n_steps, [&](int h, const Part& part) {
          part.session->cross_attention(i, h, part.step->n, mixed_.data + part.first * (size_t)wide_,
                                        own.attention, head_of(part, h), wide_);
        });
        add(attended(own), layer.cross_out, id);
        project(normed(layer.mlp_norm, own), layer.fc1, id, mixed_.data, model_.hidden, true);
        add(prepared(mixed_.data, model_.hidden, own.hidden, own), layer.fc2, id);
      }
      predict(id, own);
    });
    for (int i = 0; i < n_steps; ++i) parts_[i].session->advance(steps[i].n);
  }

 private:
  struct Thread {
    Input<W> input, hidden;
    Scratch<float> line;
    typename SessionOf<K, V>::Working attention;
  };

  struct Part {  // of all rows, those of one session
    const Step* step;
    SessionOf<K, V>* session;
    size_t first;
  };

  struct Place {  // of a row: its token and position, until they are embedded
    int64_t token;
    int position;
  };

  struct Guess {  // a row whose logits are wanted, and where
    int row;
    float* logits;
  };

  // Memory for all rows, and what each of them is; whatever can fail does so here.
  void reserve(const Step* steps, int n_steps) {
    int most = 0;
    m_ = n_guesses_ = 0;
    for (int i = 0; i < n_steps; ++i) {
      const int rows = steps[i].session->rows() * steps[i].n;
      m_ += rows;
      most = rows > most ? rows : most;
    }
    parts_.reserve((size_t)n_steps);
    places_.reserve((size_t)m_);
    guesses_.reserve((size_t)m_);
    const int widest = model_.hidden > 3 * wide_ ? model_.hidden : 3 * wide_;
    x_.reserve((size_t)m_ * model_.stride);
    mixed_.reserve((size_t)m_ * widest);
    attended_.reserve((size_t)m_ * wide_);
    for (int id = 0; id < pool_.threads(); ++id) {
      Thread& own = threads_[id];
      own.input.reserve(m_, model_.stride > wide_ ? model_.stride : wide_);
      own.hidden.reserve(m_, model_.hidden);
      own.attention.query.reserve(most, model_.head);
      own.attention.attention.reserve(model_.head);
      own.line.reserve((size_t)widest);
    }
    int row = 0;
    for (int i = 0; i < n_steps; ++i) {
      parts_[i] = {&steps[i], static_cast<SessionOf<K, V>*>(steps[i].session), (size_t)row};
      row = place(steps[i], row);
    }
  }

  int place(const Step& step, int row) {
    const int length = step.session->length(), rows = step.session->rows();
    float* logits = step.logits;
    for (int i = 0; i < rows * step.n; ++i, ++row) {
      places_[row] = {step.tokens[i], length + i % step.n};
      if (!step.every_position && i % step.n != step.n - 1) continue;
      guesses_[n_guesses_++] = {row, logits};
      logits += model_.n_vocab;
    }
    return row;
  }

  void embed(int row) {
    const int width = model_.width;
    const Place place = places_[row];
    float* x = x_.data + (size_t)row * model_.stride;
    const float* at = model_.text_positions + (size_t)place.position * model_.stride;
    const auto* fp16 = static_cast<const uint16_t*>(model_.embedding) + (size_t)place.token * width;
    const auto* full = static_cast<const float*>(model_.embedding) + (size_t)place.token * width;
    for (int i = 0; i < width; ++i)
      x[i] = (model_.embedding_is_fp16 ? fp16_to_float(fp16[i]) : full[i]) + at[i];
    for (int i = width; i < model_.stride; ++i) x[i] = 0;
  }

  Rows<W> normed(const Norm& norm, Thread& own) {
    const Rows<W> rows = own.input.rows(m_);
    for (int i = 0; i < m_; ++i) norm_row(norm, i, i, rows, own);
    return rows;
  }

  void norm_row(const Norm& norm, int from, int to, const Rows<W>& rows, Thread& own) {
    layer_norm(x_.data + (size_t)from * model_.stride, norm.weight, norm.bias, model_.width,
               [&](int j, F value) { store(own.line.data + j, value); });
    for (int j = round_up(model_.width, kLanes); j < model_.stride; ++j) own.line[j] = 0;
    prepare<W>(rotated<W>(own.line.data, model_.stride, own.line.data), model_.stride, rows, to);
  }

  Rows<W> prepared(const float* x, int width, Input<W>& input, Thread& own) {
    const Rows<W> rows = input.rows(m_);
    for (int i = 0; i < m_; ++i)
      prepare<W>(rotated<W>(x + (size_t)i * width, width, own.line.data), width, rows, i);
    return rows;
  }
  Rows<W> attended(Thread& own) { return prepared(attended_.data, wide_, own.input, own); }

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

  // This thread's share of the heads, for every session.
  template <class Work>
  void each_head(int id, int n_steps, Work&& work) {
    const int n = model_.text_heads * n_steps, threads = pool_.threads();
    for (int piece = n * id / threads; piece < n * (id + 1) / threads; ++piece)
      work(piece / n_steps, parts_[piece % n_steps]);
    pool_.barrier();
  }

  float* head_of(const Part& part, int h) {
    return attended_.data + part.first * wide_ + h * model_.head;
  }

  void predict(int id, Thread& own) {
    const Rows<W> rows = own.input.rows(n_guesses_);
    for (int i = 0; i < n_guesses_; ++i) norm_row(model_.decoder_norm, guesses_[i].row, i, rows, own);
    const int vocabulary = model_.n_vocab;
    share(rows, model_.vocabulary, vocabulary, id, [&](int row, int column, F value) {
      float* place = guesses_[row].logits + column;
      if (column + kLanes <= vocabulary)
        store(place, value);
      else
        store(place, value, vocabulary - column);
    });
  }

  Pool& pool_;
  const Model& model_;
  const int wide_;
  int m_ = 0, n_guesses_ = 0;  // rows of this step, and how many are predicted from
  Row<Thread> threads_;
  Scratch<Part> parts_;
  Scratch<Place> places_;
  Scratch<Guess> guesses_;
  Scratch<float> x_, mixed_, attended_;
};

}  // namespace whisper_npu::ISA
