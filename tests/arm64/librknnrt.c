/* A stand-in for the vendor's librknnrt.so, as much of it as RKNNLite calls: it takes any model
 * file and computes nothing. Declared from the documented ABI, not from the vendor's headers.
 *
 *   STANDIN_INPUTS, STANDIN_OUTPUTS   shapes: "1x80x3000 1x1x16"
 *   STANDIN_INIT                      what rknn_init returns (default 0)
 *   STANDIN_SAYS                      what rknn_init prints on stdout
 *   STANDIN_FAILING_RUN               number of the run that fails, from 1; the next ones succeed
 *
 * Output k is the first input, repeated, plus k; the last one is the second input, then zeros.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64, FAIL = -1, PARAM_INVALID = -5 };
enum { IN_OUT_NUM = 0, INPUT_ATTR = 1, OUTPUT_ATTR = 2, SDK_VERSION = 5 };

typedef struct {
  uint32_t index, n_dims, dims[16];
  char name[256];
  uint32_t n_elems, size;
  int32_t fmt, type, qnt_type;
  int8_t fl;
  int32_t zp;
  float scale;
  uint32_t w_stride, size_with_stride;
  uint8_t pass_through;
  uint32_t h_stride;
} Attr;

typedef struct {
  uint32_t index;
  void *buf;
  uint32_t size;
  uint8_t pass_through;
  int32_t type, fmt;
} Input;

typedef struct {
  uint8_t want_float, is_prealloc;
  uint32_t index;
  void *buf;
  uint32_t size;
} Output;

_Static_assert(sizeof(Attr) == 376 && sizeof(Input) == 32 && sizeof(Output) == 24, "ABI");

enum { UNDEFINED = 3, FLOAT32 = 0 };

static Attr attrs[2][MOST];
static uint32_t counts[2];
static float *given[MOST], *results[MOST];
static int runs;

static uint32_t read_shapes(const char *text, Attr *into) {
  uint32_t n = 0;
  for (char *at = (char *)(text ? text : ""); *at && n < MOST; n++) {
    Attr *attr = &into[n];
    *attr = (Attr){.index = n, .n_elems = 1, .fmt = UNDEFINED, .type = FLOAT32};
    snprintf(attr->name, sizeof attr->name, "tensor_%u", n);
    do attr->n_elems *= attr->dims[attr->n_dims++] = strtoul(at, &at, 10);
    while (*at++ == 'x');
    if (at[-1] == 0) at--;
    attr->size = attr->size_with_stride = attr->n_elems * sizeof(float);
  }
  return n;
}

int rknn_init(uint64_t *context, void *model, uint32_t size, uint32_t flag, void *extend) {
  (void)model, (void)size, (void)flag, (void)extend;
  const char *status = getenv("STANDIN_INIT"), *says = getenv("STANDIN_SAYS");
  if (says) puts(says), fflush(stdout);
  if (status && atoi(status)) return atoi(status);
  counts[0] = read_shapes(getenv("STANDIN_INPUTS"), attrs[0]);
  counts[1] = read_shapes(getenv("STANDIN_OUTPUTS"), attrs[1]);
  for (uint32_t i = 0; i < counts[0]; i++) given[i] = calloc(1, attrs[0][i].size);
  for (uint32_t i = 0; i < counts[1]; i++) results[i] = calloc(1, attrs[1][i].size);
  *context = 1;
  return 0;
}

int rknn_query(uint64_t context, int32_t command, void *info, uint32_t size) {
  (void)context;
  Attr *attr = info;
  switch (command) {
  case IN_OUT_NUM:
    memcpy(info, counts, sizeof counts);
    return 0;
  case INPUT_ATTR:
  case OUTPUT_ATTR:
    if (size != sizeof(Attr) || attr->index >= counts[command - 1]) return PARAM_INVALID;
    *attr = attrs[command - 1][attr->index];
    return 0;
  case SDK_VERSION:
    memset(info, 0, size);
    strcpy(info, "0.0.0 (stand-in)");
    strcpy((char *)info + 256, "0.0.0 (stand-in)");
    return 0;
  default:
    memset(info, 0, size);
    return 0;
  }
}

int rknn_inputs_set(uint64_t context, uint32_t n, Input *inputs) {
  (void)context;
  for (uint32_t i = 0; i < n; i++) {
    uint32_t at = inputs[i].index;
    if (at >= counts[0] || inputs[i].size != attrs[0][at].size) return PARAM_INVALID;
    memcpy(given[at], inputs[i].buf, inputs[i].size);
  }
  return 0;
}

int rknn_run(uint64_t context, void *extend) {
  (void)context, (void)extend;
  const char *failing = getenv("STANDIN_FAILING_RUN");
  if (++runs == (failing ? atoi(failing) : 0)) return FAIL; /* the old results stay */
  for (uint32_t k = 0; k + 1 < counts[1]; k++)
    for (uint32_t i = 0; i < attrs[1][k].n_elems; i++)
      results[k][i] = given[0][i % attrs[0][0].n_elems] + (float)k;
  memcpy(results[counts[1] - 1], given[1], attrs[0][1].size);
  return 0;
}

int rknn_outputs_get(uint64_t context, uint32_t n, Output *outputs, void *extend) {
  (void)context, (void)extend;
  if (n != counts[1]) return PARAM_INVALID;
  for (uint32_t i = 0; i < n; i++) {
    uint32_t size = attrs[1][i].size;
    if (!outputs[i].want_float) return PARAM_INVALID;
    if (!outputs[i].is_prealloc) outputs[i].buf = malloc(size);
    memcpy(outputs[i].buf, results[i], size);
    outputs[i].index = i;
    outputs[i].size = size;
  }
  return 0;
}

int rknn_outputs_release(uint64_t context, uint32_t n, Output *outputs) {
  (void)context;
  for (uint32_t i = 0; i < n; i++)
    if (!outputs[i].is_prealloc) free(outputs[i].buf);
  return 0;
}

int rknn_set_core_mask(uint64_t context, int32_t mask) {
  (void)context;
  printf("core mask %d\n", mask), fflush(stdout);
  return 0;
}

int rknn_destroy(uint64_t context) {
  (void)context;
  return 0;
}
