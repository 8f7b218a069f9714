// What passes between layers, for a function of Python's.
#pragma once
#include <memory>

#include "arrays.h"

namespace whisper_npu {

// observe(part, layer, rows): None is shown nothing. Rows are float32 with padded widths, as many
// as the window has positions.
std::unique_ptr<Shown> shown_to(nb::object observe, const Model& model, size_t positions);

}  // namespace whisper_npu
