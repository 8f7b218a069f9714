/* Memory in memfd arenas that can be sliced by file descriptor, and the cache before it.
 *
 * With `incoherent`, memory has a device side of its own: what the host writes is seen by a run
 * only after rknn_mem_sync, and the other way round. With `late_evict`, lines that the host wrote
 * and did not synchronise are written back at the worst moment, after the NPU's result; new memory
 * then holds rubbish, so that clearing it counts as writing. With `view_nosync`, a sync through a
 * handle that was made from a descriptor does nothing. Both make memory incoherent. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "library.h"

enum { LINE = 64, RUBBISH = 0x7e }; /* float16 of these bytes is not a number */

typedef struct arena {
    struct arena *next;
    int fd, owned, users;
    size_t size;
    char *host, *device; /* the same unless incoherent */
    char *seen;          /* what the host saw at the last sync: other lines are dirty; or NULL */
} arena;

static arena *arenas;

static int has_cache(void)
{
    return settings.incoherent || settings.late_evict || settings.view_nosync;
}

int open_descriptor(void)
{
    int fd = memfd_create("rknn", MFD_CLOEXEC);
    if (fd < 0 && settings.descriptors)
        raise(SIGSEGV);
    return fd;
}

static arena *add_arena(int fd, int owned, char *host, size_t size)
{
    arena *made = calloc(1, sizeof *made);
    if (!made)
        return NULL;
    *made = (arena){arenas, fd, owned, 0, size, host, host, NULL};
    if (has_cache())
        made->device = calloc(1, size);
    if (settings.late_evict) {
        memset(host, RUBBISH, size);
        memset(made->device, RUBBISH, size);
        made->seen = malloc(size);
        memset(made->seen, RUBBISH, size);
    }
    arenas = made;
    counters.memory += (int64_t)size;
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
    counters.memory -= (int64_t)old->size;
    if (old->device != old->host)
        free(old->device);
    free(old->seen);
    if (old->owned) {
        munmap(old->host, old->size);
        close(old->fd);
    }
    free(old);
}

static rknn_tensor_mem *slice(arena *whole, uint32_t size, int32_t offset, uint32_t is_view)
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
    mem->flags = is_view;
    mem->priv_data = whole;
    return mem;
}

EXPORT rknn_tensor_mem *rknn_create_mem(rknn_context handle, uint32_t size)
{
    if (enter(__func__) || !is_open(handle) || !size)
        return NULL;
    if (settings.memory_limit && counters.memory + size > settings.memory_limit)
        return NULL;
    int fd = open_descriptor();
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
    rknn_tensor_mem *mem = slice(add_arena(fd, 1, host, size), size, 0, 0);
    pthread_mutex_unlock(&lock);
    return mem;
}

EXPORT rknn_tensor_mem *rknn_create_mem_from_fd(rknn_context handle, int32_t fd, void *virt,
                                                uint32_t size, int32_t offset)
{
    struct stat file;
    if (enter(__func__) || !is_open(handle) || !virt || !size || fstat(fd, &file))
        return NULL;
    pthread_mutex_lock(&lock);
    arena *whole = arenas;
    while (whole && whole->fd != fd)
        whole = whole->next;
    if (!whole)
        whole = add_arena(fd, 0, virt, (size_t)file.st_size);
    rknn_tensor_mem *mem = whole && whole->host == virt ? slice(whole, size, offset, 1) : NULL;
    pthread_mutex_unlock(&lock);
    return mem;
}

EXPORT int rknn_destroy_mem(rknn_context handle, rknn_tensor_mem *mem)
{
    ENTER();
    if (!is_open(handle))
        return RKNN_ERR_CTX_INVALID;
    if (!mem)
        return RKNN_ERR_PARAM_INVALID;
    pthread_mutex_lock(&lock);
    release(mem->priv_data);
    pthread_mutex_unlock(&lock);
    free(mem);
    return RKNN_SUCC;
}

char *device_side(const rknn_tensor_mem *mem)
{
    return ((arena *)mem->priv_data)->device + mem->offset;
}

char *host_side(const rknn_tensor_mem *mem)
{
    return ((arena *)mem->priv_data)->host + mem->offset;
}

EXPORT int rknn_mem_sync(rknn_context handle, rknn_tensor_mem *mem, int mode)
{
    ENTER();
    if (!is_open(handle))
        return RKNN_ERR_CTX_INVALID;
    if (!mem || mode < SYNC_TO_DEVICE || mode > (SYNC_TO_DEVICE | SYNC_FROM_DEVICE))
        return RKNN_ERR_PARAM_INVALID;
    const arena *whole = mem->priv_data;
    char *host = host_side(mem), *device = device_side(mem);
    if (host != device && !(settings.view_nosync && mem->flags)) {
        if (mode & SYNC_TO_DEVICE)
            memcpy(device, host, mem->size);
        if (mode & SYNC_FROM_DEVICE)
            memcpy(host, device, mem->size); /* dirty lines are thrown away, as by the real one */
        if (whole->seen)
            memcpy(whole->seen + mem->offset, host, mem->size);
    }
    pthread_mutex_lock(&lock);
    counters.bytes_to_device += mode & SYNC_TO_DEVICE ? mem->size : 0;
    counters.bytes_from_device += mode & SYNC_FROM_DEVICE ? mem->size : 0;
    pthread_mutex_unlock(&lock);
    return RKNN_SUCC;
}

void written_by_npu(const rknn_tensor_mem *mem, size_t size)
{
    const arena *whole = mem->priv_data;
    if (!settings.late_evict || !whole->seen)
        return;
    size_t first = (size_t)mem->offset / LINE * LINE, last = (size_t)mem->offset + size;
    for (size_t at = first; at < last; at += LINE) {
        size_t n = whole->size - at < LINE ? whole->size - at : LINE;
        if (!memcmp(whole->host + at, whole->seen + at, n))
            continue;
        memcpy(whole->device + at, whole->host + at, n);
        memcpy(whole->seen + at, whole->host + at, n);
    }
}
