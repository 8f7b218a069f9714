// What the binding knows of the kernels: plain structs, and one table per instruction set.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "pool.h"

namespace whisper_npu {

// How the weights of a linear layer are stored. Half: bfloat16 on x86, IEEE half on Arm.
enum class Kind : int { kFloat = 0, kHalf = 1, kInt8 = 2 };

// y = x W^T + b, packed by `pack` (linear.h has the order).
struct Linear {
  Kind kind;
  int n, k;  // padded: n to a multiple of 64, k to a multiple of 4
  const void* panels;
  const float* scale;   // (n,) int8 only
  const int32_t* sums;  // (n,) int8 only: sum of each output's weights
  const float* bias;    // (n,)
};

// The kernels of one instruction set. Matrices are row-major float32; strides are in elements.
struct Kernels {
  const char* name;
  // y (rows, n) from x (rows, k), any sizes; gelu and residual (rows, n, or null) come after the bias
  void (*linear)(Pool& pool, const float* x, int rows, int k, const Linear& layer, int n, bool gelu,
                 const float* residual, float* y);
  void (*layer_norm)(const float* x, int rows, int n, const float* weight, const float* bias,
                     float* y);
  void (*gelu)(const float* x, size_t n, float* y);
};

// All that this processor can run, the best first; ends with a null.
const Kernels* const* available_kernels();

size_t packed_bytes(Kind kind, int n, int k);  // n, k padded
// weight (n, k) row-major, n and k already padded -> panels, scale (n,), sums (n,).
void pack(Kind kind, const float* weight, int n, int k, void* panels, float* scale, int32_t* sums);

}  // namespace whisper_npu
