"""The encoder as one graph: compiled by the vendor's toolchain, run by the vendor's RKNNLite."""
