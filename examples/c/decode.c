/* Decodes one token of two sequences from C, with the driver API and the PTX of this repository.
 *
 *   cc -std=c11 -I gdn-host/ptx -I $CUDA_HOME/include examples/c/decode.c -o decode -lcuda -lm
 *   ./decode gdn-host/ptx/decode_f32_f32_k128.sm_80.ptx
 *
 * In the folder that `cargo xtask dist` lays out, gdn.h and the PTX are at the top: -I . and no gdn-host/ptx/.
 * PTX for sm_80 runs on every later GPU too, and on compute capability 9.0 decode_f32_f32_k128.sm_90.cubin needs no
 * compiler; manifest.json says which files there are.
 *
 * With beta 1, decay 1 and a unit key, decode replaces one column of the state by v: easy to check by eye.
 */
#include <cuda.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "gdn.h"

enum { N = 2, H = 1, HV = 2, K = 128, V = 128, SLOTS = 3, ROWS = 2, WARPS = 4 };

static void check(CUresult result, const char *what) {
  const char *text = "unknown";
  if (result == CUDA_SUCCESS) return;
  cuGetErrorString(result, &text);
  fprintf(stderr, "%s: %s\n", what, text);
  exit(1);
}

static CUdeviceptr upload(const void *bytes, size_t size) {
  CUdeviceptr address = 0;
  check(cuMemAlloc(&address, size), "cuMemAlloc");
  check(cuMemcpyHtoD(address, bytes, size), "cuMemcpyHtoD");
  return address;
}

static char *read_file(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  char *text = calloc((size_t)size + 1, 1); /* the driver wants a terminating NUL */
  if (text && fread(text, 1, (size_t)size, file) != (size_t)size) text = NULL;
  fclose(file);
  return text;
}

int main(int argc, char **argv) {
  char *ptx = argc == 2 ? read_file(argv[1]) : NULL;
  if (!ptx) {
    fprintf(stderr, "usage: %s decode_f32_f32_k128.sm_80.ptx\n", argv[0]);
    return 2;
  }
  CUdevice device;
  CUcontext context;
  CUmodule module;
  CUfunction kernel;
  check(cuInit(0), "cuInit");
  check(cuDeviceGet(&device, 0), "cuDeviceGet");
  check(cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
  check(cuCtxSetCurrent(context), "cuCtxSetCurrent");
  check(cuModuleLoadData(&module, ptx), "cuModuleLoadData");
  check(cuModuleGetFunction(&kernel, module, "gdn_decode_f32_f32_k128_r2"), "cuModuleGetFunction");

  static float q[N * H * K], k[N * H * K], v[N * HV * V], ones[N * HV], zeros[N * HV];
  static float state[SLOTS * HV * V * K], out[N * HV * V];
  const int32_t slot[N] = {2, -1}; /* the second sequence is padding */
  for (int i = 0; i < N * HV; i++) ones[i] = 1.0f;
  for (int n = 0; n < N; n++) q[n * K + 5] = k[n * K + 5] = 1.0f; /* unit vectors along element 5 */
  for (int i = 0; i < N * HV * V; i++) v[i] = (float)i;
  for (int i = 0; i < SLOTS * HV * V * K; i++) state[i] = 0.25f;
  for (int i = 0; i < N * HV * V; i++) out[i] = NAN;

  CUdeviceptr state_at = upload(state, sizeof state), out_at = upload(out, sizeof out);
  GdnDecodeParams p = {
      .inputs = {.q = upload(q, sizeof q), .k = upload(k, sizeof k), .v = upload(v, sizeof v),
                 .q_stride = H * K, .k_stride = H * K, .v_stride = HV * V},
      .gate = {.a = upload(zeros, sizeof zeros), .b = upload(ones, sizeof ones), .a_stride = HV,
               .b_stride = HV}, /* all f32: GdnDType 0; decay and beta are given */
      .pool = {.state = state_at, .slot = {.address = upload(slot, sizeof slot), .stride = sizeof *slot, .entry = GDN_ENTRY_I32},
               .pitch = HV * V * K, .slots = SLOTS, .null_slot = -1},
      .out = out_at, .out_stride = HV * V, .n = N,
      .layer = {.h = H, .hv = HV, .v = V, .head_reciprocal = gdn_head_reciprocal(HV / H),
                .flags = GDN_FLAG_DECAY_GIVEN | GDN_FLAG_BETA_GIVEN, .scale = 1.0f, .eps = 1.0f}};
  const unsigned bv = ROWS * (256 / K) * WARPS; /* rows of V a block works on */
  p.layer.tiles_reciprocal = gdn_head_reciprocal(V / bv);
  void *parameters[] = {&p};
  check(cuLaunchKernel(kernel, HV * V / bv, N, 1, 32 * WARPS, 1, 1, 0, NULL, parameters, NULL), "launch");
  check(cuMemcpyDtoH(out, out_at, sizeof out), "decode");
  check(cuMemcpyDtoH(state, state_at, sizeof state), "cuMemcpyDtoH");

  int wrong = 0;
  for (int i = 0; i < HV * V; i++) {
    wrong += out[i] != v[i];          /* h k = v now, and q = k */
    wrong += out[HV * V + i] != 0.0f; /* padded rows are zero */
    for (int j = 0; j < K; j++)
      wrong += state[(2 * HV * V + i) * K + j] != (j == 5 ? v[i] : 0.25f);
  }
  printf("%s\n", wrong ? "WRONG" : "right");
  return wrong != 0;
}
