// Matrix products with packed weights: y = x W^T + b.
//
// A weight (N, K) is packed in panels of 64 outputs, [N/64][K/g][64][g], where g inputs feed one
// dot instruction: one panel is read as one stream. K is a multiple of 16; N is padded with
// zeros. Int8: one scale per output (weights) and per row (inputs), both rotated (rotation.h).
#pragma once
#include "functions.h"
#include "kernels.h"
#include "rotation.h"

namespace whisper_npu::ISA {

constexpr int kPanel = 64;

#define UNROLL _Pragma("GCC unroll 8")

// A block of rows of inputs in the order of a format.
template <class T>
struct Rows {
  typename T::Activation* data;  // (n, stride)
  float* scale;                  // (n,) int8 only
  size_t stride;
  int n;
};

template <class T>
constexpr bool kQuantised = false;
template <>
constexpr bool kQuantised<Int8> = true;

// A row of n float32 (n a multiple of 16) as a linear layer's weights want it: for int8 written to
// `to`, which may be x itself.
template <class T>
inline const float* rotated(const float* x, int n, float* to) {
  if constexpr (!kQuantised<T>) return x;
  if (to != x) memcpy(to, x, sizeof(float) * (size_t)n);
  rotate<kApart>(to, n / kApart);
  return to;
}

// One row of n float32 (n a multiple of 16) -> inputs.
template <class T>
inline void prepare(const float* x, int n, const Rows<T>& rows, int row) {
  typename T::Activation* out = rows.data + rows.stride * (size_t)row;
  F inverse = broadcast(1);
  if constexpr (kQuantised<T>) {
    F largest = broadcast(0);
    for (int i = 0; i < n; i += kLanes) largest = max_magnitude(largest, load(x + i));
    float most = 0;  // the reduction keeps a NaN, which then marks the whole row
    float all[kLanes];
    store(all, largest);
    for (float value : all) most = value <= most || most != most ? most : value;
    rows.scale[row] = most / 127;
    inverse = broadcast(most > 0 ? 127 / most : 0);
  }
  for (int i = 0; i < n; i += kLanes) {
    if constexpr (kQuantised<T>)
      T::put(out + i, load(x + i) * inverse);
    else
      T::put(out + i, load(x + i));
  }
}

// MR rows times 16 * NR outputs over all inputs.
//   w    weights of the first output; ldw elements from one group of inputs to the next
//   out  (MR, 16 * NR) float32, ldo apart
template <class T, int MR, int NR>
void tile(const typename T::Activation* x, size_t ldx, const typename T::Weight* w, size_t ldw,
          const int32_t* sums, int groups, float* out, size_t ldo) {
  typename T::Acc acc[MR][NR];  // in registers, which takes all these loops unrolled
  UNROLL for (int i = 0; i < MR; ++i) {
    UNROLL for (int j = 0; j < NR; ++j)
      acc[i][j] = T::start(kQuantised<T> ? sums + kLanes * j : nullptr);
  }
  for (int k = 0; k < groups; ++k) {
    typename T::Lanes lanes[NR];
    UNROLL for (int j = 0; j < NR; ++j) lanes[j] = T::lanes(w + kLanes * T::group * j);
    UNROLL for (int i = 0; i < MR; ++i) {
      const typename T::One one = T::one(x + ldx * (size_t)i);
      UNROLL for (int j = 0; j < NR; ++j) acc[i][j] = T::dot(acc[i][j], one, lanes[j]);
    }
    w += ldw;
    x += T::group;
  }
  UNROLL for (int i = 0; i < MR; ++i) {
    UNROLL for (int j = 0; j < NR; ++j)
      store(out + ldo * (size_t)i + kLanes * j, T::value(acc[i][j]));
  }
}

// The widest block of columns for so many rows, within `left` columns.
template <class T>
inline int columns_for(int rows, int left) {
  int nr = T::columns(rows);
  while (nr * kLanes > left) nr /= 2;
  return nr;
}

template <class T, int MR>
inline void tile_columns(int nr, const typename T::Activation* x, size_t ldx,
                         const typename T::Weight* w, size_t ldw, const int32_t* sums, int groups,
                         float* out, size_t ldo) {
  if constexpr (T::columns(MR) >= 4)
    if (nr == 4) return tile<T, MR, 4>(x, ldx, w, ldw, sums, groups, out, ldo);
  if constexpr (T::columns(MR) >= 2)
    if (nr == 2) return tile<T, MR, 2>(x, ldx, w, ldw, sums, groups, out, ldo);
  tile<T, MR, 1>(x, ldx, w, ldw, sums, groups, out, ldo);
}

// `tile` for sizes known only now: mr <= T::rows, nr = 1, 2 or 4 and at most T::columns(mr).
template <class T>
inline void any_tile(int mr, int nr, const typename T::Activation* x, size_t ldx,
                     const typename T::Weight* w, size_t ldw, const int32_t* sums, int groups,
                     float* out, size_t ldo) {
  switch (mr) {
    case 1: return tile_columns<T, 1>(nr, x, ldx, w, ldw, sums, groups, out, ldo);
    case 2: return tile_columns<T, 2>(nr, x, ldx, w, ldw, sums, groups, out, ldo);
    case 3: return tile_columns<T, 3>(nr, x, ldx, w, ldw, sums, groups, out, ldo);
    case 4: return tile_columns<T, 4>(nr, x, ldx, w, ldw, sums, groups, out, ldo);
  }
  if constexpr (T::rows >= 6) {
    if (mr == 5) return tile_columns<T, 5>(nr, x, ldx, w, ldw, sums, groups, out, ldo);
    return tile_columns<T, 6>(nr, x, ldx, w, ldw, sums, groups, out, ldo);
  }
}

// Outputs [first, last) of a linear layer, multiples of 16; out(row, n, value) takes 16 at a time.
template <class T, class Out>
void linear(const Rows<T>& x, const Linear& layer, int first, int last, Out&& out) {
  const int groups = layer.k / T::group;
  const size_t ldw = (size_t)kPanel * T::group;
  const auto* panels = static_cast<const typename T::Weight*>(layer.panels);
  alignas(64) float block[T::rows * kPanel];
  const int widest = x.n < T::rows ? x.n : T::rows;
  int nr;
  for (int n = first; n < last; n += kLanes * nr) {
    const int in_panel = n % kPanel;
    const int left = kPanel - in_panel < last - n ? kPanel - in_panel : last - n;
    nr = columns_for<T>(widest, left);
    const auto* w = panels + (size_t)(n / kPanel) * groups * ldw + (size_t)in_panel * T::group;
    const int32_t* sums = kQuantised<T> ? layer.sums + n : nullptr;
    for (int i = 0; i < x.n; i += T::rows) {
      const int mr = x.n - i < T::rows ? x.n - i : T::rows;
      any_tile<T>(mr, nr, x.data + x.stride * (size_t)i, x.stride, w, ldw, sums, groups, block,
                  kPanel);
      for (int j = 0; j < nr; ++j) {
        const F bias = load(layer.bias + n + kLanes * j);
        for (int r = 0; r < mr; ++r) {
          F value = load(block + kPanel * r + kLanes * j);
          if constexpr (kQuantised<T>)
            value = value * broadcast(x.scale[i + r]) * load(layer.scale + n + kLanes * j);
          out(i + r, n + kLanes * j, value + bias);
        }
      }
    }
  }
}

}  // namespace whisper_npu::ISA
