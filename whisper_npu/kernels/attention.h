// Keys and values of attention heads, and attention over them.
//
// Keys are packed as the weights of a linear layer whose outputs are positions, values as one whose
// inputs are: both products are `tile`. Int8 keys and values have one scale per position and head.
#pragma once
#include "scratch.h"

namespace whisper_npu::ISA {

template <class T>
constexpr bool kScaled = sizeof(typename T::Weight) == 1;

// One head's keys and values.
//   keys    (P/64, width/g, 64, g)   P positions
//   values  (P/g, width, g)
template <class K, class V>
struct HeadCache {
  typename K::Weight* keys;
  float* key_scale;
  int32_t* key_sums;
  typename V::Weight* values;
  float* value_scale;
  int width;

  template <class T>
  static F scaled(const float* x, int width, float* scale) {
    F largest = broadcast(0);
    for (int i = 0; i < width; i += kLanes) largest = max_magnitude(largest, load(x + i));
    const float most = maximum(largest);
    *scale = most / 127;
    return broadcast(most > 0 ? 127 / most : 0);
  }

  void put_key(int position, const float* x) {
    constexpr int g = K::group;
    typename K::Weight line[kLanes];
    F factor = broadcast(1);
    if constexpr (kScaled<K>) factor = scaled<K>(x, width, key_scale + position);
    auto* column = keys + (size_t)(position / kPanel) * kPanel * width + position % kPanel * g;
    int32_t total = 0;
    for (int i = 0; i < width; i += kLanes) {
      K::pack(line, load(x + i) * factor);
      for (int j = 0; j < kLanes; j += g)
        memcpy(column + (size_t)(i + j) * kPanel, line + j, g * sizeof(typename K::Weight));
      if constexpr (kScaled<K>)
        for (int j = 0; j < kLanes; ++j) total += line[j];
    }
    if constexpr (kScaled<K>) key_sums[position] = total;
  }

  void put_value(int position, const float* x) {
    constexpr int g = V::group;
    typename V::Weight line[kLanes];
    F factor = broadcast(1);
    if constexpr (kScaled<V>) factor = scaled<V>(x, width, value_scale + position);
    auto* row = values + (size_t)(position / g) * width * g + position % g;
    for (int i = 0; i < width; i += kLanes) {
      if constexpr (g == 1) {
        V::pack(row + i, load(x + i) * factor);
      } else {
        V::pack(line, load(x + i) * factor);
        for (int j = 0; j < kLanes; ++j) row[(i + j) * g] = line[j];
      }
    }
  }
};

// The keys and values of all heads of one layer; zero at first.
template <class K, class V>
class Cache {
 public:
  void reserve(int heads, int width, int positions) {
    width_ = width;
    positions_ = round_up(positions, kPanel);
    const size_t lines = (size_t)heads * positions_;
    keys_.zeros(lines * width);
    values_.zeros(lines * width);
    if (kScaled<K>) key_scale_.zeros(lines), key_sums_.zeros(lines);
    if (kScaled<V>) value_scale_.zeros(lines);
  }

  HeadCache<K, V> head(int h) const {
    const size_t first = (size_t)h * positions_, values = first * width_;
    return {keys_.data + values, key_scale_.data + first, key_sums_.data + first,
            values_.data + values, value_scale_.data + first, width_};
  }

  // The first `length` positions of one head of another cache of the same sizes.
  void copy(int h, const Cache& other, int length) {
    const HeadCache<K, V> to = head(h), from = other.head(h);
    const size_t panels = (size_t)round_up(length, kPanel), n = (size_t)length;
    memcpy(to.keys, from.keys, panels * width_ * sizeof *to.keys);
    memcpy(to.values, from.values, (size_t)round_up(length, V::group) * width_ * sizeof *to.values);
    if (kScaled<K>) {
      memcpy(to.key_scale, from.key_scale, n * sizeof(float));
      memcpy(to.key_sums, from.key_sums, n * sizeof(int32_t));
    }
    if (kScaled<V>) memcpy(to.value_scale, from.value_scale, n * sizeof(float));
  }

 private:
  int width_ = 0, positions_ = 0;
  Scratch<typename K::Weight> keys_;
  Scratch<typename V::Weight> values_;
  Scratch<float> key_scale_, value_scale_;
  Scratch<int32_t> key_sums_;
};

// Where scores go that someone wants to see: the first `rows` rows, `ld` apart, in natural units.
struct Scores {
  float* to = nullptr;
  size_t ld = 0;
  int rows = 0;
};

constexpr int kQueries = 12, kChunk = 256;  // a block of scores and weights stays in the L1 cache

template <class V>
struct AttentionScratch {
  Scratch<float> scores, mixed, product;
  Input<V> weights;

  void reserve(int width) {
    scores.reserve(kQueries * kChunk);
    mixed.reserve((size_t)kQueries * width);
    product.reserve((size_t)V::rows * kPanel);
    weights.reserve(kQueries, kChunk);
  }
};

// Attention of n queries of one head over cached keys, in blocks of keys with a running softmax.
//   query   rows prepared in the format of the keys, scaled by log2(e) / sqrt(width)
//   length  keys that the first query sees; each further one sees `more` more
//   out     (n, width) float32, ldo apart
template <class K, class V>
void attend(const Rows<K>& query, const HeadCache<K, V>& cache, int length, int more,
            AttentionScratch<V>& scratch, float* out, size_t ldo, const Scores& seen = {}) {
  const int width = cache.width;
  float* scores = scratch.scores.data;
  for (int first = 0; first < query.n; first += kQueries) {
    const int n = query.n - first < kQueries ? query.n - first : kQueries;
    const int longest = length + more * (first + n - 1);
    float peak[kQueries], total[kQueries], shrink[kQueries];
    for (int i = 0; i < n; ++i) peak[i] = -1e30f, total[i] = 0;
    memset(scratch.mixed.data, 0, sizeof(float) * (size_t)n * width);
    for (int begin = 0; begin < longest; begin += kChunk) {
      const int keys = longest - begin < kChunk ? longest - begin : kChunk;
      score(query, first, n, cache, begin, round_up(keys, kLanes), scores);
      for (int i = 0; i < n; ++i) {
        int visible = length + more * (first + i) - begin;
        visible = visible < 0 ? 0 : visible > keys ? keys : visible;
        shrink[i] = soften(query, first + i, cache, begin, visible, round_up(keys, kLanes),
                           scores + i * kChunk, peak[i], total[i],
                           scratch.weights.values.data + i * scratch.weights.stride,
                           first + i < seen.rows ? seen.to + seen.ld * (first + i) : nullptr);
      }
      mix(n, cache, begin, keys, shrink, scratch);
    }
    for (int i = 0; i < n; ++i)
      for (int d = 0; d < width; d += kLanes)
        store(out + ldo * (first + i) + d,
              load(scratch.mixed.data + i * width + d) * broadcast(1 / total[i]));
  }
}

// Products of n queries with keys [begin, begin + keys), a multiple of 16.
template <class K, class V>
inline void score(const Rows<K>& query, int first, int n, const HeadCache<K, V>& cache, int begin,
                  int keys, float* scores) {
  const size_t ldw = (size_t)kPanel * K::group;
  const int widest = n < K::rows ? n : K::rows;
  int nr;
  for (int key = 0; key < keys; key += kLanes * nr) {
    const int in_panel = key % kPanel, left = kPanel - in_panel;  // chunks are whole panels
    nr = columns_for<K>(widest, left < keys - key ? left : keys - key);
    const auto* w = cache.keys + (size_t)((begin + key) / kPanel) * kPanel * cache.width +
                    (size_t)in_panel * K::group;
    for (int i = 0; i < n; i += K::rows)
      any_tile<K>(n - i < K::rows ? n - i : K::rows, nr,
                  query.data + query.stride * (size_t)(first + i), query.stride, w, ldw,
                  cache.key_sums + begin + key, cache.width / K::group,
                  scores + i * kChunk + key, kChunk);
  }
}

// One row of scores -> softmax weights relative to its running peak; returns how much what was
// mixed before shrinks.
template <class K, class V>
inline float soften(const Rows<K>& query, int row, const HeadCache<K, V>& cache, int begin,
                    int visible, int keys, float* scores, float& peak, float& total,
                    typename V::Activation* weights, float* seen) {
  F highest = broadcast(peak);
  for (int key = 0; key < keys; key += kLanes) {
    F s = load(scores + key);
    if constexpr (kScaled<K>)
      s = s * broadcast(query.scale[row]) * load(cache.key_scale + begin + key);
    if (seen) {
      const int n = visible - key < kLanes ? visible - key : kLanes;
      if (n > 0) store(seen + begin + key, s * broadcast(1 / kLog2E), n);
    }
    if (key + kLanes > visible) {
      float line[kLanes];
      store(line, s);
      for (int j = visible > key ? visible - key : 0; j < kLanes; ++j) line[j] = -1e30f;
      s = load(line);
    }
    store(scores + key, s);
    highest = max(highest, s);
  }
  const float now = maximum(highest), shrink = now > peak ? exp2f(peak - now) : 1;
  F sums = broadcast(0);
  for (int key = 0; key < keys; key += kLanes) {
    F p = exp2(load(scores + key) - broadcast(now));
    sums = sums + p;
    if constexpr (kScaled<V>) p = p * load(cache.value_scale + begin + key);
    V::put(weights + key, p);
  }
  peak = now;
  total = total * shrink + sum(sums);
  return shrink;
}

// mixed = mixed * shrink + weights x values.
template <class K, class V>
inline void mix(int n, const HeadCache<K, V>& cache, int begin, int keys, const float* shrink,
                AttentionScratch<V>& scratch) {
  const int width = cache.width, groups = (keys + V::group - 1) / V::group;
  const auto* values = cache.values + (size_t)begin * width;
  const int widest = n < V::rows ? n : V::rows;
  int nr;
  for (int d = 0; d < width; d += kLanes * nr) {
    nr = columns_for<V>(widest, width - d < kPanel ? width - d : kPanel);
    for (int i = 0; i < n; i += V::rows) {
      const int mr = n - i < V::rows ? n - i : V::rows;
      any_tile<V>(mr, nr, scratch.weights.values.data + i * scratch.weights.stride,
                  scratch.weights.stride, values + d * V::group, (size_t)width * V::group, nullptr,
                  groups, scratch.product.data, kPanel);
      for (int r = 0; r < mr; ++r)
        for (int j = 0; j < kLanes * nr; j += kLanes) {
          float* place = scratch.mixed.data + (i + r) * width + d + j;
          store(place, fma(load(place), broadcast(shrink[i + r]),
                           load(scratch.product.data + r * kPanel + j)));
        }
    }
  }
}

}  // namespace whisper_npu::ISA
