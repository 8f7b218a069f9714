// Armv8.2 with dot products and float16: Cortex-A55, A76 and later. Meaning: simd.h.
constexpr const char* kName = "neon";

struct F {
  float32x4_t v[4];
};
#define EACH(expression) \
  F r;                   \
  for (int i = 0; i < 4; ++i) r.v[i] = expression; \
  return r
INLINE F broadcast(float x) { EACH(vdupq_n_f32(x)); }
INLINE F load(const float* p) { EACH(vld1q_f32(p + 4 * i)); }
INLINE void store(float* p, F a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}
INLINE F operator+(F a, F b) { EACH(vaddq_f32(a.v[i], b.v[i])); }
INLINE F operator-(F a, F b) { EACH(vsubq_f32(a.v[i], b.v[i])); }
INLINE F operator*(F a, F b) { EACH(vmulq_f32(a.v[i], b.v[i])); }
INLINE F operator/(F a, F b) { EACH(vdivq_f32(a.v[i], b.v[i])); }
INLINE F fma(F a, F b, F c) { EACH(vfmaq_f32(c.v[i], a.v[i], b.v[i])); }
INLINE F max(F floor, F a) { EACH(vmaxq_f32(floor.v[i], a.v[i])); }
INLINE F min(F ceiling, F a) { EACH(vminq_f32(ceiling.v[i], a.v[i])); }
INLINE F abs(F a) { EACH(vabsq_f32(a.v[i])); }
INLINE F round(F a) { EACH(vrndnq_f32(a.v[i])); }
INLINE F times_power_of_2(F a, F n) {
  EACH(vreinterpretq_f32_s32(
      vaddq_s32(vreinterpretq_s32_f32(a.v[i]), vshlq_n_s32(vcvtnq_s32_f32(n.v[i]), 23))));
}
INLINE F max_magnitude(F m, F a) { EACH(vmaxq_f32(m.v[i], vabsq_f32(a.v[i]))); }
#undef EACH
INLINE float sum(F a) {
  return vaddvq_f32(vaddq_f32(vaddq_f32(a.v[0], a.v[1]), vaddq_f32(a.v[2], a.v[3])));
}
INLINE float maximum(F a) {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3])));
}

INLINE F load_int8(const int8_t* p) {
  const int8x16_t bytes = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
           vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}
INLINE void store_int8(int8_t* p, F a) {
  int16x4_t words[4];
  for (int i = 0; i < 4; ++i) words[i] = vqmovn_s32(vcvtnq_s32_f32(a.v[i]));
  vst1q_s8(p, vcombine_s8(vqmovn_s16(vcombine_s16(words[0], words[1])),
                          vqmovn_s16(vcombine_s16(words[2], words[3]))));
}
INLINE F load_fp16(const uint16_t* p) {
  F r;
  for (int i = 0; i < 4; ++i) r.v[i] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i)));
  return r;
}
INLINE void store_fp16(uint16_t* p, F a) {
  for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.v[i])));
}

struct Int8 {
  using Weight = int8_t;
  using Activation = int8_t;
  static constexpr int group = 4, rows = 6;
  static constexpr int columns(int rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }
  struct Acc {
    int32x4_t v[4];
  };
  struct Lanes {
    int8x16_t v[4];
  };
  using One = int8x16_t;
  static INLINE Acc start(const int32_t*) {
    const int32x4_t zero = vdupq_n_s32(0);
    return {{zero, zero, zero, zero}};
  }
  static INLINE Lanes lanes(const Weight* w) {
    return {{vld1q_s8(w), vld1q_s8(w + 16), vld1q_s8(w + 32), vld1q_s8(w + 48)}};
  }
  static INLINE One one(const Activation* x) {
    int32_t bits;
    memcpy(&bits, x, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(bits));
  }
  static INLINE Acc dot(Acc acc, One x, Lanes w) {
    for (int i = 0; i < 4; ++i) acc.v[i] = vdotq_s32(acc.v[i], w.v[i], x);
    return acc;
  }
  static INLINE F value(Acc acc) {
    F r;
    for (int i = 0; i < 4; ++i) r.v[i] = vcvtq_f32_s32(acc.v[i]);
    return r;
  }
  static INLINE void put(Activation* p, F a) { store_int8(p, a); }
  static INLINE void pack(Weight* p, F a) { store_int8(p, a); }
};

struct F16 {  // float16 weights, float32 arithmetic
  using Weight = uint16_t;
  using Activation = float;
  static constexpr int group = 1, rows = 6;
  static constexpr int columns(int rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }
  using Acc = F;
  using Lanes = F;
  using One = float;
  static INLINE Acc start(const int32_t*) { return broadcast(0); }
  static INLINE Lanes lanes(const Weight* w) { return load_fp16(w); }
  static INLINE One one(const Activation* x) { return *x; }
  static INLINE Acc dot(Acc acc, One x, Lanes w) {
    for (int i = 0; i < 4; ++i) acc.v[i] = vfmaq_n_f32(acc.v[i], w.v[i], x);
    return acc;
  }
  static INLINE F value(Acc acc) { return acc; }
  static INLINE void put(Activation* p, F a) { store(p, a); }
  static INLINE void pack(Weight* p, F a) { store_fp16(p, a); }
};
