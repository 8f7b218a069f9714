/* A stand-in for librknnrt.so: the same interface and manners, no NPU. Here: contexts and runs.
 *
 * It refuses what the real library refuses with the same codes, fails on demand, and adds up a
 * model of the time the chip would have taken. Where the real code of a refusal is not public the
 * nearest one is returned. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arithmetic.h"
#include "chip.h"
#include "library.h"

enum { MAX_CONTEXTS = 512 };

typedef struct {
    uint64_t handle;
    rknn_matmul_info info;
    rknn_matmul_io_attr attr;
    int core, fd;
    char *a, *b;              /* device side of what is bound */
    const rknn_tensor_mem *c; /* bound, too */
    char *own_a, *own_b;      /* copies made by set_io_mem from the normal order */
} context;

static context *contexts[MAX_CONTEXTS];
static uint64_t next_handle = 0x1000;

static context *find(uint64_t handle)
{
    context *found = NULL;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_CONTEXTS && !found; i++)
        if (contexts[i] && contexts[i]->handle == handle)
            found = contexts[i];
    pthread_mutex_unlock(&lock);
    return found;
}

int is_open(rknn_context handle)
{
    return find(handle) != NULL;
}

static void describe(rknn_matmul_tensor_attr *attr, const char *name, int type, int bytes,
                     int n_dims, const int *dims)
{
    memset(attr, 0, sizeof *attr);
    snprintf(attr->name, sizeof attr->name, "%s", name);
    attr->n_dims = (uint32_t)n_dims;
    attr->type = type;
    attr->size = (uint32_t)bytes;
    for (int i = 0; i < n_dims; i++) {
        attr->dims[i] = (uint32_t)dims[i];
        attr->size *= (uint32_t)dims[i];
    }
}

static int bytes_a(const rknn_matmul_info *info)
{
    return info->type == I8_I8_I32 ? 1 : 2;
}

static int bytes_c(const rknn_matmul_info *info)
{
    return info->type == F16_F16_F16 ? 2 : 4;
}

static void describe_all(const rknn_matmul_info *info, const chip_order *o, rknn_matmul_io_attr *io)
{
    int m = info->m, k = info->k, n = info->n, strip = info->type == F16_F16_F16 ? 8 : 4;
    int in = info->type == I8_I8_I32 ? TENSOR_I8 : TENSOR_F16;
    int out = info->type == I8_I8_I32 ? TENSOR_I32 : info->type == F16_F16_F32 ? TENSOR_F32
                                                                               : TENSOR_F16;
    if (info->ac_layout == LAYOUT_NATIVE) {
        describe(&io->a, "A", in, bytes_a(info), 3, (int[]){k / o->a_strip, m, o->a_strip});
        describe(&io->c, "C", out, bytes_c(info), 3, (int[]){n / strip, m, strip});
    } else {
        describe(&io->a, "A", in, bytes_a(info), 2, (int[]){m, k});
        describe(&io->c, "C", out, bytes_c(info), 2, (int[]){m, n});
    }
    if (info->b_layout == LAYOUT_NATIVE)
        describe(&io->b, "B", in, bytes_a(info), 4,
                 (int[]){n / o->b_n, k / o->b_k, o->b_n, o->b_k});
    else
        describe(&io->b, "B", in, bytes_a(info), 2, (int[]){k, n});
}

static int acceptable(const rknn_matmul_info *info, const chip_order *o)
{
    int type = info->type;
    if (type != F16_F16_F32 && type != I8_I8_I32 && type != F16_F16_F16)
        return 0;
    if (settings.refuse >> type & 1)
        return 0;
    if (info->m <= 0 || info->k <= 0 || info->n <= 0 || info->k > chip_max_k)
        return 0;
    if (info->k % o->align_k || info->n % o->align_n)
        return 0;
    return (unsigned)info->b_layout <= LAYOUT_NATIVE && (unsigned)info->ac_layout <= LAYOUT_NATIVE;
}

EXPORT int rknn_matmul_create(rknn_context *handle, rknn_matmul_info *info, rknn_matmul_io_attr *io)
{
    ENTER();
    if (!handle || !info || !io)
        return RKNN_ERR_PARAM_INVALID;
    const chip_order *o = info->type == I8_I8_I32 ? &chip_i8 : &chip_f16;
    if (!acceptable(info, o))
        return RKNN_ERR_PARAM_INVALID;
    context *made = calloc(1, sizeof *made);
    int slot = 0, fd = settings.descriptors ? open_descriptor() : -1;
    pthread_mutex_lock(&lock);
    while (slot < MAX_CONTEXTS && contexts[slot])
        slot++;
    if (!made || slot == MAX_CONTEXTS || counters.contexts >= settings.context_limit) {
        pthread_mutex_unlock(&lock);
        free(made);
        if (fd >= 0)
            close(fd);
        return RKNN_ERR_MALLOC_FAIL;
    }
    made->info = *info;
    made->fd = fd;
    made->handle = *handle = next_handle += 0x10;
    describe_all(info, o, &made->attr);
    *io = made->attr;
    contexts[slot] = made;
    counters.contexts++;
    pthread_mutex_unlock(&lock);
    return RKNN_SUCC;
}

/* present so that the version can be told from the symbols; this program has fixed shapes */
EXPORT int rknn_matmul_create_dynamic_shape(rknn_context *handle, rknn_matmul_info *info, int n,
                                            void *shapes, rknn_matmul_io_attr *io)
{
    (void)handle, (void)info, (void)n, (void)shapes, (void)io;
    ENTER();
    return RKNN_ERR_FAIL;
}

EXPORT int rknn_matmul_destroy(rknn_context handle)
{
    ENTER();
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_CONTEXTS; i++)
        if (contexts[i] && contexts[i]->handle == handle) {
            free(contexts[i]->own_a);
            free(contexts[i]->own_b);
            if (contexts[i]->fd >= 0)
                close(contexts[i]->fd);
            free(contexts[i]);
            contexts[i] = NULL;
            counters.contexts--;
            pthread_mutex_unlock(&lock);
            return RKNN_SUCC;
        }
    pthread_mutex_unlock(&lock);
    return RKNN_ERR_CTX_INVALID;
}

EXPORT int rknn_matmul_set_core_mask(rknn_context handle, int mask)
{
    ENTER();
    context *x = find(handle);
    if (!x)
        return RKNN_ERR_CTX_INVALID;
    if (chip_cores == 1 || (mask != 0 && mask != 1 && mask != 2 && mask != 4))
        return RKNN_ERR_FAIL; /* several cores for one matmul are refused, as by the real one */
    x->core = mask == 4 ? 2 : mask == 2 ? 1 : 0;
    return RKNN_SUCC;
}

EXPORT int rknn_query(rknn_context handle, int command, void *out, uint32_t size)
{
    ENTER();
    rknn_sdk_version *version = out;
    if (!find(handle))
        return RKNN_ERR_CTX_INVALID;
    if (command != QUERY_SDK_VERSION || !out || size < sizeof *version)
        return RKNN_ERR_PARAM_INVALID;
    snprintf(version->api_version, 256, "2.3.2 (emulated " CHIP_NAME ")");
    snprintf(version->drv_version, 256, "0.9.8 (emulated)");
    return RKNN_SUCC;
}

/* ---- running ---- */

/* the host's copy of an operand in the normal order, taken when it is bound and never again */
static int copy(char **own, size_t size, const char *from, const rknn_matmul_info *tiled)
{
    if (!*own && !(*own = malloc(size)))
        return RKNN_ERR_MALLOC_FAIL;
    if (tiled)
        tile_b(tiled, from, *own);
    else
        memcpy(*own, from, size);
    return RKNN_SUCC;
}

EXPORT int rknn_matmul_set_io_mem(rknn_context handle, rknn_tensor_mem *mem,
                                  rknn_matmul_tensor_attr *attr)
{
    ENTER();
    context *x = find(handle);
    if (!x)
        return RKNN_ERR_CTX_INVALID;
    if (!mem || !attr)
        return RKNN_ERR_PARAM_INVALID;
    int which = attr->name[0] - 'A';
    if (which < 0 || which > 2)
        return RKNN_ERR_PARAM_INVALID;
    const rknn_matmul_tensor_attr *expected = &(&x->attr.a)[which];
    if (memcmp(attr, expected, sizeof *attr) || mem->size < attr->size)
        return RKNN_ERR_PARAM_INVALID;
    if (which == 2) {
        x->c = mem;
        return RKNN_SUCC;
    }
    int normal = (which ? x->info.b_layout : x->info.ac_layout) == LAYOUT_NORMAL;
    char **bound = which ? &x->b : &x->a, **own = which ? &x->own_b : &x->own_a;
    if (!normal) {
        *bound = device_side(mem);
        return RKNN_SUCC;
    }
    int code = copy(own, attr->size, host_side(mem), which ? &x->info : NULL);
    *bound = *own;
    return code;
}

static double model_seconds(const rknn_matmul_info *info)
{
    const chip_order *o = info->type == I8_I8_I32 ? &chip_i8 : &chip_f16;
    double m = info->m, k = info->k, n = info->n;
    double share = info->type == I8_I8_I32 ? chip_efficiency_i8 : chip_efficiency_f16;
    share *= info->k > chip_long_k ? chip_long_k_part : 1;
    double arithmetic = 2 * m * k * n / (share * o->operations);
    double moving = ((m * k + k * n) * bytes_a(info) + m * n * bytes_c(info)) / chip_bandwidth;
    return chip_call_seconds + (arithmetic > moving ? arithmetic : moving);
}

static int run(const context *x)
{
    int action = triggered(&x->info, x->core);
    if (action == TRIGGER_ABORT)
        abort();
    while (action == TRIGGER_HANG)
        pause();
    int code = multiply(&x->info, x->a, x->b, device_side(x->c));
    if (action == TRIGGER_WRONG)
        memset(device_side(x->c), 0, x->attr.c.size);
    written_by_npu(x->c, x->attr.c.size);
    return code;
}

EXPORT int rknn_matmul_run(rknn_context handle)
{
    ENTER();
    context *x = find(handle);
    if (!x)
        return RKNN_ERR_CTX_INVALID;
    if (!x->a || !x->b || !x->c)
        return RKNN_ERR_FAIL;
    pthread_mutex_lock(&lock);
    counters.runs++;
    counters.seconds[x->core] += model_seconds(&x->info);
    pthread_mutex_unlock(&lock);
    return settings.null ? RKNN_SUCC : run(x);
}

EXPORT int rknn_B_normal_layout_to_native_layout(void *in, void *out, int k, int n,
                                                 rknn_matmul_info *info)
{
    ENTER();
    if (!in || !out || !info)
        return RKNN_ERR_PARAM_INVALID;
    rknn_matmul_info sized = *info;
    sized.m = 1;
    sized.k = k;
    sized.n = n;
    if (!acceptable(&sized, sized.type == I8_I8_I32 ? &chip_i8 : &chip_f16))
        return RKNN_ERR_PARAM_INVALID;
    tile_b(&sized, in, out);
    return RKNN_SUCC;
}
