// Plain C++: any processor. Loops of 16 that a compiler may vectorise. Meaning: simd.h.
constexpr const char* kName = "portable";

struct F {
  float v[16];
};
#define EACH(expression) \
  F r;                   \
  for (int i = 0; i < 16; ++i) r.v[i] = expression; \
  return r
INLINE F broadcast(float x) { EACH(x); }
INLINE F load(const float* p) { EACH(p[i]); }
INLINE void store(float* p, F a) { memcpy(p, a.v, sizeof a.v); }
INLINE F operator+(F a, F b) { EACH(a.v[i] + b.v[i]); }
INLINE F operator-(F a, F b) { EACH(a.v[i] - b.v[i]); }
INLINE F operator*(F a, F b) { EACH(a.v[i] * b.v[i]); }
INLINE F operator/(F a, F b) { EACH(a.v[i] / b.v[i]); }
INLINE F fma(F a, F b, F c) { EACH(a.v[i] * b.v[i] + c.v[i]); }
INLINE F max(F floor, F a) { EACH(floor.v[i] > a.v[i] ? floor.v[i] : a.v[i]); }
INLINE F min(F ceiling, F a) { EACH(ceiling.v[i] < a.v[i] ? ceiling.v[i] : a.v[i]); }
INLINE F abs(F a) { EACH(fabsf(a.v[i])); }
INLINE F round(F a) { EACH(nearbyintf(a.v[i])); }
INLINE F times_power_of_2(F a, F n) { EACH(ldexpf(a.v[i], n.v[i] == n.v[i] ? (int)n.v[i] : 0)); }
INLINE F max_magnitude(F m, F a) { EACH(m.v[i] != m.v[i] || fabsf(a.v[i]) <= m.v[i] ? m.v[i] : fabsf(a.v[i])); }
#undef EACH
INLINE float sum(F a) {
  float s = 0;
  for (float x : a.v) s += x;
  return s;
}
INLINE float maximum(F a) {
  float m = a.v[0];
  for (float x : a.v) m = x > m ? x : m;
  return m;
}

INLINE int8_t to_int8(float x) {  // NaN is 0 here; the row's scale carries it
  return (int8_t)(x > -127 ? x < 127 ? lrintf(x) : 127 : x <= -127 ? -127 : 0);
}
INLINE F load_int8(const int8_t* p) {
  F r;
  for (int i = 0; i < 16; ++i) r.v[i] = p[i];
  return r;
}
INLINE void store_int8(int8_t* p, F a) {
  for (int i = 0; i < 16; ++i) p[i] = to_int8(a.v[i]);
}
INLINE F load_fp16(const uint16_t* p) {
  F r;
  for (int i = 0; i < 16; ++i) r.v[i] = fp16_to_float(p[i]);
  return r;
}
INLINE void store_fp16(uint16_t* p, F a) {
  for (int i = 0; i < 16; ++i) p[i] = float_to_fp16(a.v[i]);
}

struct Int8 {
  using Weight = int8_t;
  using Activation = int8_t;
  static constexpr int group = 4, rows = 4;
  static constexpr int columns(int) { return 1; }
  struct Acc {
    int32_t v[16];
  };
  using Lanes = const Weight*;
  using One = const Activation*;
  static INLINE Acc start(const int32_t*) { return {}; }
  static INLINE Lanes lanes(const Weight* w) { return w; }
  static INLINE One one(const Activation* x) { return x; }
  static INLINE Acc dot(Acc acc, One x, Lanes w) {
    for (int i = 0; i < 16; ++i)
      for (int k = 0; k < 4; ++k) acc.v[i] += x[k] * w[4 * i + k];
    return acc;
  }
  static INLINE F value(Acc acc) {
    F r;
    for (int i = 0; i < 16; ++i) r.v[i] = (float)acc.v[i];
    return r;
  }
  static INLINE void put(Activation* p, F a) { store_int8(p, a); }
  static INLINE void pack(Weight* p, F a) { store_int8(p, a); }
};

struct F16 {  // weights as `pack` stores them on this processor, float32 arithmetic
  using Weight = uint16_t;
  using Activation = float;
#if defined(__aarch64__)
  static constexpr int group = 1, rows = 4;
  static INLINE float weight(uint16_t w) { return fp16_to_float(w); }
  static INLINE uint16_t stored(float x) { return float_to_fp16(x); }
#else
  static constexpr int group = 2, rows = 4;
  static INLINE float weight(uint16_t w) { return bf16_to_float(w); }
  static INLINE uint16_t stored(float x) { return float_to_bf16(x); }
#endif
  static constexpr int columns(int) { return 1; }
  using Acc = F;
  using Lanes = const Weight*;
  using One = const Activation*;
  static INLINE Acc start(const int32_t*) { return broadcast(0); }
  static INLINE Lanes lanes(const Weight* w) { return w; }
  static INLINE One one(const Activation* x) { return x; }
  static INLINE Acc dot(Acc acc, One x, Lanes w) {
    for (int i = 0; i < 16; ++i)
      for (int k = 0; k < group; ++k) acc.v[i] += x[k] * weight(w[group * i + k]);
    return acc;
  }
  static INLINE F value(Acc acc) { return acc; }
  static INLINE void put(Activation* p, F a) { store(p, a); }
  static INLINE void pack(Weight* p, F a) {
    for (int i = 0; i < 16; ++i) p[i] = stored(a.v[i]);
  }
};
