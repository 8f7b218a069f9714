// The glue between two NPU matmuls: what tiles.py defines, one table per instruction set.
//
// Strips are (n, rows, width): the rows of a strip lie side by side, strips `stride` elements apart,
// so that any part of the rows or of the strips is such an array too.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace whisper_npu {

// What a matmul left, 4 columns in a strip: y = values * row_scale[m] * channel_scale[n] + bias[n].
struct Product {
  const void* values;
  bool whole;  // int32 with both scales; else float32, with a row_scale or none
  int strips, rows;
  size_t stride;
  const float *row_scale, *channel_scale, *bias;  // or null
};

enum class Element { kF32, kFp16, kInt8 };

// What the next matmul reads, 4, 8 or 16 columns in a strip.
struct Operand {
  void* values;
  Element element;
  int strips, rows, width;
  size_t stride;
  float* scale;  // (rows,), written for int8
};

// An operand of attention: float16 (heads, outer, inner, n, k), without gaps.
struct Heads {
  uint16_t* values;
  int heads, outer, inner, n, k;
};

struct TileKernels {
  const char* name;
  void (*convert)(const Product& product, const Operand& out);
  void (*gelu)(const Product& product, const Operand& out);
  void (*add)(const Product& product, const Operand& stream);
  void (*layer_norm)(const Product& stream, const float* weight, const float* bias,
                     const Operand& out);
  void (*softmax)(const Operand& scores, int n_keys, const Operand& out, float* total);
  void (*normalise)(const Operand& weights, float* total);
  void (*keys)(const Product& product, const Heads& out);
  void (*values)(const Product& product, const Heads& out);
  void (*rows)(const Product& product, float* out, size_t stride);
  void (*tap)(const Product& stream, int tap, int step, const Operand& out);
};

}  // namespace whisper_npu
