/* The chip that this library plays, chosen when it is compiled: -DCHIP=3588 or -DCHIP=3566.
 * The same table as rknpu/soc.py; a test compares the two. */
#pragma once

typedef struct {
    int a_strip, b_n, b_k, align_k, align_n;
    double operations; /* per second and core */
} chip_order;

#if CHIP == 3588
#define CHIP_NAME "rk3588"
static const int chip_cores = 3, chip_segment = 8192;
static const double chip_call_seconds = 33e-6, chip_bandwidth = 11.1e9;
static const chip_order chip_f16 = {8, 16, 32, 32, 16, 1.024e12};
static const chip_order chip_i8 = {16, 32, 32, 32, 32, 2.048e12};
#elif CHIP == 3566
#define CHIP_NAME "rk3566"
static const int chip_cores = 1, chip_segment = 1 << 30;
static const double chip_call_seconds = 300e-6, chip_bandwidth = 3.5e9;
static const chip_order chip_f16 = {4, 8, 16, 16, 8, 0.23e12};
static const chip_order chip_i8 = {8, 16, 32, 32, 16, 0.9e12};
#else
#error "CHIP must be 3588 or 3566"
#endif

/* shares of the peak that a large matmul reaches, and the part of it that is left for a long K */
static const double chip_efficiency_f16 = 0.86, chip_efficiency_i8 = 0.79, chip_long_k_part = 0.65;
static const int chip_long_k = 1536;
static const int chip_max_k = 10240;
