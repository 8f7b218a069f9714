// The kernels for Python: sizes and types are checked here, the GIL is released around the work.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>

#include "arrays.h"
#include "engine.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace whisper_npu {
namespace {

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Kernels* const* k = available_kernels(); *k; ++k) names.push_back((*k)->name);
  return names;
}

nb::tuple pack_weight(Matrix weight, int kind) {
  require(kind >= 0 && kind <= 2, "kind is 0, 1 or 2");
  const int n = checked_size(weight.shape(0)), k = checked_size(weight.shape(1));
  require(n % 64 == 0 && k % 16 == 0, "weights are padded to (multiple of 64, multiple of 16)");
  const size_t bytes = packed_bytes((Kind)kind, n, k);
  Owned<uint8_t> panels(bytes);
  const size_t scales = kind == (int)Kind::kInt8 ? (size_t)n : 0;
  Owned<float> scale(scales);
  Owned<int32_t> sums(scales);
  {
    nb::gil_scoped_release release;
    pack((Kind)kind, weight.data(), n, k, panels.data, scale.data, sums.data);
  }
  return nb::make_tuple(panels.array({bytes}), scale.array({scales}), sums.array({scales}));
}

nb::object linear(const std::string& isa, Matrix x, int kind, Bytes panels, Vector scale,
                  Integers sums, Vector bias, int n, bool gelu, std::optional<Matrix> residual,
                  int threads) {
  const Kernels& kernels = kernels_named(isa);
  const int rows = checked_size(x.shape(0)), k = checked_size(x.shape(1));
  require(kind >= 0 && kind <= 2, "kind is 0, 1 or 2");
  require(threads >= 1 && threads <= 256, "threads is 1 to 256");
  Linear layer = {(Kind)kind, checked_size(bias.shape(0)), (k + 15) / 16 * 16,
                  panels.data(), scale.data(), sums.data(), bias.data()};
  require(layer.n % 64 == 0 && n > 0 && n <= layer.n, "bias is padded to a multiple of 64");
  require(panels.size() == packed_bytes(layer.kind, layer.n, layer.k), "panels have another size");
  const size_t scales = layer.kind == Kind::kInt8 ? (size_t)layer.n : 0;
  require(scale.size() == scales && sums.size() == scales, "one scale and sum per int8 output");
  if (residual)
    require(residual->shape(0) == (size_t)rows && residual->shape(1) == (size_t)n,
            "residual has another shape");
  Owned<float> y((size_t)rows * (size_t)n);
  {
    nb::gil_scoped_release release;
    Pool pool(threads);
    kernels.linear(pool, x.data(), rows, k, layer, n, gelu,
                   residual ? residual->data() : nullptr, y.data);
  }
  return y.array({(size_t)rows, (size_t)n});
}

nb::object layer_norm(const std::string& isa, Matrix x, Vector weight, Vector bias) {
  const Kernels& kernels = kernels_named(isa);
  const int rows = checked_size(x.shape(0)), n = checked_size(x.shape(1));
  require(weight.size() == (size_t)n && bias.size() == (size_t)n, "weight and bias: one per column");
  Owned<float> y((size_t)rows * (size_t)n);
  {
    nb::gil_scoped_release release;
    kernels.layer_norm(x.data(), rows, n, weight.data(), bias.data(), y.data);
  }
  return y.array({(size_t)rows, (size_t)n});
}

nb::object gelu(const std::string& isa, Vector x) {
  const Kernels& kernels = kernels_named(isa);
  Owned<float> y(x.size());
  {
    nb::gil_scoped_release release;
    kernels.gelu(x.data(), x.size(), y.data);
  }
  return y.array({x.size()});
}

nb::object log_sum_exp(Matrix x, int first, const std::string& isa) {
  const Kernels& kernels = kernels_named(isa);
  const size_t rows = x.shape(0), n = x.shape(1);
  require(first >= 0 && (size_t)first <= n, "first is a column");
  Owned<float> y(rows);
  for (size_t i = 0; i < rows; ++i)
    y.data[i] = kernels.log_sum_exp(x.data() + i * n + first, checked_size(n - (size_t)first));
  return y.array({rows});
}

nb::tuple largest(Matrix x, int count, const std::string& isa) {
  const Kernels& kernels = kernels_named(isa);
  const size_t rows = x.shape(0), n = x.shape(1);
  require(count > 0 && (size_t)count <= n, "count is 1 to the number of columns");
  Owned<float> values(rows * (size_t)count);
  Owned<int64_t> places(rows * (size_t)count);
  for (size_t i = 0; i < rows; ++i)
    kernels.largest(x.data() + i * n, checked_size(n), count, values.data + i * (size_t)count,
                    places.data + i * (size_t)count);
  return nb::make_tuple(values.array({rows, (size_t)count}), places.array({rows, (size_t)count}));
}

}  // namespace

}  // namespace whisper_npu

namespace whisper_npu {
void bind_tiles(nb::module_& m);  // tiles_binding.cpp
void name_files_cut_short();     // lost.cpp
}
using namespace whisper_npu;

NB_MODULE(_native, m) {
  m.def("instruction_sets", instruction_sets);
  m.def("pack", pack_weight, "weight"_a, "kind"_a);
  m.def("linear", linear, "isa"_a, "x"_a, "kind"_a, "panels"_a, "scale"_a, "sums"_a, "bias"_a, "n"_a,
        "gelu"_a, "residual"_a.none(), "threads"_a);
  m.def("layer_norm", layer_norm, "isa"_a, "x"_a, "weight"_a, "bias"_a);
  m.def("gelu", gelu, "isa"_a, "x"_a);
  m.def("largest", largest, "x"_a, "count"_a, "isa"_a = "");
  m.def("log_sum_exp", log_sum_exp, "x"_a, "first"_a = 0, "isa"_a = "");
  name_files_cut_short();
  bind_engine(m);
  bind_tiles(m);
}
