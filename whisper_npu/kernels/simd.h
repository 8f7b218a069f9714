// Sixteen floats at a time, on whatever the processor has.
//
// Each simd_<isa>.h defines, in the namespace of its instruction set:
//   F                     16 float32; + - * /, fma(a, b, c) = a * b + c, abs, round,
//                         max(floor, a) and min(ceiling, a), which give a when it is NaN
//   times_power_of_2      a * 2^n for whole n that keep the result normal
//   max_magnitude(m, a)   max(m, |a|); a NaN stays
//   load_int8, load_fp16  and store_...: 16 values, rounded to nearest
//   Int8, F16             number formats of a matrix product (linear.h):
//       group             inputs that one instruction takes for each output
//       rows, columns     the largest block of results that fits the registers (columns of 16)
//       start             accumulators; lanes: 16 outputs' weights; one: a row's inputs; dot; value
//       put, pack         16 values as inputs, as weights
// F16 is bfloat16 on x86 and float16 on Arm, as fast as the processor multiplies them.
//
// Everything lives in one namespace per instruction set, so that the linker can never take a
// function compiled for a newer processor. For the same reason nothing here uses std templates.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(ISA_AVX512) || defined(ISA_AVX2)
#include <immintrin.h>
#elif defined(ISA_NEON)
#include <arm_neon.h>
#endif

#include "floats16.h"

// A compiler that thinks a block of products too large calls these one by one instead, with every
// register through memory: ten times slower.
#define INLINE inline __attribute__((always_inline))

namespace whisper_npu::ISA {

#if defined(ISA_AVX512)
#include "simd_avx512.h"
#elif defined(ISA_AVX2)
#include "simd_avx2.h"
#elif defined(ISA_NEON)
#include "simd_neon.h"
#else
#include "simd_portable.h"
#endif

constexpr int kLanes = 16;

INLINE F load(const float* p, int n) {  // the first n, then zeros
  float all[kLanes] = {};
  memcpy(all, p, sizeof(float) * (size_t)n);
  return load(all);
}

INLINE void store(float* p, F a, int n) {
  float all[kLanes];
  store(all, a);
  memcpy(p, all, sizeof(float) * (size_t)n);
}

INLINE F load_fp16(const uint16_t* p, int n) {  // as `load`
  if (n == kLanes) return load_fp16(p);
  uint16_t all[kLanes] = {};
  memcpy(all, p, sizeof(uint16_t) * (size_t)n);
  return load_fp16(all);
}

INLINE void store_fp16(uint16_t* p, F a, int n) {
  if (n == kLanes) return store_fp16(p, a);
  uint16_t all[kLanes];
  store_fp16(all, a);
  memcpy(p, all, sizeof(uint16_t) * (size_t)n);
}

struct Float {
  using Weight = float;
  using Activation = float;
  static constexpr int group = 1, rows = F16::rows;
  static constexpr int columns(int rows) { return F16::columns(rows); }
  using Acc = F;
  using Lanes = F;
  using One = float;
  static INLINE Acc start(const int32_t*) { return broadcast(0); }
  static INLINE Lanes lanes(const Weight* w) { return load(w); }
  static INLINE One one(const Activation* x) { return *x; }
  static INLINE Acc dot(Acc acc, One x, Lanes w) { return fma(broadcast(x), w, acc); }
  static INLINE F value(Acc acc) { return acc; }
  static INLINE void put(Activation* p, F a) { store(p, a); }
  static INLINE void pack(Weight* p, F a) { store(p, a); }
};

struct Mixed : Float {  // int8 weights, float32 inputs
  using Weight = int8_t;
  static INLINE Lanes lanes(const Weight* w) { return load_int8(w); }
  static INLINE void pack(Weight* p, F a) { store_int8(p, a); }
};

}  // namespace whisper_npu::ISA
