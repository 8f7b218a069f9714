// What a matmul left, read as values, and what the next one reads, written: 16 floats are 4 rows of a
// strip of 4 columns. What needs a whole row goes over all strips for a block of 16 rows, which stay
// in the cache meanwhile.
#pragma once
#include "functions.h"
#include "rotation.h"
#include "scratch.h"
#include "tiles.h"

namespace whisper_npu::ISA {
namespace {  // its names are common ones

constexpr int kBlock = 16, kParts = kBlock / 4;  // rows at a time, and in pieces of 16 floats

inline int at_most(int n, int limit) { return n < limit ? n : limit; }

inline F load_part(const float* p, int n) { return n == kLanes ? load(p) : load(p, n); }
inline F load_part(const int32_t* p, int n) {
  float all[kLanes] = {};
  for (int i = 0; i < n; ++i) all[i] = (float)p[i];
  return load(all);
}

// (n,) -> each value 4 times (rows), or each 4 values 4 times (channels); null gives `otherwise`
inline void repeat(const float* from, int n, float otherwise, bool rows, Scratch<float>& to) {
  to.reserve((size_t)round_up(n, 4) * 4 + kLanes);
  for (int i = 0; i < round_up(n, 4); ++i)
    for (int j = 0; j < 4; ++j)
      to[(size_t)(rows ? 4 * i + j : i / 4 * 16 + 4 * j + i % 4)] =
          from && i < n ? from[i] : otherwise;
}

// A product as values: rows `row` to row + 3 of one strip.
template <class T>
struct Reader {
  const Product& product;
  Scratch<float> bias, channels, rows;

  explicit Reader(const Product& p) : product(p) {
    repeat(p.bias, 4 * p.strips, 0, false, bias);
    if (p.row_scale) {
      repeat(p.channel_scale, 4 * p.strips, 1, false, channels);
      repeat(p.row_scale, p.rows, 1, true, rows);
    }
  }
  F raw(int strip, int row) {
    const T* from = (const T*)product.values + (size_t)strip * product.stride + 4 * (size_t)row;
    return load_part(from, 4 * at_most(product.rows - row, 4));
  }
  F at(int strip, int row) {
    F x = raw(strip, row);
    if (product.row_scale)
      x = x * load(rows.data + 4 * (size_t)row) * load(channels.data + 16 * (size_t)strip);
    return x + load(bias.data + 16 * (size_t)strip);
  }
  void fetch(int strip, int row) {  // soon
    if (strip < product.strips) {
      const T* from = (const T*)product.values + (size_t)strip * product.stride + 4 * (size_t)row;
      for (int i = 0; i < 4 * kBlock; i += kLanes) __builtin_prefetch(from + i);
    }
  }
};

template <class Do>
void read(const Product& product, Do&& use) {
  if (product.whole) {
    Reader<int32_t> reader(product);
    use(reader);
  } else {
    Reader<float> reader(product);
    use(reader);
  }
}

inline F saturated(F a) { return max(broadcast(-65504), min(broadcast(65504), a)); }
inline void put(float* p, F a) { store(p, a); }
inline void put(uint16_t* p, F a) { store_fp16(p, a); }
inline void put(int8_t* p, F a) { store_int8(p, a); }

// 4 rows of two strips side by side: the order of float16 on RK3588
inline void put_pair(uint16_t* p, F a, F b) {
#if defined(ISA_AVX512)
  const __m256i x = _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT);
  const __m256i y = _mm512_cvtps_ph(b.v, _MM_FROUND_TO_NEAREST_INT);
  const __m256i even = _mm256_unpacklo_epi64(x, y), odd = _mm256_unpackhi_epi64(x, y);
  _mm256_storeu_si256((__m256i*)p, _mm256_permute2x128_si256(even, odd, 0x20));
  _mm256_storeu_si256((__m256i*)(p + 16), _mm256_permute2x128_si256(even, odd, 0x31));
#elif defined(ISA_NEON)
  for (int i = 0; i < 4; ++i)
    vst1q_u16(p + 8 * i, vreinterpretq_u16_f16(
                             vcombine_f16(vcvt_f16_f32(a.v[i]), vcvt_f16_f32(b.v[i]))));
#else
  uint16_t left[kLanes], right[kLanes];
  put(left, a);
  put(right, b);
  for (int i = 0; i < 4; ++i) {
    memcpy(p + 8 * i, left + 4 * i, 8);
    memcpy(p + 8 * i + 4, right + 4 * i, 8);
  }
#endif
}
template <class T>
inline void put_pair(T* p, F a, F b) {
  T left[kLanes], right[kLanes];
  put(left, a);
  put(right, b);
  for (int i = 0; i < 4; ++i) {
    memcpy(p + 8 * i, left + 4 * i, 4 * sizeof(T));
    memcpy(p + 8 * i + 4, right + 4 * i, 4 * sizeof(T));
  }
}

// Strips of T, each of G strips of 4 columns.
template <class T, int G>
struct Writer {
  using Value = T;
  static constexpr int kStrips = G;
  const Operand& out;

  // float16 that is too large would become infinite, and NaN in the next product
  static F fit(F a) { return sizeof(T) == 2 ? saturated(a) : a; }

  // parts: 4 rows from `row` on of the G strips that make one
  void put_rows(int strip, int row, const F* parts) {
    T* to = (T*)out.values + (size_t)strip * out.stride + (size_t)row * (4 * G);
    const int n = at_most(out.rows - row, 4);
    if (n == 4 && G == 1) return put(to, parts[0]);
    if (n == 4 && G == 2) return put_pair(to, parts[0], parts[G - 1]);
    T all[G][kLanes];
    for (int g = 0; g < G; ++g) put(all[g], parts[g]);
    for (int i = 0; i < n; ++i)
      for (int g = 0; g < G; ++g)
        memcpy(to + (size_t)(i * G + g) * 4, all[g] + 4 * i, 4 * sizeof(T));
  }
};

template <class Do>
void write(const Operand& out, Do&& use) {
  const int g = out.width / 4;
  if (out.element == Element::kF32) return use(Writer<float, 1>{out});
  if (out.element == Element::kFp16)
    return g == 1 ? use(Writer<uint16_t, 1>{out}) : use(Writer<uint16_t, 2>{out});
  return g == 2 ? use(Writer<int8_t, 2>{out}) : use(Writer<int8_t, 4>{out});
}

// Up to 16 rows of all strips, in the order of a product.
struct Block {
  Scratch<float> values;
  int strips;

  explicit Block(int n) : values((size_t)n * 4 * kBlock), strips(n) {}
  float* at(int strip, int part) {
    return values.data + ((size_t)strip * kParts + (size_t)part) * kLanes;
  }
};

// Rows of W values -> one value for each row, W times
template <int W = 4, class Combine>
inline F by_row(F a, Combine&& combine) {
  float all[kLanes];
  store(all, a);
  for (int i = 0; i < kLanes; i += W) {
    float x = all[i];
    for (int j = 1; j < W; ++j) x = combine(x, all[i + j]);
    for (int j = 0; j < W; ++j) all[i + j] = x;
  }
  return load(all);
}
inline float larger(float a, float b) { return b > a || b != b ? b : a; }  // a NaN stays
inline float plus(float a, float b) { return a + b; }

// What the rows of a block are multiplied by to become int8; tells their scales.
inline void quantising(Block& block, int row, const Operand& out, F* factor) {
  for (int p = 0; p < kParts; ++p) {
    F peak = broadcast(0);
    for (int j = 0; j < block.strips; ++j) peak = max_magnitude(peak, load(block.at(j, p)));
    float all[kLanes];
    store(all, by_row(peak, larger));
    for (int i = 0; i < 4; ++i) {
      const float highest = all[4 * i], factor_of_row = highest == 0 ? 1 : 127 / highest;
      if (row + 4 * p + i < out.rows)
        out.scale[row + 4 * p + i] = highest == 0 ? 1 : highest / 127;
      for (int j = 0; j < 4; ++j) all[4 * i + j] = factor_of_row;
    }
    factor[p] = load(all);
  }
}

// A block -> the operand's rows from `row` on
inline void put_block(Block& block, int row, const Operand& out) {
  F factor[kParts];
  if (out.element == Element::kInt8) {
    rotate<kApart * kBlock>(block.values.data, 4 * block.strips / kApart);
    quantising(block, row, out, factor);
  }
  write(out, [&](auto writer) {
    constexpr int G = decltype(writer)::kStrips;
    for (int strip = 0; strip < out.strips; ++strip)
      for (int p = 0; p < kParts && row + 4 * p < out.rows; ++p) {
        F parts[G];
        for (int g = 0; g < G; ++g) {
          parts[g] = writer.fit(load(block.at(strip * G + g, p)));
          if (sizeof(typename decltype(writer)::Value) == 1) parts[g] = parts[g] * factor[p];
        }
        writer.put_rows(strip, row + 4 * p, parts);
      }
  });
}

}  // namespace
}  // namespace whisper_npu::ISA
