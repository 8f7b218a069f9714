// Row functions: exp, log-sum-exp, the largest, GELU, layer norm.
#pragma once
#include <math.h>

#include "simd.h"

namespace whisper_npu::ISA {

// 2^x to 2e-7 (Cephes exp2f); below 2^-125 it is 2^-125, NaN stays.
inline F exp2(F x) {
  x = max(broadcast(-125), x);
  const F n = round(x), r = x - n;
  F p = fma(broadcast(1.535336188319500e-4f), r, broadcast(1.339887440266574e-3f));
  p = fma(p, r, broadcast(9.618437357674640e-3f));
  p = fma(p, r, broadcast(5.550332471162809e-2f));
  p = fma(p, r, broadcast(2.402264791363012e-1f));
  p = fma(p, r, broadcast(6.931472028550421e-1f));
  return times_power_of_2(fma(p, r, broadcast(1)), n);
}

constexpr float kLog2E = 1.44269504f;

// Log of the sum of e^x over n values; -inf where all of them are.
inline float log_sum_exp(const float* x, int n) {
  const int whole = n / kLanes * kLanes;
  F highest = broadcast(-INFINITY);
  for (int i = 0; i < whole; i += kLanes) highest = max(highest, load(x + i));
  float peak = maximum(highest);
  for (int i = whole; i < n; ++i) peak = fmaxf(peak, x[i]);
  if (!isfinite(peak)) return peak;
  const F scale = broadcast(kLog2E), shift = broadcast(-kLog2E * peak);
  F total = broadcast(0);
  for (int i = 0; i < whole; i += kLanes) total = total + exp2(fma(load(x + i), scale, shift));
  float rest = 0;
  for (int i = whole; i < n; ++i) rest += expf(x[i] - peak);
  return peak + logf(sum(total) + rest);
}

// The `count` largest of n values and where they are, best first, the earlier of equals first; padded
// with -inf at 0, which is never found itself.
inline void largest(const float* x, int n, int count, float* values, int64_t* places) {
  for (int i = 0; i < count; ++i) values[i] = -INFINITY, places[i] = 0;
  const int block = 4 * kLanes;
  for (int begin = 0; begin < n; begin += block) {
    if (begin + block <= n) {  // most blocks hold nothing new
      const float* at = x + begin;
      const F highest = max(max(load(at), load(at + kLanes)),
                            max(load(at + 2 * kLanes), load(at + 3 * kLanes)));
      if (!(maximum(highest) > values[count - 1])) continue;
    }
    for (int i = begin; i < n && i < begin + block; ++i) {
      if (!(x[i] > values[count - 1])) continue;
      int place = count - 1;
      for (; place > 0 && x[i] > values[place - 1]; --place)
        values[place] = values[place - 1], places[place] = places[place - 1];
      values[place] = x[i], places[place] = i;
    }
  }
}

// x * P(N(0, 1) < x), with erf to 2e-7 (Abramowitz and Stegun 7.1.26).
inline F gelu(F x) {
  const F z = abs(x) * broadcast(0.70710678f);
  const F t = broadcast(1) / fma(z, broadcast(0.3275911f), broadcast(1));
  F p = fma(t, broadcast(1.061405429f), broadcast(-1.453152027f));
  p = fma(p, t, broadcast(1.421413741f));
  p = fma(p, t, broadcast(-0.284496736f));
  p = fma(p, t, broadcast(0.254829592f)) * t;
  const F erf = broadcast(1) - p * exp2(z * z * broadcast(-kLog2E));
  return broadcast(0.5f) * fma(abs(x), erf, x);
}

// Normalise n values, scale and shift; out is called with each 16 and their place.
// weight and bias are padded with zeros to a multiple of 16, which makes the padding of out zero.
template <class Out>
inline void layer_norm(const float* x, const float* weight, const float* bias, int n, Out&& out) {
  const int whole = n / kLanes * kLanes, rest = n - whole;
  F total = broadcast(0);
  for (int i = 0; i < whole; i += kLanes) total = total + load(x + i);
  if (rest) total = total + load(x + whole, rest);
  const F mean = broadcast(sum(total) / (float)n);
  F squares = broadcast(0);
  for (int i = 0; i < whole; i += kLanes) {
    const F centred = load(x + i) - mean;
    squares = fma(centred, centred, squares);
  }
  if (rest) {  // the padding has no distance from the mean
    float last[kLanes];
    store(last, load(x + whole, rest) - mean);
    const F centred = load(last, rest);
    squares = fma(centred, centred, squares);
  }
  const F scale = broadcast(1 / sqrtf(sum(squares) / (float)n + 1e-5f));
  for (int i = 0; i < n; i += kLanes) {
    const F value = i < whole ? load(x + i) : load(x + i, rest);
    out(i, fma((value - mean) * scale, load(weight + i), load(bias + i)));
  }
}

}  // namespace whisper_npu::ISA
