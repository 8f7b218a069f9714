// Compiled once per instruction set, with -DISA=name: the glue between two NPU matmuls.
//
// 16 floats are 4 rows of a strip of 4 columns. What needs a whole row (a norm, a softmax, the scale
// of int8) goes over all strips for a block of 16 rows, which stay in the cache meanwhile.
#include "tiles.h"

#include "functions.h"
#include "scratch.h"

namespace whisper_npu::ISA {
namespace {

constexpr int kBlock = 16, kParts = kBlock / 4;  // rows at a time, and in pieces of 16 floats
constexpr int kTall = 32, kAhead = 4;  // rows of scores at a time, strips fetched ahead

inline int at_most(int n, int limit) { return n < limit ? n : limit; }

inline F load_part(const float* p, int n) { return n == kLanes ? load(p) : load(p, n); }
inline F load_part(const int32_t* p, int n) {
  float all[kLanes] = {};
  for (int i = 0; i < n; ++i) all[i] = (float)p[i];
  return load(all);
}

// (n,) -> each value 4 times (rows), or each 4 values 4 times (channels); null gives `otherwise`
void repeat(const float* from, int n, float otherwise, bool rows, Scratch<float>& to) {
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
  if (out.element == Element::kFloat) return use(Writer<float, 1>{out});
  if (out.element == Element::kHalf)
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
void quantising(Block& block, int row, const Operand& out, F* factor) {
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
void put_block(Block& block, int row, const Operand& out) {
  F factor[kParts];
  if (out.element == Element::kInt8) quantising(block, row, out, factor);
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

// function(value) of a product -> an operand
template <class Function>
void map(const Product& product, const Operand& out, Function&& function) {
  read(product, [&](auto& reader) {
    if (out.element == Element::kInt8) {
      Block block(product.strips);
      for (int row = 0; row < out.rows; row += kBlock) {
        for (int j = 0; j < product.strips; ++j) {
          reader.fetch(j + 4, row);
          for (int p = 0; p < kParts && row + 4 * p < out.rows; ++p)
            store(block.at(j, p), function(reader.at(j, row + 4 * p)));
        }
        put_block(block, row, out);
      }
      return;
    }
    write(out, [&](auto writer) {
    constexpr int G = decltype(writer)::kStrips;
      for (int strip = 0; strip < out.strips; ++strip)
        for (int row = 0; row < out.rows; row += 4) {
          F parts[G];
          for (int g = 0; g < G; ++g) parts[g] = writer.fit(function(reader.at(strip * G + g, row)));
          writer.put_rows(strip, row, parts);
        }
    });
  });
}

void convert(const Product& product, const Operand& out) {
  map(product, out, [](F x) { return x; });
}

void gelu_of(const Product& product, const Operand& out) {
  map(product, out, [](F x) { return gelu(x); });
}

void add(const Product& product, const Operand& stream) {
  read(product, [&](auto& reader) {
    for (int j = 0; j < product.strips; ++j)
      for (int row = 0; row < product.rows; row += 4) {
        float* to = (float*)stream.values + (size_t)j * stream.stride + 4 * (size_t)row;
        const int n = 4 * at_most(product.rows - row, 4);
        const F sum = load_part(to, n) + reader.at(j, row);
        n == kLanes ? store(to, sum) : store(to, sum, n);
      }
  });
}

void norm(const Product& stream, const float* weight, const float* bias, const Operand& out) {
  Reader<float> reader(stream);
  Scratch<float> scale, shift;
  repeat(weight, 4 * stream.strips, 1, false, scale);
  repeat(bias, 4 * stream.strips, 0, false, shift);
  Block block(stream.strips);
  const F share = broadcast(1 / (4 * (float)stream.strips));
  for (int row = 0; row < stream.rows; row += kBlock) {
    F mean[kParts], factor[kParts];
    for (int p = 0; p < kParts; ++p) mean[p] = factor[p] = broadcast(0);
    const int parts = at_most((stream.rows - row + 3) / 4, kParts);
    for (int j = 0; j < stream.strips; ++j) {
      reader.fetch(j + 4, row);
      for (int p = 0; p < parts; ++p) {
        const F x = reader.raw(j, row + 4 * p);
        store(block.at(j, p), x);
        mean[p] = mean[p] + x;
      }
    }
    for (int p = 0; p < parts; ++p) mean[p] = by_row(mean[p], plus) * share;
    for (int j = 0; j < stream.strips; ++j)
      for (int p = 0; p < parts; ++p) {
        const F centred = load(block.at(j, p)) - mean[p];
        factor[p] = fma(centred, centred, factor[p]);
      }
    for (int p = 0; p < parts; ++p) {
      float all[kLanes];
      store(all, by_row(factor[p], plus) * share);
      for (float& x : all) x = 1 / sqrtf(x + 1e-5f);
      factor[p] = load(all);
    }
    for (int j = 0; j < stream.strips; ++j)
      for (int p = 0; p < parts; ++p) {
        const F x = (load(block.at(j, p)) - mean[p]) * factor[p];
        store(block.at(j, p), fma(x, load(scale.data + 16 * (size_t)j),
                                  load(shift.data + 16 * (size_t)j)));
      }
    put_block(block, row, out);
  }
}

inline F load_halves(const uint16_t* p, int n) {  // the first n, then zeros
  if (n == kLanes) return load_fp16(p);
  uint16_t all[kLanes] = {};
  memcpy(all, p, sizeof(uint16_t) * (size_t)n);
  return load_fp16(all);
}
inline void store_halves(uint16_t* p, int n, F a) {
  if (n == kLanes) return store_fp16(p, a);
  uint16_t all[kLanes];
  store_fp16(all, a);
  memcpy(p, all, sizeof(uint16_t) * (size_t)n);
}

// The same rows in strips of another width: both are multiples of 4 columns.
void restrip(const Operand& from, const Operand& to, int row, int n_rows) {
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
      peak[p] = max(peak[p], load_halves(at, n));
    });
  if (rest)
    each(whole, [&](int p, uint16_t* at, int n) {
      peak[p] = max(peak[p], load_halves(at, n) + lower);
    });
  for (int p = 0; p < parts; ++p) peak[p] = by_row<W>(peak[p], larger) * broadcast(-kLog2E);
  for (int j = 0; j < whole; ++j)
    each(j, [&](int p, uint16_t* at, int n) {
      const F e = exp2(fma(load_halves(at, n), log2e, peak[p]));
      sum[p] = sum[p] + e;
      store_halves(at, n, e);
    });
  if (rest)
    each(whole, [&](int p, uint16_t* at, int n) {
      const F e = exp2(fma(load_halves(at, n) + lower, log2e, peak[p])) * keep;
      sum[p] = sum[p] + e;
      store_halves(at, n, e);
    });
  for (int j = whole + (rest > 0); j < scores.strips; ++j)
    each(j, [&](int, uint16_t* at, int n) { store_halves(at, n, broadcast(0)); });
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

void softmax(const Operand& scores, int n_keys, const Operand& out, float* total) {
  scores.width == 8 ? softmax_of<8>(scores, n_keys, out, total)
                    : softmax_of<4>(scores, n_keys, out, total);
}

// Rows that sum to 1, of weights and what each row sums to.
void normalise(const Operand& weights, float* total) {
  const int width = weights.width, rows_at_once = kLanes / width;
  for (int row = 0; row < weights.rows; row += rows_at_once) {
    const int n = at_most(weights.rows - row, rows_at_once) * width;
    float each[kLanes] = {};
    for (int i = 0; i < n; ++i) each[i] = 1 / total[row + i / width];
    const F factor = load(each);
    for (int j = 0; j < weights.strips; ++j) {
      uint16_t* at = (uint16_t*)weights.values + (size_t)j * weights.stride + (size_t)row * width;
      store_halves(at, n, load_halves(at, n) * factor);
    }
  }
  for (int row = 0; row < weights.rows; ++row) total[row] = 1;
}

void keys(const Product& product, const Heads& out) {
  const int n_keys = out.outer * out.n, width = out.inner * out.k;
  memset(out.values, 0, 2 * (size_t)out.heads * (size_t)n_keys * (size_t)width);
  read(product, [&](auto& reader) {
    for (int j = 0; j < product.strips; ++j) {
      const int head = 4 * j / width, d = 4 * j % width;
      uint16_t* column = out.values + ((size_t)head * out.outer * out.inner + d / out.k) *
                                          (size_t)(out.n * out.k) + d % out.k;
      for (int row = 0; row < product.rows; row += 4) {
        uint16_t all[kLanes];
        put(all, saturated(reader.at(j, row)));
        for (int i = 0; i < at_most(product.rows - row, 4); ++i) {
          const size_t tile = (size_t)((row + i) / out.n) * out.inner * (size_t)(out.n * out.k);
          memcpy(column + tile + (size_t)((row + i) % out.n) * out.k, all + 4 * i, 8);
        }
      }
    }
  });
}

void values(const Product& product, const Heads& out) {
  const int n_keys = out.inner * out.k, width = out.outer * out.n;
  memset(out.values, 0, 2 * (size_t)out.heads * (size_t)n_keys * (size_t)width);
  read(product, [&](auto& reader) {
    for (int j = 0; j < product.strips; ++j) {
      const int head = 4 * j / width, d = 4 * j % width;
      uint16_t* rows = out.values + ((size_t)head * out.outer + d / out.n) * out.inner *
                                        (size_t)(out.n * out.k) + (size_t)(d % out.n) * out.k;
      for (int row = 0; row < product.rows; row += 4) {
        uint16_t all[kLanes];
        put(all, saturated(reader.at(j, row)));  // rows beyond the last are zero, and fall on padding
        uint16_t* to = rows + (size_t)(row / out.k) * (size_t)(out.n * out.k) + row % out.k;
        for (int i = 0; i < 4; ++i) {
          const uint16_t column[4] = {all[i], all[4 + i], all[8 + i], all[12 + i]};
          memcpy(to + (size_t)i * out.k, column, at_most(product.rows - row, 4) * 2);
        }
      }
    }
  });
}

void rows(const Product& product, float* out, size_t stride) {
  read(product, [&](auto& reader) {
    for (int block = 0; block < product.rows; block += kBlock)
      for (int j = 0; j < product.strips; ++j) {
        reader.fetch(j + 4, block);
        for (int row = block; row < at_most(product.rows, block + kBlock); row += 4) {
          float all[kLanes];
          store(all, reader.at(j, row));
          for (int i = 0; i < at_most(product.rows - row, 4); ++i)
            memcpy(out + (size_t)(row + i) * stride + 4 * (size_t)j, all + 4 * i, 16);
        }
      }
  });
}

// row m of out is row m * step + tap - 1 of the stream, zero where there is none
void tap(const Product& stream, int tap, int step, const Operand& out) {
  const float* from = (const float*)stream.values;
  write(out, [&](auto writer) {
    constexpr int G = decltype(writer)::kStrips;
    for (int strip = 0; strip < out.strips; ++strip)
      for (int row = 0; row < out.rows; row += 4) {
        F parts[G];
        for (int g = 0; g < G; ++g) {
          float all[kLanes] = {};
          for (int i = 0; i < 4; ++i) {
            const int frame = (row + i) * step + tap - 1;
            if (frame >= 0 && frame < stream.rows)
              memcpy(all + 4 * i, from + (size_t)(strip * G + g) * stream.stride + 4 * (size_t)frame,
                     16);
          }
          parts[g] = writer.fit(load(all));
        }
        writer.put_rows(strip, row, parts);
      }
  });
}

}  // namespace

extern const TileKernels tile_kernels;
const TileKernels tile_kernels = {kName, convert, gelu_of, add,  norm, softmax,
                                  normalise, keys, values, rows, tap};

}  // namespace whisper_npu::ISA
