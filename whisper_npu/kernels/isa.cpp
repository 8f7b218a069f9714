// Compiled once per instruction set, with -DISA=name: the kernels as one table.
#include "decoder.h"
#include "encoder.h"
#include "kernels.h"

namespace whisper_npu::ISA {
namespace {

template <class T>
void linear_as(Pool& pool, const float* x, int rows, int k, const Linear& layer, int n, bool gelu_too,
               const float* residual, float* y) {
  const int padded = round_up(k, kLanes), wide = layer.k > padded ? layer.k : padded;
  Scratch<float> line((size_t)wide);
  Input<T> input(rows, wide);
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < wide; ++j) line[j] = j < k ? x[(size_t)i * k + j] : 0;
    const int n_in = round_up(wide, kLanes);
    prepare<T>(rotated<T>(line.data, n_in, line.data), n_in, input.rows(rows), i);
  }
  auto finish = [&](int row, int column, F value) {
    if (column >= n) return;
    const int valid = n - column < kLanes ? n - column : kLanes;
    if (gelu_too) value = gelu(value);
    const size_t place = (size_t)row * n + column;
    if (residual) value = value + load(residual + place, valid);
    store(y + place, value, valid);
  };
  run(pool, [&](int id) {
    const int units = layer.n / kLanes, threads = pool.threads();
    linear<T>(input.rows(rows), layer, units * id / threads * kLanes,
              units * (id + 1) / threads * kLanes, finish);
  });
}

void linear_any(Pool& pool, const float* x, int rows, int k, const Linear& layer, int n, bool gelu_too,
                const float* residual, float* y) {
  const auto as = layer.kind == Kind::kInt8   ? linear_as<Int8>
                  : layer.kind == Kind::kF16 ? linear_as<F16>
                                              : linear_as<Float>;
  as(pool, x, rows, k, layer, n, gelu_too, residual, y);
}

void layer_norm_rows(const float* x, int rows, int n, const float* weight, const float* bias,
                     float* y) {
  const int padded = round_up(n, kLanes);
  Scratch<float> scale((size_t)padded), shift((size_t)padded);
  memset(scale.data, 0, sizeof(float) * (size_t)padded);
  memset(shift.data, 0, sizeof(float) * (size_t)padded);
  memcpy(scale.data, weight, sizeof(float) * (size_t)n);
  memcpy(shift.data, bias, sizeof(float) * (size_t)n);
  for (int i = 0; i < rows; ++i)
    layer_norm(x + (size_t)i * n, scale.data, shift.data, n, [&](int j, F value) {
      store(y + (size_t)i * n + j, value, n - j < kLanes ? n - j : kLanes);
    });
}

void gelu_all(const float* x, size_t n, float* y) {
  for (size_t i = 0; i < n; i += kLanes) {
    const int valid = n - i < kLanes ? (int)(n - i) : kLanes;
    store(y + i, gelu(load(x + i, valid)), valid);
  }
}

Encoder* make_encoder(Pool& pool, const Model& model) {
  switch (model.encoder[0].qkv.kind) {
    case Kind::kInt8: return new EncoderOf<Int8, F16>(pool, model);
    case Kind::kF16: return new EncoderOf<F16, F16>(pool, model);
    default: return new EncoderOf<Float, Float>(pool, model);
  }
}

struct Holder {  // deletes what is not given away, when something throws
  Encoded* encoded;
  ~Holder() { delete encoded; }
  Encoded* give() {
    Encoded* given = encoded;
    encoded = nullptr;
    return given;
  }
};

template <class K, class V>
Encoded* project_to(Pool& pool, const Model& model, const float* features, int positions, Shown* shown) {
  auto* encoded = new EncodedAs<K, V>(model, positions);
  Holder holder = {encoded};
  switch (model.decoder[0].cross_kv.kind) {
    case Kind::kInt8: encoded->template project<Int8>(pool, model, features, shown); break;
    case Kind::kF16: encoded->template project<F16>(pool, model, features, shown); break;
    default: encoded->template project<Float>(pool, model, features, shown);
  }
  return holder.give();
}

Encoded* project(Pool& pool, const Model& model, const float* features, int positions, Shown* shown) {
  switch (model.cache) {
    case Kind::kInt8: return project_to<Int8, Mixed>(pool, model, features, positions, shown);
    case Kind::kF16: return project_to<F16, F16>(pool, model, features, positions, shown);
    default: return project_to<Float, Float>(pool, model, features, positions, shown);
  }
}

template <class K, class V>
Encoded* keep_as(Pool& pool, const Model& model, const float* const* keys,
                 const float* const* values, int positions, int width) {
  auto* encoded = new EncodedAs<K, V>(model, positions);
  encoded->keep(pool, model, keys, values, width);
  return encoded;
}

Encoded* keep(Pool& pool, const Model& model, const float* const* keys, const float* const* values,
              int positions, int width) {
  const auto as = model.cache == Kind::kInt8   ? keep_as<Int8, Mixed>
                  : model.cache == Kind::kF16 ? keep_as<F16, F16>
                                               : keep_as<Float, Float>;
  return as(pool, model, keys, values, positions, width);
}

template <class K, class V>
Session* session_as(Pool& pool, const Model& model, const Encoded& encoded, int beams,
                    const Head* aligned, int n_aligned) {
  return new SessionOf<K, V>(pool, model, static_cast<const EncodedAs<K, V>&>(encoded), beams,
                             aligned, n_aligned);
}

Session* make_session(Pool& pool, const Model& model, const Encoded& encoded, int beams,
                      const Head* aligned, int n_aligned) {
  const auto make = model.cache == Kind::kInt8   ? session_as<Int8, Mixed>
                    : model.cache == Kind::kF16 ? session_as<F16, F16>
                                                : session_as<Float, Float>;
  return make(pool, model, encoded, beams, aligned, n_aligned);
}

Decoder* make_decoder(Pool& pool, const Model& model) {
  // int8 weights go with int8 or 16-bit keys and values, the others with their own
  if (model.vocabulary.kind == Kind::kF32) return new DecoderOf<Float, Float, Float>(pool, model);
  if (model.vocabulary.kind == Kind::kF16) return new DecoderOf<F16, F16, F16>(pool, model);
  if (model.cache == Kind::kF16) return new DecoderOf<Int8, F16, F16>(pool, model);
  return new DecoderOf<Int8, Int8, Mixed>(pool, model);
}

}  // namespace

extern const Kernels kernels;
const Kernels kernels = {kName,       linear_any, layer_norm_rows, gelu_all,
                         log_sum_exp, largest,    make_encoder,    make_decoder,
                         project,     keep,       make_session};

}  // namespace whisper_npu::ISA
