// AVX-512 with VNNI and BF16: Zen 4, Sapphire Rapids and later. What each function means: simd.h.
constexpr const char* kName = "avx512";

struct F {
  __m512 v;
};
INLINE F broadcast(float x) { return {_mm512_set1_ps(x)}; }
INLINE F load(const float* p) { return {_mm512_loadu_ps(p)}; }
INLINE void store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
INLINE F operator+(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
INLINE F operator-(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
INLINE F operator*(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
INLINE F operator/(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
INLINE F fma(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
INLINE F max(F floor, F a) { return {_mm512_max_ps(floor.v, a.v)}; }
INLINE F min(F ceiling, F a) { return {_mm512_min_ps(ceiling.v, a.v)}; }
INLINE F abs(F a) { return {_mm512_abs_ps(a.v)}; }
INLINE F round(F a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
INLINE F times_power_of_2(F a, F n) { return {_mm512_scalef_ps(a.v, n.v)}; }
INLINE F max_magnitude(F m, F a) {
  const __m512i bits = _mm512_and_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(0x7fffffff));
  return {_mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(m.v), bits))};
}
INLINE float sum(F a) { return _mm512_reduce_add_ps(a.v); }
INLINE float maximum(F a) { return _mm512_reduce_max_ps(a.v); }

INLINE F load_int8(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)))};
}
INLINE void store_int8(int8_t* p, F a) {
  _mm_storeu_si128((__m128i*)p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a.v)));
}
INLINE F load_fp16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))};
}
INLINE void store_fp16(uint16_t* p, F a) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}

struct Int8 {
  using Weight = int8_t;
  using Activation = uint8_t;  // the value + 128: the instruction multiplies unsigned by signed
  static constexpr int group = 4, rows = 6;
  static constexpr int columns(int) { return 4; }
  using Acc = __m512i;
  using Lanes = __m512i;
  using One = __m512i;
  static INLINE Acc start(const int32_t* sums) {  // takes the 128 back: 128 * (sum of weights)
    return _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(_mm512_loadu_si512(sums), 7));
  }
  static INLINE Lanes lanes(const Weight* w) { return _mm512_loadu_si512(w); }
  static INLINE One one(const Activation* x) {
    int32_t bits;
    memcpy(&bits, x, 4);
    return _mm512_set1_epi32(bits);
  }
  static INLINE Acc dot(Acc acc, One x, Lanes w) {
    // not the intrinsic: around it GCC 12 copies the accumulators through the stack
    asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w));
    return acc;
  }
  static INLINE F value(Acc acc) { return {_mm512_cvtepi32_ps(acc)}; }
  static INLINE void put(Activation* p, F a) {
    const __m512i rounded = _mm512_add_epi32(_mm512_cvtps_epi32(a.v), _mm512_set1_epi32(128));
    _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(rounded));
  }
  static INLINE void pack(Weight* p, F a) { store_int8(p, a); }
};

struct F16 {  // bfloat16
  using Weight = uint16_t;
  using Activation = uint16_t;
  static constexpr int group = 2, rows = 6;
  static constexpr int columns(int) { return 4; }
  using Acc = __m512;
  using Lanes = __m512i;
  using One = __m512i;
  static INLINE Acc start(const int32_t*) { return _mm512_setzero_ps(); }
  static INLINE Lanes lanes(const Weight* w) { return _mm512_loadu_si512(w); }
  static INLINE One one(const Activation* x) {
    int32_t bits;
    memcpy(&bits, x, 4);
    return _mm512_set1_epi32(bits);
  }
  static INLINE Acc dot(Acc acc, One x, Lanes w) {
    return _mm512_dpbf16_ps(acc, (__m512bh)x, (__m512bh)w);
  }
  static INLINE F value(Acc acc) { return {acc}; }
  static INLINE void put(Activation* p, F a) {
    _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(a.v));
  }
  static INLINE void pack(Weight* p, F a) { put(p, a); }
};
