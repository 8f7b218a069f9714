#include "shown.h"

#include <atomic>
#include <cstring>
#include <optional>

namespace whisper_npu {
namespace {

const char* const kNames[] = {"conv1", "conv2", "positions", "mixed",  "out",   "mlp_norm",  "fc1",
                              "fc2",   "norm",  "query",     "key",    "value", "end",       "cross_key",
                              "cross_value"};
constexpr int kParts = (int)Part::kCount;
static_assert(sizeof kNames / sizeof *kNames == (size_t)kParts);

class Told final : public Shown {
 public:
  Told(nb::object observe, const Model& model, size_t positions)
      : observe_(std::move(observe)), model_(model), positions_(positions) {}

  void begin() override {  // memory that nobody writes to costs nothing
    const nb::gil_scoped_acquire acquire;
    for (int i = 0; i < kParts; ++i) {
      layer_[i] = -1;
      arrays_[i].emplace(height((Part)i) * width((Part)i));
    }
  }

  void rows(Part part, int layer, int first, int n, const float* x, size_t stride) override {
    const size_t each = width(part);
    for (int i = 0; i < n; ++i)
      std::memcpy(arrays_[(int)part]->data + (size_t)(first + i) * each, x + (size_t)i * stride,
                  each * sizeof(float));
    layer_[(int)part].store(layer, std::memory_order_relaxed);
  }

  void end() override {
    const nb::gil_scoped_acquire acquire;
    for (int i = 0; i < kParts; ++i) {
      if (layer_[i] >= 0)
        observe_(kNames[i], (int)layer_[i], arrays_[i]->array({height((Part)i), width((Part)i)}));
      arrays_[i].reset();
    }
  }

 private:
  size_t height(Part part) const { return positions_ * (part == Part::kConv1 ? 2 : 1); }
  size_t width(Part part) const {
    switch (part) {
      case Part::kMixed: case Part::kQuery: case Part::kKey: case Part::kValue:
        return (size_t)model_.audio_heads * (size_t)model_.head;
      case Part::kCrossKey: case Part::kCrossValue:
        return (size_t)model_.text_heads * (size_t)model_.head;
      case Part::kFc1: return (size_t)model_.hidden;
      default: return (size_t)model_.stride;
    }
  }

  const nb::object observe_;
  const Model& model_;
  const size_t positions_;
  std::optional<Owned<float>> arrays_[kParts];
  std::atomic<int> layer_[kParts];
};

}  // namespace

std::unique_ptr<Shown> shown_to(nb::object observe, const Model& model, size_t positions) {
  if (observe.is_none()) return nullptr;
  return std::make_unique<Told>(std::move(observe), model, positions);
}

}  // namespace whisper_npu
