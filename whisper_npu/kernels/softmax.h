// Softmax over scores that lie in strips of float16, and its weights made to sum to one.
#pragma once
#include "strips.h"

namespace whisper_npu::ISA {
namespace {

constexpr int kTall = 32, kAhead = 4;  // rows of scores at a time, strips fetched ahead

// The same rows in strips of another width: both are multiples of 4 columns.
inline void restrip(const Operand& from, const Operand& to, int row, int n_rows) {
  const int in = from.width, out = to.width;
  for (int column = 0; column < in * from.strips; column += 4)
    for (int i = row; i < row + n_rows; ++i)
      memcpy((uint16_t*)to.values + (size_t)(column / out) * to.stride + (size_t)i * out + column % out,
             (const uint16_t*)from.values + (size_t)(column / in) * from.stride + (size_t)i * in + column % in, 8);
}

// e^(score - peak), of which each row sums to `total`, where the scores were; W columns in a strip.
// Twice over a block of rows that stays in the cache, and is tall enough to be fetched well.
template <int W, bool Whole>
void weigh(const Operand& scores, int n_keys, int row, float* total) {
  constexpr int kRows = kLanes / W;  // of a part
  const int n_rows = Whole ? kTall : scores.rows - row, parts = (n_rows + kRows - 1) / kRows;
  const int whole = n_keys / W, rest = n_keys % W;
  float kept[kLanes], lowered[kLanes];  // of the strip that is part padding
  for (int i = 0; i < kLanes; ++i) {
    kept[i] = i % W < rest ? 1 : 0;
    lowered[i] = i % W < rest ? 0 : -INFINITY;
  }
  const F log2e = broadcast(kLog2E), keep = load(kept), lower = load(lowered);
  F peak[kTall], sum[kTall];
  for (int p = 0; p < parts; ++p) peak[p] = broadcast(-INFINITY), sum[p] = broadcast(0);
  const auto each = [&](int strip, auto&& use) {  // part of a strip
    uint16_t* at = (uint16_t*)scores.values + (size_t)strip * scores.stride + (size_t)row * W;
    for (int p = 0; p < parts; ++p)
      use(p, at + p * kLanes, Whole ? kLanes : at_most(n_rows * W - p * kLanes, kLanes));
  };
  for (int j = 0; j < whole; ++j)
    each(j, [&](int p, uint16_t* at, int n) {
      if (p % (32 / kLanes) == 0 && j + kAhead < whole)
        __builtin_prefetch(at + kAhead * scores.stride);
      peak[p] = max(peak[p], load_fp16(at, n));
    });
  if (rest)
    each(whole, [&](int p, uint16_t* at, int n) {
      peak[p] = max(peak[p], load_fp16(at, n) + lower);
    });
  for (int p = 0; p < parts; ++p) peak[p] = by_row<W>(peak[p], larger) * broadcast(-kLog2E);
  for (int j = 0; j < whole; ++j)
    each(j, [&](int p, uint16_t* at, int n) {
      const F e = exp2(fma(load_fp16(at, n), log2e, peak[p]));
      sum[p] = sum[p] + e;
      store_fp16(at, e, n);
    });
  if (rest)
    each(whole, [&](int p, uint16_t* at, int n) {
      const F e = exp2(fma(load_fp16(at, n) + lower, log2e, peak[p])) * keep;
      sum[p] = sum[p] + e;
      store_fp16(at, e, n);
    });
  for (int j = whole + (rest > 0); j < scores.strips; ++j)
    each(j, [&](int, uint16_t* at, int n) { store_fp16(at, broadcast(0), n); });
  for (int p = 0; p < parts; ++p) {
    float all[kLanes];
    store(all, by_row<W>(sum[p], plus));
    for (int i = 0; i < kRows && p * kRows + i < n_rows; ++i)
      total[row + p * kRows + i] = all[i * W];
  }
}

template <int W>
void softmax_of(const Operand& scores, int n_keys, const Operand& out, float* total) {
  for (int row = 0; row < scores.rows; row += kTall) {
    const int n_rows = at_most(scores.rows - row, kTall);
    n_rows == kTall ? weigh<W, true>(scores, n_keys, row, total)
                    : weigh<W, false>(scores, n_keys, row, total);
    if (out.values != scores.values) restrip(scores, out, row, n_rows);
  }
}

inline void softmax(const Operand& scores, int n_keys, const Operand& out, float* total) {
  scores.width == 8 ? softmax_of<8>(scores, n_keys, out, total)
                    : softmax_of<4>(scores, n_keys, out, total);
}

// Rows that sum to 1, of weights and what each row sums to.
inline void normalise(const Operand& weights, float* total) {
  const int width = weights.width, rows_at_once = kLanes / width;
  for (int row = 0; row < weights.rows; row += rows_at_once) {
    const int n = at_most(weights.rows - row, rows_at_once) * width;
    float each[kLanes] = {};
    for (int i = 0; i < n; ++i) each[i] = 1 / total[row + i / width];
    const F factor = load(each);
    for (int j = 0; j < weights.strips; ++j) {
      uint16_t* at = (uint16_t*)weights.values + (size_t)j * weights.stride + (size_t)row * width;
      store_fp16(at, load_fp16(at, n) * factor, n);
    }
  }
  for (int row = 0; row < weights.rows; ++row) total[row] = 1;
}

}  // namespace
}  // namespace whisper_npu::ISA
