#include <cmath>
#include <cstring>
#include <vector>

#include "floats16.h"
#include "kernels.h"
#include "rotation.h"

namespace whisper_npu {
namespace {

constexpr int kPanel = 64;
#if defined(__aarch64__)
constexpr int kF16Group = 1;
uint16_t to_f16(float x) { return float_to_fp16(x); }
#else
constexpr int kF16Group = 2;
uint16_t to_f16(float x) { return float_to_bf16(x); }
#endif

template <class T, class Convert>
void pack_row(const float* values, int row, int k, int group, T* panels, Convert&& convert) {
  T* panel = panels + (size_t)(row / kPanel) * kPanel * k + (size_t)(row % kPanel) * group;
  for (int i = 0; i < k; ++i)
    panel[(size_t)(i / group) * kPanel * group + i % group] = convert(values[i]);
}

template <class T, class Convert>
void pack_rows(const float* weight, int n, int k, int group, T* panels, Convert&& convert) {
  for (int row = 0; row < n; ++row)
    pack_row(weight + (size_t)row * k, row, k, group, panels, convert);
}

}  // namespace

size_t packed_bytes(Kind kind, int n, int k) {
  const size_t size = kind == Kind::kF32 ? 4 : kind == Kind::kF16 ? 2 : 1;
  return size * (size_t)n * (size_t)k;
}

void pack(Kind kind, const float* weight, int n, int k, void* panels, float* scale, int32_t* sums) {
  if (kind == Kind::kF32)
    return pack_rows(weight, n, k, 1, static_cast<float*>(panels), [](float x) { return x; });
  if (kind == Kind::kF16)
    return pack_rows(weight, n, k, kF16Group, static_cast<uint16_t*>(panels),
                     [](float x) { return to_f16(x); });
  std::vector<float> line((size_t)k);
  for (int row = 0; row < n; ++row) {
    memcpy(line.data(), weight + (size_t)row * k, sizeof(float) * (size_t)k);
    rotate<kApart>(line.data(), k / kApart);
    float most = 0;
    for (float x : line) most = std::fmax(most, std::fabs(x));
    scale[row] = most / 127;
    sums[row] = 0;
    pack_row(line.data(), row, k, 4, static_cast<int8_t*>(panels), [&](float x) {
      const float whole = most > 0 ? std::nearbyint(x / scale[row]) : 0;
      const int8_t value =
          (int8_t)(whole > 127 ? 127 : whole < -127 ? -127 : whole == whole ? whole : 0);
      sums[row] += value;
      return value;
    });
  }
}

}  // namespace whisper_npu
