// CPU kernels around the int8 matmul: everything between two matmuls in one pass over memory, attention in place in the
// paged KV cache (half precision), and the vocabulary's running top-k. Plain C interface, loaded with ctypes.
//
// The same source is compiled for several instruction sets; the best one the processor has is chosen at load. With
// AVX512-VNNI or AMX there are whole passes besides (passes.inc), int8 matmuls included.
#include <atomic>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <omp.h>
#include <sched.h>

// What passes.inc is given; mirrored in passes.py.
extern "C" {
// weight: packed by nllbd_pack; sums [out], the weights of each output summed; scale, bias [out]; out padded to 32.
struct NllbdLinear {
  const int8_t* weight;
  const int32_t* sums;
  const float *scale, *bias;
  int32_t in_features, out_features;
};
struct NllbdEncoderLayer {
  const float *norm_weight, *norm_bias, *ff_norm_weight, *ff_norm_bias;
  NllbdLinear qkv, out, expand, contract;
};
// keys, values: this layer's [num_slots, heads * dim] in half precision
struct NllbdDecoderLayer {
  const float *self_norm_weight, *self_norm_bias, *cross_norm_weight, *cross_norm_bias, *ff_norm_weight, *ff_norm_bias;
  NllbdLinear qkv, self_out, cross_query, cross_out, expand, contract;
  uint16_t *keys, *values;
};
struct NllbdCross {
  NllbdLinear kv;
  uint16_t *keys, *values;
};
// model/decoder.py's DecoderRows
struct NllbdRows {
  const int64_t *write_slots, *self_slots, *self_lengths, *cross_slots, *cross_lengths, *group_rows, *row_places;
  int32_t rows, self_width, groups, cross_width, group_width, heads, dim;
};
}

#if defined(__x86_64__)
#include <immintrin.h>
#if __GNUC__ >= 11
#define NLLBD_PASSES
#include <sys/syscall.h>
#include <unistd.h>
#endif
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")
#define NLLBD_AVX512
namespace avx512 {
#include "body.inc"
}
#undef NLLBD_AVX512
#pragma GCC pop_options
#if defined(NLLBD_PASSES)
#define NLLBD_AVX512
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")
namespace vnni {
#include "body.inc"
#include "passes.inc"
}
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,amx-tile,amx-int8")
#define NLLBD_AMX
namespace amx {
#include "body.inc"
#include "passes.inc"
}
#undef NLLBD_AMX
#pragma GCC pop_options
#undef NLLBD_AVX512
#endif
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
enum Level { kPortable, kAvx2, kAvx512, kVnni, kAmx };

#if defined(NLLBD_PASSES)
// AMX's registers are large; Linux gives them to a process that asks.
bool may_use_amx() {
  constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  unsigned a = 7, b = 0, c = 0, d = 0;
  __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  const bool has_tiles = d >> 24 & 1, has_int8 = d >> 25 & 1;
  return has_tiles && has_int8 && syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}
#endif

Level detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
#if defined(NLLBD_PASSES)
    if (__builtin_cpu_supports("avx512vnni")) return may_use_amx() ? kAmx : kVnni;
#endif
    return kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) return kAvx2;
#endif
  return kPortable;
}

const Level best_level = detect();
Level level = best_level;
}  // namespace

#if defined(__x86_64__)
#define DISPATCH(call)                         \
  do {                                         \
    if (level >= kAvx512) return avx512::call; \
    if (level == kAvx2) return avx2::call;     \
    return portable::call;                     \
  } while (0)
#else
#define DISPATCH(call) return portable::call
#endif
#if defined(NLLBD_PASSES)
#define PASS(call) return level == kAmx ? amx::call : vnni::call
#else
#define PASS(call) return -1
#endif

extern "C" {
void nllbd_set_num_threads(int n) { omp_set_num_threads(n); }
int nllbd_level() { return level; }
void nllbd_set_level(int wanted) { level = wanted < best_level ? (Level)wanted : best_level; }

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

// Whether the passes below can be called at the level in use.
int nllbd_has_passes() { return level >= kVnni; }

// weight [out, in] → packed [ceil(out / 32), in / 64, 2, 16, 64]: for 16 outputs at a time, 4 inputs of each side by side.
// sums [ceil(out / 32) * 32]. in is a multiple of 64.
void nllbd_pack(const int8_t* weight, int out, int in, int8_t* packed, int32_t* sums) {
#pragma omp parallel for schedule(static)
  for (int block = 0; block < (out + 31) / 32; ++block) {
    for (int column = 0; column < 32; ++column) {
      const int o = block * 32 + column;
      int32_t sum = 0;
      for (int i = 0; i < in; i += 4) {
        int8_t* to = packed + (((int64_t)block * (in / 64) + i / 64) * 2 + column / 16) * 1024 + i % 64 / 4 * 64 +
                     column % 16 * 4;
        if (o >= out) {
          memset(to, 0, 4);
          continue;
        }
        const int8_t* from = weight + (int64_t)o * in + i;
        memcpy(to, from, 4);
        sum += from[0] + from[1] + from[2] + from[3];
      }
      sums[o] = sum;
    }
  }
}

// With memory = null each pass returns how many bytes of it it wants, else 0. times [phases]: seconds are added, or null.
int64_t nllbd_decode(const NllbdDecoderLayer* layers, int num_layers, const NllbdRows* rows, float* hidden,
                     int num_threads, double* times, void* memory) {
  PASS(decode(layers, num_layers, *rows, hidden, num_threads, times, memory));
}
int64_t nllbd_encode(const NllbdEncoderLayer* layers, int num_layers, const float* norm_weight, const float* norm_bias,
                     const int64_t* starts, int sources, int longest, int heads, int dim, float* hidden, int8_t* out,
                     float* out_scale, int num_threads, double* times, void* memory) {
  PASS(encode(layers, num_layers, norm_weight, norm_bias, starts, sources, longest, heads, dim, hidden, out, out_scale,
              num_threads, times, memory));
}
int64_t nllbd_write_cross(const NllbdCross* layers, int num_layers, int8_t* encoded, float* scale, int rows,
                          const int64_t* slots, int num_threads, double* times) {
  PASS(write_cross(layers, num_layers, encoded, scale, rows, slots, num_threads, times));
}
int64_t nllbd_linear(const NllbdLinear* linear, int8_t* x, float* scale, int rows, float* out, int num_threads) {
  PASS(multiply_all(*linear, x, scale, rows, out, num_threads));
}
int64_t nllbd_project(const float* norm_weight, const float* norm_bias, const NllbdLinear* projection,
                      const float* hidden, int rows, int k, float* best, int64_t* best_id, int num_threads, double* times, void* memory) {
  PASS(project(norm_weight, norm_bias, *projection, hidden, rows, k, best, best_id, num_threads, times, memory));
}
}
