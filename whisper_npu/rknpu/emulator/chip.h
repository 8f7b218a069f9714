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
static const double chip_call_seconds = 150e-6, chip_bandwidth = 10.9e9;
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

static const double chip_efficiency = 0.8;
static const int chip_max_k = 10240;
