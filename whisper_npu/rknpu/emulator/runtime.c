/* A stand-in for librknnrt.so: the same interface and manners, no NPU.
 *
 * It refuses what the real library refuses with the same codes, keeps memory in memfd arenas that
 * can be sliced by file descriptor, fails on demand, and adds up a model of the time the chip
 * would have taken. Where the real code of a refusal is not public the nearest one is returned.
 *
 * With `incoherent` set, memory created from then on has a device side of its own, as behind a
 * cache: what the host writes is seen by a run only after rknn_mem_sync, and the other way round. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arithmetic.h"
#include "chip.h"

enum { MAX_CONTEXTS = 512, MAX_FAULTS = 16 };

typedef struct arena {
    struct arena *next;
    int fd, owned, users;
    size_t size;
    char *host, *device; /* the same unless incoherent */
} arena;

typedef struct {
    uint64_t handle;
    rknn_matmul_info info;
    rknn_matmul_io_attr attr;
    int core;
    char *a, *b, *c;     /* device side of what is bound */
    char *own_a, *own_b; /* copies made by set_io_mem from the normal order */
} context;

typedef struct {
    char function[48];
    int64_t calls_left, times; /* fails from when calls_left is 0, `times` times; < 0: for ever */
    int code;
} fault;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static context *contexts[MAX_CONTEXTS];
static arena *arenas;
static fault faults[MAX_FAULTS];
static uint64_t next_handle = 0x1000;
static int64_t context_limit = 128, null_mode, incoherent;
static int64_t n_calls, n_runs, n_contexts, bytes_to_device, bytes_from_device, memory;
static double seconds[8]; /* modelled, per core */

/* ---- what tests and benchmarks ask for ---- */

EXPORT int emulator_set(const char *name, int64_t value)
{
    int64_t *setting = !strcmp(name, "null")            ? &null_mode
                       : !strcmp(name, "incoherent")    ? &incoherent
                       : !strcmp(name, "context_limit") ? &context_limit
                                                        : NULL;
    if (!setting)
        return RKNN_ERR_PARAM_INVALID;
    *setting = value;
    return RKNN_SUCC;
}

EXPORT double emulator_get(const char *name)
{
    if (!strcmp(name, "calls"))
        return (double)n_calls;
    if (!strcmp(name, "runs"))
        return (double)n_runs;
    if (!strcmp(name, "contexts"))
        return (double)n_contexts;
    if (!strcmp(name, "bytes_to_device"))
        return (double)bytes_to_device;
    if (!strcmp(name, "bytes_from_device"))
        return (double)bytes_from_device;
    if (!strcmp(name, "memory"))
        return (double)memory;
    if (!strncmp(name, "seconds", 7) && name[7] >= '0' && name[7] <= '7' && !name[8])
        return seconds[name[7] - '0'];
    return -1;
}

/* forgets the counters, keeps contexts and memory */
EXPORT void emulator_reset(void)
{
    pthread_mutex_lock(&lock);
    n_calls = n_runs = bytes_to_device = bytes_from_device = 0;
    memset(seconds, 0, sizeof seconds);
    memset(faults, 0, sizeof faults);
    pthread_mutex_unlock(&lock);
}

/* the nth call of `function` from now on fails with `code`, and `times` - 1 more after it */
EXPORT int emulator_fault(const char *function, int64_t nth, int64_t times, int code)
{
    for (int i = 0; i < MAX_FAULTS; i++)
        if (!faults[i].function[0]) {
            snprintf(faults[i].function, sizeof faults[i].function, "%s", function);
            faults[i].calls_left = nth - 1;
            faults[i].times = times;
            faults[i].code = code;
            return RKNN_SUCC;
        }
    return RKNN_ERR_FAIL;
}

/* WHISPER_NPU_EMULATOR_FAULT=function:nth:times:code, for whole programs */
__attribute__((constructor)) static void fault_from_environment(void)
{
    const char *text = getenv("WHISPER_NPU_EMULATOR_FAULT");
    char function[48];
    long nth, times;
    int code;
    if (text && sscanf(text, "%47[a-zA-Z_0-9]:%ld:%ld:%d", function, &nth, &times, &code) == 4)
        emulator_fault(function, nth, times, code);
}

/* counts a call; the code it has been told to fail with, or 0 */
static int enter(const char *function)
{
    int code = 0;
    pthread_mutex_lock(&lock);
    n_calls++;
    for (int i = 0; i < MAX_FAULTS; i++) {
        fault *f = &faults[i];
        if (strcmp(f->function, function) || f->calls_left-- > 0 || f->times == 0)
            continue;
        f->times -= f->times > 0;
        code = f->code;
    }
    pthread_mutex_unlock(&lock);
    return code;
}

#define ENTER()                      \
    do {                             \
        int told = enter(__func__);  \
        if (told)                    \
            return told;             \
    } while (0)

/* ---- contexts ---- */

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
    int slot = 0;
    pthread_mutex_lock(&lock);
    while (slot < MAX_CONTEXTS && contexts[slot])
        slot++;
    if (!made || slot == MAX_CONTEXTS || n_contexts >= context_limit) {
        pthread_mutex_unlock(&lock);
        free(made);
        return RKNN_ERR_MALLOC_FAIL;
    }
    made->info = *info;
    made->handle = *handle = next_handle += 0x10;
    describe_all(info, o, &made->attr);
    *io = made->attr;
    contexts[slot] = made;
    n_contexts++;
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
            free(contexts[i]);
            contexts[i] = NULL;
            n_contexts--;
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

/* ---- memory ---- */

static arena *add_arena(int fd, int owned, char *host, size_t size)
{
    arena *made = calloc(1, sizeof *made);
    if (!made)
        return NULL;
    *made = (arena){arenas, fd, owned, 0, size, host, host};
    if (incoherent)
        made->device = calloc(1, size);
    arenas = made;
    memory += (int64_t)size;
    return made;
}

static void release(arena *old)
{
    if (--old->users > 0)
        return;
    for (arena **link = &arenas; *link; link = &(*link)->next)
        if (*link == old) {
            *link = old->next;
            break;
        }
    memory -= (int64_t)old->size;
    if (old->device != old->host)
        free(old->device);
    if (old->owned) {
        munmap(old->host, old->size);
        close(old->fd);
    }
    free(old);
}

static rknn_tensor_mem *slice(arena *whole, uint32_t size, int32_t offset)
{
    rknn_tensor_mem *mem = calloc(1, sizeof *mem);
    if (!whole || !mem || offset < 0 || (size_t)offset + size > whole->size) {
        free(mem);
        return NULL;
    }
    whole->users++;
    mem->virt_addr = whole->host; /* without the offset, which is beside it */
    mem->fd = whole->fd;
    mem->offset = offset;
    mem->size = size;
    mem->priv_data = whole;
    return mem;
}

EXPORT rknn_tensor_mem *rknn_create_mem(rknn_context handle, uint32_t size)
{
    if (enter(__func__) || !find(handle) || !size)
        return NULL;
    int fd = memfd_create("rknn", MFD_CLOEXEC);
    if (fd < 0)
        return NULL;
    void *host = ftruncate(fd, size) ? MAP_FAILED
                                     : mmap(NULL, size, PROT_READ | PROT_WRITE,
                                            MAP_SHARED | MAP_POPULATE, fd, 0);
    if (host == MAP_FAILED) {
        close(fd);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    rknn_tensor_mem *mem = slice(add_arena(fd, 1, host, size), size, 0);
    pthread_mutex_unlock(&lock);
    return mem;
}

EXPORT rknn_tensor_mem *rknn_create_mem_from_fd(rknn_context handle, int32_t fd, void *virt,
                                                uint32_t size, int32_t offset)
{
    struct stat file;
    if (enter(__func__) || !find(handle) || !virt || !size || fstat(fd, &file))
        return NULL;
    pthread_mutex_lock(&lock);
    arena *whole = arenas;
    while (whole && whole->fd != fd)
        whole = whole->next;
    if (!whole)
        whole = add_arena(fd, 0, virt, (size_t)file.st_size);
    rknn_tensor_mem *mem = whole && whole->host == virt ? slice(whole, size, offset) : NULL;
    pthread_mutex_unlock(&lock);
    return mem;
}

EXPORT int rknn_destroy_mem(rknn_context handle, rknn_tensor_mem *mem)
{
    ENTER();
    if (!find(handle))
        return RKNN_ERR_CTX_INVALID;
    if (!mem)
        return RKNN_ERR_PARAM_INVALID;
    pthread_mutex_lock(&lock);
    release(mem->priv_data);
    pthread_mutex_unlock(&lock);
    free(mem);
    return RKNN_SUCC;
}

EXPORT int rknn_mem_sync(rknn_context handle, rknn_tensor_mem *mem, int mode)
{
    ENTER();
    if (!find(handle))
        return RKNN_ERR_CTX_INVALID;
    if (!mem || mode < SYNC_TO_DEVICE || mode > (SYNC_TO_DEVICE | SYNC_FROM_DEVICE))
        return RKNN_ERR_PARAM_INVALID;
    const arena *whole = mem->priv_data;
    char *host = whole->host + mem->offset, *device = whole->device + mem->offset;
    if (mode & SYNC_TO_DEVICE && host != device)
        memcpy(device, host, mem->size);
    if (mode & SYNC_FROM_DEVICE && host != device)
        memcpy(host, device, mem->size);
    pthread_mutex_lock(&lock);
    bytes_to_device += mode & SYNC_TO_DEVICE ? mem->size : 0;
    bytes_from_device += mode & SYNC_FROM_DEVICE ? mem->size : 0;
    pthread_mutex_unlock(&lock);
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
    const arena *whole = mem->priv_data;
    char *device = whole->device + mem->offset, *host = whole->host + mem->offset;
    if (which == 2) {
        x->c = device;
        return RKNN_SUCC;
    }
    int normal = (which ? x->info.b_layout : x->info.ac_layout) == LAYOUT_NORMAL;
    char **bound = which ? &x->b : &x->a, **own = which ? &x->own_b : &x->own_a;
    if (!normal) {
        *bound = device;
        return RKNN_SUCC;
    }
    int code = copy(own, attr->size, host, which ? &x->info : NULL);
    *bound = *own;
    return code;
}

static double model_seconds(const rknn_matmul_info *info)
{
    const chip_order *o = info->type == I8_I8_I32 ? &chip_i8 : &chip_f16;
    double m = info->m, k = info->k, n = info->n;
    double arithmetic = 2 * m * k * n / (chip_efficiency * o->operations);
    double moving = ((m * k + k * n) * bytes_a(info) + m * n * bytes_c(info)) / chip_bandwidth;
    return chip_call_seconds + (arithmetic > moving ? arithmetic : moving);
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
    n_runs++;
    seconds[x->core] += model_seconds(&x->info);
    pthread_mutex_unlock(&lock);
    return null_mode ? RKNN_SUCC : multiply(&x->info, x->a, x->b, x->c);
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
