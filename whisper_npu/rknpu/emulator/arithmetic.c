/* Both operands are unpacked to float32 panels and multiplied in blocks of 8 rows and 16 columns.
 *
 * int8 goes the same way and stays exact: sums of 1024 products are below 2^24, and between such
 * runs of K they are added up as integers. */
#include "arithmetic.h"

#include <stdlib.h>
#include <string.h>

#include "chip.h"

enum { ROWS = 8, COLUMNS = 16, RUN = 1024, BLOCK = 6 * ROWS };

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float row16 __attribute__((vector_size(64), aligned(4)));

typedef union {
    float f;
    uint32_t u;
} word;

INLINE float from_half(uint16_t h)
{
    word w = {.u = (uint32_t)(h & 0x7fff) << 13};
    w.f *= 0x1p112f; /* moves the exponent's bias, subnormals included */
    w.u |= (h & 0x7c00) == 0x7c00 ? 0x7f800000u : 0u;
    w.u |= (uint32_t)(h & 0x8000) << 16;
    return w.f;
}

INLINE uint16_t to_half(float f) /* to nearest, ties to even */
{
    word w = {.f = f};
    uint32_t sign = w.u >> 16 & 0x8000, magnitude = w.u & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x477ff000)
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000) { /* subnormal: let the adder round */
        word m = {.u = magnitude};
        m.f += 0.5f;
        return (uint16_t)(sign | (m.u - 0x3f000000));
    }
    magnitude += 0xc8000fff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | magnitude >> 13);
}

INLINE float element(const void *data, size_t i, int is_i8)
{
    return is_i8 ? (float)((const int8_t *)data)[i] : from_half(((const uint16_t *)data)[i]);
}

static const chip_order *order_of(const rknn_matmul_info *info)
{
    return info->type == I8_I8_I32 ? &chip_i8 : &chip_f16;
}

/* where element (k, n) of a tiled B lies */
INLINE size_t b_index(const rknn_matmul_info *info, const chip_order *o, int k, int n)
{
    int start = k / chip_segment * chip_segment;
    int width = info->k - start < chip_segment ? info->k - start : chip_segment;
    size_t tile = (size_t)(n / o->b_n) * (width / o->b_k) + (k - start) / o->b_k;
    return (size_t)start * info->n + (tile * o->b_n + n % o->b_n) * o->b_k + (k - start) % o->b_k;
}

void tile_b(const rknn_matmul_info *info, const void *in, void *out)
{
    const chip_order *o = order_of(info);
    for (int k = 0; k < info->k; k++)
        for (int n = 0; n < info->n; n++) {
            size_t from = (size_t)k * info->n + n, to = b_index(info, o, k, n);
            if (info->type == I8_I8_I32)
                ((int8_t *)out)[to] = ((const int8_t *)in)[from];
            else
                ((uint16_t *)out)[to] = ((const uint16_t *)in)[from];
        }
}

/* B -> panels [N / 16][K][16], zero beyond N; `b` is tiled */
FOR_EACH_CPU static void unpack_b(const rknn_matmul_info *info, const void *b, float *panels)
{
    const chip_order *o = order_of(info);
    int is_i8 = info->type == I8_I8_I32;
    for (int n = 0; n < info->n; n++)
        for (int k = 0; k < info->k; k += o->b_k) {
            size_t from = b_index(info, o, k, n);
            float *to = panels + ((size_t)(n / COLUMNS) * info->k + k) * COLUMNS + n % COLUMNS;
            for (int i = 0; i < o->b_k; i++)
                to[(size_t)i * COLUMNS] = element(b, from + i, is_i8);
        }
}

/* `ROWS` rows of A from row m on -> [K][8], zero beyond M */
FOR_EACH_CPU static void unpack_a(const rknn_matmul_info *info, const void *a, int m, float *panel)
{
    int is_i8 = info->type == I8_I8_I32, native = info->ac_layout == LAYOUT_NATIVE;
    int strip = native ? order_of(info)->a_strip : info->k;
    int n_rows = info->m - m < ROWS ? info->m - m : ROWS;
    if (n_rows < ROWS)
        memset(panel, 0, sizeof(float) * ROWS * info->k);
    for (int k = 0; k < info->k; k += strip)
        for (int i = 0; i < n_rows; i++) {
            size_t from = ((size_t)(k / strip) * info->m + m + i) * strip;
            for (int j = 0; j < strip; j++)
                panel[(size_t)(k + j) * ROWS + i] = element(a, from + j, is_i8);
        }
}

/* sums of `n` products: out[8][16] */
FOR_EACH_CPU static void multiply_block(const float *a, const float *b, int n, float *out)
{
    row16 sum[ROWS] = {0};
    for (int k = 0; k < n; k++) {
        row16 right;
        memcpy(&right, b + (size_t)k * COLUMNS, sizeof right);
        for (int i = 0; i < ROWS; i++)
            sum[i] += a[(size_t)k * ROWS + i] * right;
    }
    memcpy(out, sum, sizeof sum);
}

static void store(const rknn_matmul_info *info, void *c, int m, int n, const float *f,
                  const int32_t *whole)
{
    int strip = info->ac_layout != LAYOUT_NATIVE ? info->n : info->type == F16_F16_F16 ? 8 : 4;
    for (int i = 0; i < ROWS && m + i < info->m; i++)
        for (int j = 0; j < COLUMNS && n + j < info->n; j++) {
            int column = n + j, at = i * COLUMNS + j;
            size_t to = ((size_t)(column / strip) * info->m + m + i) * strip + column % strip;
            if (info->type == I8_I8_I32)
                ((int32_t *)c)[to] = whole[at];
            else if (info->type == F16_F16_F16)
                ((uint16_t *)c)[to] = to_half(f[at]);
            else
                ((float *)c)[to] = f[at];
        }
}

static void one_block(const rknn_matmul_info *info, const float *a, const float *b, void *c, int m,
                      int n)
{
    float part[ROWS * COLUMNS], f[ROWS * COLUMNS] = {0};
    int32_t whole[ROWS * COLUMNS] = {0};
    for (int k = 0; k < info->k; k += RUN) {
        int run = info->k - k < RUN ? info->k - k : RUN;
        multiply_block(a + (size_t)k * ROWS, b + (size_t)k * COLUMNS, run, part);
        for (int i = 0; i < ROWS * COLUMNS; i++) {
            f[i] += part[i];
            if (info->type == I8_I8_I32)
                whole[i] += (int32_t)part[i];
        }
    }
    store(info, c, m, n, f, whole);
}

int multiply(const rknn_matmul_info *info, const void *a, const void *b, void *c)
{
    size_t panel = (size_t)info->k * COLUMNS;
    int n_panels = (info->n + COLUMNS - 1) / COLUMNS;
    float *right = calloc(panel * n_panels, sizeof(float));
    float *left = malloc(sizeof(float) * BLOCK * info->k);
    if (!right || !left) {
        free(right);
        free(left);
        return RKNN_ERR_MALLOC_FAIL;
    }
    unpack_b(info, b, right);
    for (int m = 0; m < info->m; m += BLOCK) {
        for (int i = 0; i < BLOCK && m + i < info->m; i += ROWS)
            unpack_a(info, a, m + i, left + (size_t)i * info->k);
        for (int p = 0; p < n_panels; p++)
            for (int i = 0; i < BLOCK && m + i < info->m; i += ROWS)
                one_block(info, left + (size_t)i * info->k, right + p * panel, c, m + i,
                          p * COLUMNS);
    }
    free(right);
    free(left);
    return RKNN_SUCC;
}
