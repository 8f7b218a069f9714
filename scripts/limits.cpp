// What this machine can do at most: `limits THREADS` prints GOP/s of the int8 and the 16-bit product
// of simd.h (two operations for a product and its sum), and the GB/s of reading memory.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#include "simd.h"

namespace whisper_npu::ISA {

double seconds(int threads, const std::function<void(int)>& work) {
  double least = 1e9;
  for (int repeat = 0; repeat < 5; ++repeat) {
    std::vector<std::thread> others;
    const auto begin = std::chrono::steady_clock::now();
    for (int id = 1; id < threads; ++id) others.emplace_back(work, id);
    work(0);
    for (std::thread& other : others) other.join();
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    least = std::min(least, spent.count());
  }
  return least;
}

volatile float kept;  // so that the arithmetic is not optimised away

#define UNROLL _Pragma("GCC unroll 32")

template <class T>
double products(int threads) {
  constexpr int kSums = 24, kRounds = 4'000'000;  // as many as a block of linear.h keeps
  const double spent = seconds(threads, [](int) {
    static const typename T::Weight weights[64] = {};
    static const int32_t sums[64] = {};
    static typename T::Activation inputs[64 + kSums];
    for (int i = 0; i < 64 + kSums; ++i) inputs[i] = (typename T::Activation)(kept + (float)i);
    const auto lanes = T::lanes(weights);
    const auto one = T::one(inputs);
    typename T::Acc acc[kSums];
    UNROLL for (int j = 0; j < kSums; ++j)
      acc[j] = T::dot(T::start(sums), T::one(inputs + j), lanes);  // each another, for all it knows
    for (int i = 0; i < kRounds; ++i) {
      UNROLL for (int j = 0; j < kSums; ++j) acc[j] = T::dot(acc[j], one, lanes);
    }
    F total = T::value(acc[0]);
    UNROLL for (int j = 1; j < kSums; ++j) total = total + T::value(acc[j]);
    kept = sum(total);
  });
  return 2.0 * kSums * kRounds * kLanes * T::group * threads / spent / 1e9;
}

double reading(int threads) {
  const size_t each = (size_t)256 << 20;
  std::vector<float> memory(each / sizeof(float) * threads, 1.0f);
  const double spent = seconds(threads, [&](int id) {
    const float* p = memory.data() + each / sizeof(float) * id;
    F totals[8];
    for (F& total : totals) total = broadcast(0);
    for (size_t i = 0; i < each / sizeof(float); i += 8 * kLanes)
      for (int j = 0; j < 8; ++j) totals[j] = totals[j] + load(p + i + kLanes * j);
    for (int j = 1; j < 8; ++j) totals[0] = totals[0] + totals[j];
    kept = sum(totals[0]);
  });
  return (double)each * threads / spent / 1e9;
}

}  // namespace whisper_npu::ISA

int main(int, char** arguments) {
  using namespace whisper_npu::ISA;
  const int threads = std::atoi(arguments[1]);
  std::printf("{\"int8\": %.1f, \"f16\": %.1f, \"read\": %.1f}\n", products<Int8>(threads),
              products<Half>(threads), reading(threads));
}
