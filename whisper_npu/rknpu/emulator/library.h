/* What the parts of the emulated library share: its settings, its counters, and how calls begin. */
#pragma once
#include <pthread.h>
#include <stddef.h>

#include "rknn.h"

/* 0 or 1 unless it says otherwise; emulator_set and WHISPER_NPU_EMULATOR change them by name */
typedef struct {
    int64_t null;          /* no arithmetic: what is left is the time of the program around it */
    int64_t context_limit; /* how many contexts there may be */
    int64_t incoherent;    /* memory made from now on is seen by the NPU through syncs alone */
    int64_t late_evict;    /* and lines written by the host land after the NPU's result */
    int64_t view_nosync;   /* and a sync through a handle made from a descriptor does nothing */
    int64_t refuse;        /* types of matmul that this chip does not have: bit 1 << type */
    int64_t memory_limit;  /* bytes; 0: none. A chip without IOMMU has about 12 MB */
    int64_t descriptors;   /* a context costs a file, and running out of files crashes */
} emulator_settings;

typedef struct {
    int64_t calls, runs, contexts, bytes_to_device, bytes_from_device, memory;
    double seconds[8]; /* modelled, per core */
} emulator_counters;

extern pthread_mutex_t lock;
extern emulator_settings settings;
extern emulator_counters counters;

/* counts a call; the code it has been told to fail with, or 0 */
int enter(const char *function);

/* what happens to a shape on a core: it ends the process, never comes back, or is miscalculated */
enum { TRIGGER_NONE, TRIGGER_ABORT, TRIGGER_HANG, TRIGGER_WRONG };
int triggered(const rknn_matmul_info *info, int core);

#define ENTER()                      \
    do {                             \
        int told = enter(__func__);  \
        if (told)                    \
            return told;             \
    } while (0)

/* whether a context is open */
int is_open(rknn_context handle);

/* ---- memory, as the NPU and as the host see it ---- */

char *device_side(const rknn_tensor_mem *mem);
char *host_side(const rknn_tensor_mem *mem);

/* the NPU has written `size` bytes there: with late_evict, what the host had not yet let go of
 * lands on top of it */
void written_by_npu(const rknn_tensor_mem *mem, size_t size);

/* a file that stands for what the real library opens; crashes when there is none left */
int open_descriptor(void);
