// The glue between two NPU matmuls for Python: the functions of tiles.py under the same names.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>

#include "kernels.h"
#include "tiles.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace whisper_npu {

namespace avx512 { extern const TileKernels tile_kernels; }
namespace avx2 { extern const TileKernels tile_kernels; }
namespace neon { extern const TileKernels tile_kernels; }
namespace portable { extern const TileKernels tile_kernels; }

namespace {

using In3 = nb::ndarray<nb::ro, nb::ndim<3>, nb::device::cpu>;
using Out3 = nb::ndarray<nb::ndim<3>, nb::device::cpu>;
using Out5 = nb::ndarray<nb::ndim<5>, nb::c_contig, nb::device::cpu>;
using OutRows = nb::ndarray<float, nb::ndim<2>, nb::device::cpu>;
using In = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using MaybeIn = std::optional<In>;
using MaybeOut = std::optional<Out>;

constexpr nb::dlpack::dtype kFp16 = {(uint8_t)nb::dlpack::dtype_code::Float, 16, 1};

void need(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

const TileKernels& kernels_for(const std::string& isa) {
  const TileKernels* tables[] = {
#if defined(__x86_64__)
      &avx512::tile_kernels, &avx2::tile_kernels,
#elif defined(__aarch64__)
      &neon::tile_kernels,
#endif
      &portable::tile_kernels};
  for (const Kernels* const* k = available_kernels(); *k; ++k)
    for (const TileKernels* table : tables)
      if (!std::strcmp(table->name, (*k)->name) && (isa.empty() || isa == table->name))
        return *table;
  throw std::invalid_argument("this processor cannot run the " + isa + " kernels");
}

template <class Array>
size_t checked_stride(const Array& a) {
  need(a.shape(0) > 0 && a.shape(1) > 0 && a.shape(0) < (1 << 24) && a.shape(1) < (1 << 24),
       "an axis is empty or too long");
  // a single row has no next one, and numpy gives it any stride
  need(a.stride(2) == 1 && (a.shape(1) == 1 || a.stride(1) == (int64_t)a.shape(2)) &&
           a.stride(0) >= 0,
       "the rows of a strip lie side by side");
  return (size_t)a.stride(0);
}

const float* values_of(const MaybeIn& a, size_t n) {
  if (!a) return nullptr;
  need(a->shape(0) == n, "a scale or bias has another size");
  return a->data();
}

Product product_of(const In3& a, const MaybeIn& row_scale, const MaybeIn& channel_scale,
                   const MaybeIn& bias) {
  const bool whole = a.dtype() == nb::dtype<int32_t>();
  need(whole || a.dtype() == nb::dtype<float>(), "a product is float32 or int32");
  need(a.shape(2) == 4, "strips of a product have 4 columns");
  need(whole ? row_scale && channel_scale : !channel_scale,
       "int32 has both scales, float32 at most one of rows");
  const size_t channels = 4 * a.shape(0);
  return {a.data(), whole, (int)a.shape(0), (int)a.shape(1), checked_stride(a),
          values_of(row_scale, a.shape(1)), values_of(channel_scale, channels),
          values_of(bias, channels)};
}

Product stream_of(const In3& a) {
  need(a.dtype() == nb::dtype<float>(), "a stream is float32");
  return product_of(a, {}, {}, {});
}

Operand operand_of(const Out3& a, const MaybeOut& scale) {
  const Element element = a.dtype() == nb::dtype<int8_t>()  ? Element::kInt8
                          : a.dtype() == kFp16              ? Element::kFp16
                                                            : Element::kF32;
  const size_t width = a.shape(2);
  need(element == Element::kInt8   ? width == 8 || width == 16
       : element == Element::kFp16 ? width == 4 || width == 8
                                   : width == 4 && a.dtype() == nb::dtype<float>(),
       "no such strips");
  need((element == Element::kInt8) == scale.has_value(), "int8 has a scale for each row");
  need(!scale || scale->shape(0) == a.shape(1), "out_scale has another size");
  return {a.data(), element, (int)a.shape(0), (int)a.shape(1), (int)width, checked_stride(a),
          scale ? scale->data() : nullptr};
}

void same(const Product& from, const Operand& to) {
  need(4 * from.strips == to.width * to.strips && from.rows == to.rows, "out has another shape");
}

Heads heads_of(const Out5& a, const Product& product, int width_axis) {
  need(a.dtype() == kFp16, "keys and values are float16");
  const Heads heads = {(uint16_t*)a.data(), (int)a.shape(0), (int)a.shape(1), (int)a.shape(2), (int)a.shape(3),
                       (int)a.shape(4)};
  need(heads.n % 4 == 0 && heads.k % 4 == 0, "tiles are multiples of 4");
  const int outer = heads.outer * heads.n, inner = heads.inner * heads.k;
  const int width = width_axis ? outer : inner, n_keys = width_axis ? inner : outer;
  need(heads.heads * width == 4 * product.strips && product.rows <= n_keys,
       "out has another shape");
  return heads;
}

template <void (*TileKernels::*function)(const Product&, const Operand&)>
void finish(const In3& product, const MaybeIn& row_scale, const MaybeIn& channel_scale,
            const MaybeIn& bias, const Out3& out, const MaybeOut& out_scale,
            const std::string& isa) {
  const Product from = product_of(product, row_scale, channel_scale, bias);
  const Operand to = operand_of(out, out_scale);
  same(from, to);
  const TileKernels& kernels = kernels_for(isa);
  nb::gil_scoped_release release;
  (kernels.*function)(from, to);
}

void add(const In3& product, const MaybeIn& row_scale, const MaybeIn& channel_scale,
         const MaybeIn& bias, const Out3& stream, const std::string& isa) {
  const Product from = product_of(product, row_scale, channel_scale, bias);
  const Operand to = operand_of(stream, {});
  need(to.element == Element::kF32, "a stream is float32");
  same(from, to);
  const TileKernels& kernels = kernels_for(isa);
  nb::gil_scoped_release release;
  kernels.add(from, to);
}

void layer_norm(const In3& stream, const In& weight, const In& bias, const Out3& out,
                const MaybeOut& out_scale, const std::string& isa) {
  const Product from = stream_of(stream);
  const Operand to = operand_of(out, out_scale);
  same(from, to);
  need(weight.shape(0) == 4 * (size_t)from.strips && bias.shape(0) == weight.shape(0),
       "weight and bias: one per channel");
  const TileKernels& kernels = kernels_for(isa);
  nb::gil_scoped_release release;
  kernels.layer_norm(from, weight.data(), bias.data(), to);
}

void softmax(const Out3& scores, int n_keys, const Out3& out, const Out& total,
             const std::string& isa) {
  const Operand from = operand_of(scores, {}), to = operand_of(out, {});
  need(from.element == Element::kFp16 && to.element == Element::kFp16,
       "scores and weights are float16");
  need(from.width * from.strips == to.width * to.strips && from.rows == to.rows,
       "out has another shape");
  need(from.values != to.values || (from.width == to.width && from.stride == to.stride),
       "in place means in the same order");
  need(n_keys > 0 && n_keys <= from.width * from.strips, "n_keys is 1 to the number of columns");
  need(total.shape(0) == (size_t)from.rows, "total has another size");
  const TileKernels& kernels = kernels_for(isa);
  nb::gil_scoped_release release;
  kernels.softmax(from, n_keys, to, total.data());
}

void normalise(const Out3& weights, const Out& total, const std::string& isa) {
  const Operand to = operand_of(weights, {});
  need(to.element == Element::kFp16, "weights are float16");
  need(total.shape(0) == (size_t)to.rows, "total has another size");
  const TileKernels& kernels = kernels_for(isa);
  nb::gil_scoped_release release;
  kernels.normalise(to, total.data());
}

template <void (*TileKernels::*function)(const Product&, const Heads&), int width_axis>
void heads(const In3& product, const MaybeIn& row_scale, const MaybeIn& channel_scale,
           const MaybeIn& bias, const Out5& out, const std::string& isa) {
  const Product from = product_of(product, row_scale, channel_scale, bias);
  const Heads to = heads_of(out, from, width_axis);
  const TileKernels& kernels = kernels_for(isa);
  nb::gil_scoped_release release;
  (kernels.*function)(from, to);
}

void rows(const In3& product, const MaybeIn& row_scale, const MaybeIn& channel_scale,
          const MaybeIn& bias, const OutRows& out, const std::string& isa) {
  const Product from = product_of(product, row_scale, channel_scale, bias);
  need((int)out.shape(0) == from.rows && (int)out.shape(1) == 4 * from.strips && out.stride(1) == 1,
       "out has another shape");
  const TileKernels& kernels = kernels_for(isa);
  nb::gil_scoped_release release;
  kernels.rows(from, out.data(), (size_t)out.stride(0));
}

void tap(const In3& stream, int tap, int step, const Out3& out, const std::string& isa) {
  const Product from = stream_of(stream);
  const Operand to = operand_of(out, {});
  need(tap >= 0 && tap < 3 && step > 0 && to.rows == from.rows / step, "no such tap");
  need(4 * from.strips == to.width * to.strips, "out has another shape");
  const TileKernels& kernels = kernels_for(isa);
  nb::gil_scoped_release release;
  kernels.tap(from, tap, step, to);
}

}  // namespace

void bind_tiles(nb::module_& m) {
  nb::module_ t = m.def_submodule("tiles");
  const auto product = [&](const char* name, auto function, const char* out, auto... more) {
    t.def(name, function, "product"_a, "row_scale"_a.none(), "channel_scale"_a.none(),
          "bias"_a.none(), nb::arg(out), more..., "isa"_a = "");
  };
  product("convert", finish<&TileKernels::convert>, "out", "out_scale"_a.none().noconvert());
  product("gelu", finish<&TileKernels::gelu>, "out", "out_scale"_a.none().noconvert());
  product("add", add, "stream");
  product("keys", heads<&TileKernels::keys, 0>, "out");
  product("values", heads<&TileKernels::values, 1>, "out");
  product("rows", rows, "out");
  t.def("layer_norm", layer_norm, "stream"_a, "weight"_a, "bias"_a, "out"_a, "out_scale"_a.none().noconvert(),
        "isa"_a = "");
  t.def("softmax", softmax, "scores"_a, "n_keys"_a, "out"_a, "total"_a.noconvert(),
        "isa"_a = "");
  t.def("normalise", normalise, "weights"_a, "total"_a.noconvert(), "isa"_a = "");
  t.def("tap", tap, "stream"_a, "tap"_a, "step"_a, "out"_a, "isa"_a = "");
}

}  // namespace whisper_npu
