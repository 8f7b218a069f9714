// Which instruction sets this processor has.
#include "kernels.h"
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace whisper_npu {

Shown::~Shown() = default;
Encoder::~Encoder() = default;
Encoded::~Encoded() = default;
Session::~Session() = default;
Decoder::~Decoder() = default;

namespace avx512 { extern const Kernels kernels; }
namespace avx2 { extern const Kernels kernels; }
namespace neon { extern const Kernels kernels; }
namespace portable { extern const Kernels kernels; }

const Kernels* const* available_kernels() {
  static const Kernels* table[4];  // filled once, under the guard of `n`
  static const int n = [] {
    int found = 0;
#if defined(WHISPER_NPU_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
      table[found++] = &avx512::kernels;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c"))
      table[found++] = &avx2::kernels;
#elif defined(__aarch64__)
    constexpr unsigned long kFp16 = 1ul << 10, kDot = 1ul << 20;  // HWCAP_ASIMDHP, HWCAP_ASIMDDP
    if ((getauxval(AT_HWCAP) & (kFp16 | kDot)) == (kFp16 | kDot)) table[found++] = &neon::kernels;
#endif
    table[found++] = &portable::kernels;
    return found;
  }();
  (void)n;
  return table;
}

}  // namespace whisper_npu
