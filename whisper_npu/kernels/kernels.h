// What the binding knows of the kernels: plain structs, and one table per instruction set.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <vector>

#include "pool.h"

namespace whisper_npu {

// How the weights of a linear layer are stored. F16: bfloat16 on x86, float16 on Arm.
enum class Kind : int { kF32 = 0, kF16 = 1, kInt8 = 2 };

// y = x W^T + b, packed by `pack` (linear.h has the order).
struct Linear {
  Kind kind;
  int n, k;  // padded: n to a multiple of 64, k to a multiple of 16
  const void* panels;
  const float* scale;   // (n,) int8 only
  const int32_t* sums;  // (n,) int8 only: sum of each output's weights
  const float* bias;    // (n,)
};

struct Norm {
  const float *weight, *bias;  // (width,), padded with zeros
};

// One transformer layer. Cross-attention only in the decoder.
//   qkv        queries, keys, values side by side; queries scaled by log2(e) / sqrt(head width)
//   cross_kv   keys, values of the audio features
struct Layer {
  Norm norm;
  Linear qkv, out;
  Norm cross_norm;
  Linear cross_query, cross_kv, cross_out;
  Norm mlp_norm;
  Linear fc1, fc2;
};

// A Whisper as packed. Widths are padded with zeros: rows of activations to a multiple of 64, each
// head to a multiple of 16, mels to a multiple of 16.
struct Model {
  int n_mels, n_ctx;                  // as in the checkpoint: 80 or 128; 1500
  int width, stride;                  // D, and D padded
  int hidden;                         // 4 D padded
  int audio_heads, text_heads, head;  // head: one head's width, padded
  int n_text_ctx, n_vocab;
  Linear conv1, conv2;  // inputs: three taps of padded frames side by side
  const float* audio_positions;  // (n_ctx, stride)
  std::vector<Layer> encoder, decoder;
  Norm encoder_norm, decoder_norm;
  Linear vocabulary;
  const void* embedding;        // (n_vocab, width) float32, or float16 when `embedding_is_fp16`
  bool embedding_is_fp16;
  const float* text_positions;  // (n_text_ctx, stride)
  Kind cache;                   // how keys and values of the decoder are kept
};

// What passes between layers, in the order of the network; `names_of_parts` has them.
enum class Part : int {
  kConv1, kConv2, kPositions,               // of the stem
  kMixed, kOut, kMlpNorm, kFc1, kFc2,       // of a layer, behind its attention
  kNorm, kQuery, kKey, kValue,              // of the next layer, before its attention
  kEnd,                                     // the last norm
  kCrossKey, kCrossValue,                   // of a decoder's layer
  kCount
};

// Who is shown what passes between layers: the work then goes in steps, and computes the same.
class Shown {
 public:
  virtual ~Shown();
  virtual void begin() = 0;  // a step
  // Some rows of a part of a layer, by any of the threads at work.
  virtual void rows(Part part, int layer, int first, int n, const float* x, size_t stride) = 0;
  virtual void end() = 0;
};

// The encoder with its working memory.
class Encoder {
 public:
  virtual ~Encoder();
  // mel (n_mels, 2 positions) -> features (positions, stride), at most n_ctx; shown may be null
  virtual void encode(const float* mel, int positions, float* features, Shown* shown) = 0;
};

// Keys and values of one window for every decoder layer; sessions share it.
class Encoded {
 public:
  virtual ~Encoded();
  virtual int positions() const = 0;
};

// The hypotheses of one window being decoded, with their keys and values.
class Session {
 public:
  virtual ~Session();
  virtual int rows() const = 0;
  virtual int length() const = 0;  // tokens so far
  // Row i goes on from row sources[i]; n <= beams.
  virtual void reorder(const int* sources, int n) = 0;
  // Scores before the softmax of the aligned heads, row 0: (heads, length, positions).
  virtual void alignment(float* scores) const = 0;
};

struct Head {
  int layer, head;
};

// New tokens of one session, and where its logits go.
//   tokens  (rows, n)           in the vocabulary, length + n <= n_text_ctx
//   logits  (rows, n_vocab)     after the last token
//           (rows, n, n_vocab)  with every_position
struct Step {
  Session* session;
  const int64_t* tokens;
  int n;
  bool every_position;
  float* logits;
};

// The decoder with its working memory.
class Decoder {
 public:
  virtual ~Decoder();
  // A step of several sessions, each named once. When it throws, none of them has changed.
  virtual void step(const Step* steps, int n_steps) = 0;
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
  float (*log_sum_exp)(const float* x, int n);
  void (*largest)(const float* x, int n, int count, float* values, int64_t* places);
  // What is made refers to the pool and the model, which outlive it.
  Encoder* (*encoder)(Pool& pool, const Model& model);
  Decoder* (*decoder)(Pool& pool, const Model& model);
  // features (positions, stride) -> what every decoder layer attends to
  Encoded* (*project)(Pool& pool, const Model& model, const float* features, int positions,
                      Shown* shown);
  // the same from keys and values, (positions, heads * width) for every layer
  Encoded* (*keep)(Pool& pool, const Model& model, const float* const* keys,
                   const float* const* values, int positions, int width);
  Session* (*session)(Pool& pool, const Model& model, const Encoded& encoded, int beams,
                      const Head* aligned, int n_aligned);
};

// All that this processor can run, the best first; ends with a null.
const Kernels* const* available_kernels();

size_t packed_bytes(Kind kind, int n, int k);  // n, k padded
// weight (n, k) row-major, n and k already padded -> panels, scale (n,), sums (n,).
void pack(Kind kind, const float* weight, int n, int k, void* panels, float* scale, int32_t* sums);

}  // namespace whisper_npu
