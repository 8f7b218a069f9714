"""Speech to text with OpenAI's Whisper, on Rockchip NPUs and on any CPU.

Axes have one letter in the whole house: S samples, F frames, C audio positions, D width, H heads,
B beams, T tokens, V vocabulary, M/K/N matmul sizes.
"""
