// Working memory, freed with its scope, without std templates (simd.h says why). It is taken before
// threads begin: one that ran out of memory inside a task would end the program.
#pragma once
#include <stdlib.h>

#include <new>

#include "linear.h"

namespace whisper_npu::ISA {

inline int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

template <class T>
struct Scratch {
  T* data = nullptr;
  size_t size = 0;

  Scratch() = default;
  explicit Scratch(size_t n) { reserve(n); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { free(data); }

  void reserve(size_t n) {  // at least n; what was in it may be lost
    if (n <= size) return;
    free(data);
    data = static_cast<T*>(aligned_alloc(64, (n * sizeof(T) + 63) / 64 * 64));
    size = data ? n : 0;
    if (!data) throw std::bad_alloc();
  }
  void zeros(size_t n) {
    reserve(n);
    memset(static_cast<void*>(data), 0, n * sizeof(T));
  }
  T& operator[](size_t i) { return data[i]; }
};

// Some objects of one kind, deleted with their scope, also when a constructor further on throws.
template <class T>
struct Row {
  T* data;

  explicit Row(size_t n) : data(new T[n]()) {}
  Row(const Row&) = delete;
  Row& operator=(const Row&) = delete;
  ~Row() { delete[] data; }
  T& operator[](size_t i) const { return data[i]; }
};

// The inputs of a matrix product, in the order of its format.
template <class T>
struct Input {
  Scratch<typename T::Activation> values;
  Scratch<float> scale;
  size_t stride = 0;

  Input() = default;
  Input(int n, int k) { reserve(n, k); }

  void reserve(int n, int k) {
    stride = (size_t)round_up(k, kLanes);
    values.reserve(stride * (size_t)n);
    scale.reserve((size_t)n);
  }
  Rows<T> rows(int n) { return {values.data, scale.data, stride, n}; }
};

}  // namespace whisper_npu::ISA
