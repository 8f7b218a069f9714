"""Rockchip's NPU: chips, tile orders, the driver's library, its emulator, and diagnosis."""
