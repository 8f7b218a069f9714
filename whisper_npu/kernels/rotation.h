// What int8 inputs and weights are multiplied with first, so that one scale fits a row.
//
// A few channels of real activations are a hundred times as large as the others, which then have no
// bits left. A rotation that both inputs and weights go through changes no product, and spreads each
// channel over many: here sums and differences (Hadamard) of channels 16 apart, which costs a few
// additions for each value. `reference.rotated` is the definition. Source: QuaRot, arXiv 2404.00456.
#pragma once
#include <stddef.h>

namespace {  // compiled for each instruction set: no linker may choose

constexpr int kApart = 16;  // channels from one to the next that it is added to

// n chunks (a power of two) of M floats.
template <int M>
inline void rotate_block(float* x, int n) {
  int apart = 1;
  if (n & 0xaaaaaaaa) {  // an odd power of two: the rest goes by fours
    for (int i = 0; i < n; i += 2) {
      float *a = x + (size_t)i * M, *b = a + M;
#pragma GCC ivdep
      for (int j = 0; j < M; ++j) {
        const float u = a[j] * 0.70710678f, v = b[j] * 0.70710678f;
        a[j] = u + v, b[j] = u - v;
      }
    }
    apart = 2;
  }
  for (; apart < n; apart *= 4)
    for (int i = 0; i < n; ++i) {
      if (i / apart % 4) continue;
      const size_t step = (size_t)apart * M;
      float *a = x + (size_t)i * M, *b = a + step, *c = b + step, *d = c + step;
#pragma GCC ivdep
      for (int j = 0; j < M; ++j) {
        const float s = a[j] + b[j], t = a[j] - b[j], u = c[j] + d[j], v = c[j] - d[j];
        a[j] = 0.5f * (s + u), b[j] = 0.5f * (t + v);
        c[j] = 0.5f * (s - u), d[j] = 0.5f * (t - v);
      }
    }
}

// Any number of chunks: the largest power of two of them from the first on, then as many up to the
// last, some negated (the Rudin-Shapiro sequence), lest the second time undo the first.
template <int M>
inline void rotate(float* x, int n) {
  if (n < 2) return;
  int block = 1;
  while (2 * block <= n) block *= 2;
  rotate_block<M>(x, block);
  if (block == n) return;
  for (int i = n - block; i < n; ++i)
    if (__builtin_parity((unsigned)(i & i >> 1)))
      for (int j = 0; j < M; ++j) x[(size_t)i * M + j] = -x[(size_t)i * M + j];
  rotate_block<M>(x + (size_t)(n - block) * M, block);
}

}  // namespace
