// CPU kernels around the int8 matmul: everything between two matmuls in one pass over memory, attention in place in the
// paged KV cache (half precision), and the vocabulary's running top-k. Plain C interface, loaded with ctypes.
//
// The same source is compiled for three instruction sets; the best one the processor has is chosen at load.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <omp.h>

#if defined(__x86_64__)
#include <immintrin.h>
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#define NLLBD_AVX512
namespace avx512 {
#include "body.inc"
}
#undef NLLBD_AVX512
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#define NLLBD_AVX2
namespace avx2 {
#include "body.inc"
}
#undef NLLBD_AVX2
#pragma GCC pop_options
#endif
namespace portable {
#include "body.inc"
}

namespace {
enum Level { kPortable, kAvx2, kAvx512 };

Level detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    return kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) return kAvx2;
#endif
  return kPortable;
}

Level level = detect();
}  // namespace

#if defined(__x86_64__)
#define DISPATCH(call)                         \
  do {                                         \
    if (level == kAvx512) return avx512::call; \
    if (level == kAvx2) return avx2::call;     \
    return portable::call;                     \
  } while (0)
#else
#define DISPATCH(call) return portable::call
#endif

extern "C" {
void nllbd_set_num_threads(int n) { omp_set_num_threads(n); }
int nllbd_level() { return level; }
void nllbd_set_level(int wanted) { level = wanted < detect() ? (Level)wanted : detect(); }

void nllbd_add_norm_quantize(float* hidden, const float* acc, const float* acc_scale, const float* acc_bias,
                             const float* weight, const float* bias, int rows, int n, int8_t* out, float* out_scale) {
  DISPATCH(add_norm_quantize(hidden, acc, acc_scale, acc_bias, weight, bias, rows, n, out, out_scale));
}
void nllbd_relu_quantize(float* acc, const float* acc_scale, const float* bias, int rows, int n, int8_t* out,
                         float* out_scale) {
  DISPATCH(relu_quantize(acc, acc_scale, bias, rows, n, out, out_scale));
}
void nllbd_self_attention(const float* qkv, const float* scale, const float* bias, uint16_t* keys, uint16_t* values,
                          const int64_t* write_slots, const int64_t* slots, const int64_t* lengths, int rows,
                          int max_length, int heads, int dim, int8_t* out, float* out_scale) {
  DISPATCH(self_attention(qkv, scale, bias, keys, values, write_slots, slots, lengths, rows, max_length, heads, dim,
                          out, out_scale));
}
void nllbd_cross_attention(const float* acc, const float* scale, const float* bias, const uint16_t* keys,
                           const uint16_t* values, const int64_t* slots, const int64_t* lengths,
                           const int64_t* group_rows, const int64_t* row_places, int groups, int group_width,
                           int max_length, int heads, int dim, int8_t* out, float* out_scale) {
  DISPATCH(cross_attention(acc, scale, bias, keys, values, slots, lengths, group_rows, row_places, groups, group_width,
                           max_length, heads, dim, out, out_scale));
}
void nllbd_store_cross(const float* acc, const float* scale, const float* bias, const int64_t* slots, int rows,
                       int width, uint16_t* keys, uint16_t* values) {
  DISPATCH(store_cross(acc, scale, bias, slots, rows, width, keys, values));
}
void nllbd_encoder_attention(const float* qkv, const float* scale, const float* bias, const int64_t* starts,
                             int sources, int heads, int dim, float* mixed, int8_t* out, float* out_scale) {
  DISPATCH(encoder_attention(qkv, scale, bias, starts, sources, heads, dim, mixed, out, out_scale));
}
void nllbd_topk_tile(const float* logits, const float* scale, int rows, int n, int64_t offset, int k, float* top,
                     float* sum, float* best, int64_t* best_id) {
  DISPATCH(topk_tile(logits, scale, rows, n, offset, k, top, sum, best, best_id));
}
}
