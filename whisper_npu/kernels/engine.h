// The engine for Python: a packed model, its threads, and what is being decoded.
#pragma once
#include <nanobind/nanobind.h>

namespace whisper_npu {

void bind_engine(nanobind::module_& m);

}  // namespace whisper_npu
