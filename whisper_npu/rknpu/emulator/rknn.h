/* The C interface of the vendor's matmul runtime (librknnrt 2.1 and later), as far as this program
 * uses it: sizes and offsets are facts about the binary interface, the names inside are ours.
 * The emulator implements it; the tests compare the ctypes declarations with it. */
#pragma once
#include <stdint.h>

typedef uint64_t rknn_context;

enum {
    RKNN_SUCC = 0,
    RKNN_ERR_FAIL = -1,
    RKNN_ERR_TIMEOUT = -2,
    RKNN_ERR_DEVICE_UNAVAILABLE = -3,
    RKNN_ERR_MALLOC_FAIL = -4,
    RKNN_ERR_PARAM_INVALID = -5,
    RKNN_ERR_CTX_INVALID = -7
};
enum { F16_F16_F32 = 1, I8_I8_I32 = 2, F16_F16_F16 = 4 };        /* matmul types */
enum { LAYOUT_NORMAL = 0, LAYOUT_NATIVE = 1 };
enum { TENSOR_F32 = 0, TENSOR_F16 = 1, TENSOR_I8 = 2, TENSOR_I32 = 6 };
enum { SYNC_TO_DEVICE = 1, SYNC_FROM_DEVICE = 2 };
enum { QUERY_SDK_VERSION = 5 };

typedef struct {
    int32_t m, k, n;
    int32_t type;
    int16_t b_layout, b_quant_type;
    int16_t ac_layout, ac_quant_type;
    int32_t iommu_domain_id;
    int16_t group_size;
    int8_t reserved[34];
} rknn_matmul_info;

typedef struct {
    char name[256];
    uint32_t n_dims;
    uint32_t dims[16];
    uint32_t size;
    int32_t type;
} rknn_matmul_tensor_attr;

typedef struct {
    rknn_matmul_tensor_attr a, b, c;
} rknn_matmul_io_attr;

typedef struct {
    void *virt_addr;
    uint64_t phys_addr;
    int32_t fd;
    int32_t offset;
    uint32_t size;
    uint32_t flags;
    void *priv_data;
} rknn_tensor_mem;

typedef struct {
    char api_version[256];
    char drv_version[256];
} rknn_sdk_version;

#define EXPORT __attribute__((visibility("default")))
