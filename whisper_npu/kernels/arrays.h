// numpy arrays as the binding takes and gives them. Anything amiss is a Python exception.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace whisper_npu {

namespace nb = nanobind;

template <class T, int Axes>
using Array = nb::ndarray<const T, nb::ndim<Axes>, nb::c_contig, nb::device::cpu>;
using Matrix = Array<float, 2>;
using Vector = Array<float, 1>;
using Bytes = Array<uint8_t, 1>;
using Integers = Array<int32_t, 1>;

inline void require(bool condition, const std::string& what) {
  if (!condition) throw std::invalid_argument(what);
}

inline int checked_size(size_t n) {
  require(n > 0 && n < (1u << 24), "an axis is empty or too long");
  return (int)n;
}

inline int checked_threads(int n) {
  require(n >= 1 && n <= 256, "threads is 1 to 256");
  return n;
}

inline const Kernels& kernels_named(const std::string& name) {  // the best, without a name
  for (const Kernels* const* k = available_kernels(); *k; ++k)
    if (name.empty() || name == (*k)->name) return **k;
  throw std::invalid_argument("this processor cannot run the " + name + " kernels");
}

template <class T>
struct Owned {  // an array that Python will own
  T* data;
  nb::capsule owner;
  explicit Owned(size_t n)
      : data(static_cast<T*>(std::aligned_alloc(64, (n * sizeof(T) + 64) / 64 * 64))),
        owner(data ? data : throw std::bad_alloc(), [](void* p) noexcept { std::free(p); }) {}
  nb::object array(std::initializer_list<size_t> shape) {
    return nb::cast(nb::ndarray<nb::numpy, T>(data, shape, owner));
  }
};

}  // namespace whisper_npu
