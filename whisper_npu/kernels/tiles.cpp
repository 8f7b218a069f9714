// Compiled once per instruction set, with -DISA=name: the glue between two NPU matmuls.
//
// kernels/tiles.py says what each of these computes.
#include "softmax.h"
#include "strips.h"
#include "tiles.h"

namespace whisper_npu::ISA {
namespace {

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
