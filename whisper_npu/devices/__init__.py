"""What runs a model: the CPU, the NPU layer by layer, the NPU by a compiled graph."""
