// AVX2, FMA and F16C: Haswell and Zen 1 onwards. What each function means: simd.h.
constexpr const char* kName = "avx2";

struct F {
  __m256 v[2];
};
INLINE F broadcast(float x) { return {{_mm256_set1_ps(x), _mm256_set1_ps(x)}}; }
INLINE F load(const float* p) { return {{_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}}; }
INLINE void store(float* p, F a) {
  _mm256_storeu_ps(p, a.v[0]);
  _mm256_storeu_ps(p + 8, a.v[1]);
}
#define EACH(expression) \
  F r;                   \
  for (int i = 0; i < 2; ++i) r.v[i] = expression; \
  return r
INLINE F operator+(F a, F b) { EACH(_mm256_add_ps(a.v[i], b.v[i])); }
INLINE F operator-(F a, F b) { EACH(_mm256_sub_ps(a.v[i], b.v[i])); }
INLINE F operator*(F a, F b) { EACH(_mm256_mul_ps(a.v[i], b.v[i])); }
INLINE F operator/(F a, F b) { EACH(_mm256_div_ps(a.v[i], b.v[i])); }
INLINE F fma(F a, F b, F c) { EACH(_mm256_fmadd_ps(a.v[i], b.v[i], c.v[i])); }
INLINE F max(F floor, F a) { EACH(_mm256_max_ps(floor.v[i], a.v[i])); }
INLINE F min(F ceiling, F a) { EACH(_mm256_min_ps(ceiling.v[i], a.v[i])); }
INLINE F abs(F a) { EACH(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v[i])); }
INLINE F round(F a) {
  EACH(_mm256_round_ps(a.v[i], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
INLINE F times_power_of_2(F a, F n) {
  EACH(_mm256_castsi256_ps(_mm256_add_epi32(
      _mm256_castps_si256(a.v[i]), _mm256_slli_epi32(_mm256_cvtps_epi32(n.v[i]), 23))));
}
INLINE F max_magnitude(F m, F a) {
  const F b = abs(a);
  EACH(_mm256_castsi256_ps(
      _mm256_max_epi32(_mm256_castps_si256(m.v[i]), _mm256_castps_si256(b.v[i]))));
}
#undef EACH
INLINE float sum(F a) {
  const __m256 s = _mm256_add_ps(a.v[0], a.v[1]);
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}
INLINE float maximum(F a) {
  const __m256 s = _mm256_max_ps(a.v[0], a.v[1]);
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_shuffle_ps(q, q, 1)));
}

INLINE F load_int8(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128((const __m128i*)p);
  return {{_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
           _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))}};
}
INLINE void store_int8(int8_t* p, F a) {
  const __m256i words = _mm256_permute4x64_epi64(
      _mm256_packs_epi32(_mm256_cvtps_epi32(a.v[0]), _mm256_cvtps_epi32(a.v[1])), 0xd8);
  _mm_storeu_si128((__m128i*)p, _mm_packs_epi16(_mm256_castsi256_si128(words),
                                                _mm256_extracti128_si256(words, 1)));
}
INLINE F load_fp16(const uint16_t* p) {
  return {{_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)),
           _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8)))}};
}
INLINE void store_fp16(uint16_t* p, F a) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(a.v[0], _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128((__m128i*)(p + 8), _mm256_cvtps_ph(a.v[1], _MM_FROUND_TO_NEAREST_INT));
}

struct Int8 {
  using Weight = int8_t;
  using Activation = int8_t;
  static constexpr int group = 4, rows = 4;
  static constexpr int columns(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }
  struct Acc {
    __m256i v[2];
  };
  struct Lanes {
    __m256i v[2];
  };
  struct One {
    __m256i value, magnitude;
  };
  static INLINE Acc start(const int32_t*) {
    return {{_mm256_setzero_si256(), _mm256_setzero_si256()}};
  }
  static INLINE Lanes lanes(const Weight* w) {
    return {{_mm256_loadu_si256((const __m256i*)w), _mm256_loadu_si256((const __m256i*)(w + 32))}};
  }
  static INLINE One one(const Activation* x) {
    int32_t bits;
    memcpy(&bits, x, 4);
    const __m256i value = _mm256_set1_epi32(bits);
    return {value, _mm256_abs_epi8(value)};
  }
  // |x| times sign(x) * w: both at most 127, so that the 16-bit sum of two products never saturates
  static INLINE Acc dot(Acc acc, One x, Lanes w) {
    for (int i = 0; i < 2; ++i) {
      const __m256i pairs = _mm256_maddubs_epi16(x.magnitude, _mm256_sign_epi8(w.v[i], x.value));
      acc.v[i] = _mm256_add_epi32(acc.v[i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    return acc;
  }
  static INLINE F value(Acc acc) {
    return {{_mm256_cvtepi32_ps(acc.v[0]), _mm256_cvtepi32_ps(acc.v[1])}};
  }
  static INLINE void put(Activation* p, F a) { store_int8(p, a); }
  static INLINE void pack(Weight* p, F a) { store_int8(p, a); }
};

struct F16 {  // bfloat16 weights, float32 arithmetic
  using Weight = uint16_t;
  using Activation = float;
  static constexpr int group = 2, rows = 4;
  static constexpr int columns(int rows) { return rows == 1 ? 2 : 1; }
  using Acc = F;
  struct Lanes {
    F even, odd;
  };
  using One = const float*;
  static INLINE Acc start(const int32_t*) { return broadcast(0); }
  static INLINE Lanes lanes(const Weight* w) {
    Lanes r;
    for (int i = 0; i < 2; ++i) {
      const __m256i pairs = _mm256_loadu_si256((const __m256i*)(w + 16 * i));
      r.even.v[i] = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
      r.odd.v[i] = _mm256_castsi256_ps(
          _mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000u)));
    }
    return r;
  }
  static INLINE One one(const Activation* x) { return x; }
  static INLINE Acc dot(Acc acc, One x, Lanes w) {
    return fma(broadcast(x[1]), w.odd, fma(broadcast(x[0]), w.even, acc));
  }
  static INLINE F value(Acc acc) { return acc; }
  static INLINE void put(Activation* p, F a) { store(p, a); }
  static INLINE void pack(Weight* p, F a) {
    __m256i upper[2];
    for (int i = 0; i < 2; ++i) {
      const __m256i bits = _mm256_castps_si256(a.v[i]);
      const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
      const __m256i up = _mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff));
      const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.v[i], a.v[i], _CMP_UNORD_Q));
      upper[i] = _mm256_srli_epi32(_mm256_blendv_epi8(up, bits, nan), 16);
    }
    _mm256_storeu_si256((__m256i*)p,
                        _mm256_permute4x64_epi64(_mm256_packus_epi32(upper[0], upper[1]), 0xd8));
  }
};
