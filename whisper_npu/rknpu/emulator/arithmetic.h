/* C = A x B for one call, on operands in any documented order. */
#pragma once
#include "rknn.h"

/* 0, or RKNN_ERR_MALLOC_FAIL */
int multiply(const rknn_matmul_info *info, const void *a, const void *b, void *c);

/* B as rows of K x N -> tiles */
void tile_b(const rknn_matmul_info *info, const void *in, void *out);
